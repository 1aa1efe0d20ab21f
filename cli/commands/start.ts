import { Args, Flags } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { attachContainer, findContainer, killContainer, startContainer } from '../../runtime/containers.ts';
import { signalNumber } from '../../runtime/signals.ts';
import type { Roots } from '../../store/paths.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';
import { Session } from '../session.ts';

export default class Start extends PgCommand {
  static override summary = 'Start containers that were made, or have ended.';
  static override examples = [
    '<%= config.bin %> start web',
    { description: 'and see what it says', command: '<%= config.bin %> start -a web' },
  ];
  static override flags = {
    attach: Flags.boolean({ char: 'a', description: "show its output; its exit code is pg's" }),
    interactive: Flags.boolean({ char: 'i', description: "give it this command's stdin" }),
  };
  static override args = { container: Args.string({ description: 'name or id, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Start);
    this.needRoot('pg start');
    const roots = this.roots(flags);
    const refs = argv as string[];
    if (!flags.attach && !flags.interactive) {
      process.exitCode = await forEach(refs, async (ref) => {
        await startContainer(roots, ref);
        return ref;
      });
      return;
    }
    if (refs.length > 1) throw new PgError('BAD_USAGE', 'you cannot start and attach multiple containers at once');
    process.exitCode = await attached(roots, refs[0]!, flags.interactive);
  }
}

async function attached(roots: Roots, ref: string, interactive: boolean): Promise<number> {
  const { record } = await findContainer(roots, ref);
  const session = new Session({
    tty: record.config.tty,
    stdin: interactive && record.config.openStdin,
    detachable: true,
    forwardSignal: (signal) => void killContainer(roots, record.id, signalNumber(signal)).catch(() => {}),
  });
  try {
    await session.prepare();
    const started = await startContainer(roots, record.id, { stream: session });
    session.begin(started || (await attachContainer(roots, record.id, session)));
    const result = await session.result;
    return result.detached ? 0 : result.end.exitCode;
  } finally {
    session.end();
  }
}
