import { Args, Flags } from '@oclif/core';
import { startContainer, stopContainer } from '../../runtime/containers.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';

export default class Restart extends PgCommand {
  static override summary = 'Stop containers and start them again.';
  static override examples = ['<%= config.bin %> restart web'];
  static override flags = {
    time: Flags.integer({ char: 't', aliases: ['timeout'], description: 'seconds until SIGKILL (10)' }),
  };
  static override args = { container: Args.string({ description: 'name or id, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Restart);
    this.needRoot('pg restart');
    const roots = this.roots(flags);
    process.exitCode = await forEach(argv as string[], async (ref) => {
      await stopContainer(roots, ref, flags.time === undefined ? {} : { timeoutSec: flags.time });
      await startContainer(roots, ref);
      return ref;
    });
  }
}
