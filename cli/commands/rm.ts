import { Args, Flags } from '@oclif/core';
import { isPgError } from '../../mdm/error.ts';
import { removeContainer } from '../../runtime/containers.ts';
import { wakeHousekeeper } from '../../runtime/housekeeper.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';

export default class Rm extends PgCommand {
  static override summary = 'Remove containers and their writable layers.';
  static override examples = [
    '<%= config.bin %> rm web',
    {
      description: 'Everything that has ended',
      command: '<%= config.bin %> rm $(<%= config.bin %> ps -aq -f status=exited)',
    },
  ];
  static override flags = {
    force: Flags.boolean({ char: 'f', description: 'also when it runs (it is killed), or is not there' }),
    volumes: Flags.boolean({ char: 'v', description: 'remove its volumes without a name, too' }),
  };
  static override args = { container: Args.string({ description: 'name or id, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Rm);
    const roots = this.roots(flags);
    process.exitCode = await forEach(argv as string[], async (ref) => {
      try {
        await removeContainer(roots, ref, { force: flags.force, volumes: flags.volumes });
        return ref;
      } catch (error) {
        if (flags.force && isPgError(error, 'NO_SUCH_CONTAINER')) return undefined;
        throw error;
      }
    });
    await wakeHousekeeper(roots);
  }
}
