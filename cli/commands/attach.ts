import { Args, Flags } from '@oclif/core';
import { attachContainer, findContainer, killContainer } from '../../runtime/containers.ts';
import { signalNumber } from '../../runtime/signals.ts';
import { PgCommand } from '../base.ts';
import { Session } from '../session.ts';

export default class Attach extends PgCommand {
  static override summary = "Attach to a running container's streams.";
  static override description = 'Ctrl-P Ctrl-Q leaves it running (when it has a terminal).';
  static override examples = ['<%= config.bin %> attach web'];
  static override flags = {
    'no-stdin': Flags.boolean({ description: 'do not give it stdin' }),
    'sig-proxy': Flags.boolean({ description: 'pass signals on to it', default: true, allowNo: true }),
  };
  static override args = { container: Args.string({ description: 'name or id', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Attach);
    const roots = this.roots(flags);
    const { record } = await findContainer(roots, args.container);
    const session = new Session({
      tty: record.config.tty,
      stdin: !flags['no-stdin'] && record.config.openStdin,
      detachable: true,
      ...(flags['sig-proxy'] && {
        forwardSignal: (signal) => void killContainer(roots, record.id, signalNumber(signal)).catch(() => {}),
      }),
    });
    try {
      await session.prepare();
      session.begin(await attachContainer(roots, record.id, session));
      const result = await session.result;
      if (!result.detached) process.exitCode = result.end.exitCode;
    } finally {
      session.end();
    }
  }
}
