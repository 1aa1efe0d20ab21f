import { Args, Flags } from '@oclif/core';
import { stopContainer } from '../../runtime/containers.ts';
import { signalNumber } from '../../runtime/signals.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';

export default class Stop extends PgCommand {
  static override summary = 'Stop running containers.';
  static override description = `Sends the container's stop signal, and SIGKILL when it has not ended after the timeout. When this returns, what
the container wrote is committed and unmounted.`;
  static override examples = ['<%= config.bin %> stop web', '<%= config.bin %> stop -t 60 db'];
  static override flags = {
    signal: Flags.string({ char: 's', description: 'the signal (the container has its own)' }),
    time: Flags.integer({
      char: 't',
      aliases: ['timeout'],
      description: 'seconds until SIGKILL (10); -1 waits for ever',
    }),
  };
  static override args = { container: Args.string({ description: 'name or id, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Stop);
    const roots = this.roots(flags);
    const options = {
      ...(flags.signal === undefined ? {} : { signal: signalNumber(flags.signal) }),
      ...(flags.time === undefined ? {} : { timeoutSec: flags.time }),
    };
    process.exitCode = await forEach(argv as string[], async (ref) => {
      await stopContainer(roots, ref, options);
      return ref;
    });
  }
}
