import { Args, Flags } from '@oclif/core';
import { killContainer } from '../../runtime/containers.ts';
import { signalNumber } from '../../runtime/signals.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';

export default class Kill extends PgCommand {
  static override summary = "Send a signal to running containers' first process.";
  static override examples = ['<%= config.bin %> kill web', '<%= config.bin %> kill -s HUP web'];
  static override flags = {
    signal: Flags.string({ char: 's', description: 'which signal', default: 'KILL' }),
  };
  static override args = { container: Args.string({ description: 'name or id, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Kill);
    const roots = this.roots(flags);
    const signal = signalNumber(flags.signal);
    process.exitCode = await forEach(argv as string[], async (ref) => {
      await killContainer(roots, ref, signal);
      return ref;
    });
  }
}
