import { Args, Flags } from '@oclif/core';
import { existsSync } from 'node:fs';
import { PgError } from '../../mdm/error.ts';
import { killContainer, startContainer } from '../../runtime/containers.ts';
import type { ControlClient } from '../../runtime/control.ts';
import type { ContainerRecord } from '../../runtime/record.ts';
import { signalNumber } from '../../runtime/signals.ts';
import { Trace } from '../../runtime/trace.ts';
import type { Roots } from '../../store/paths.ts';
import { commandWords } from '../argv.ts';
import { PgCommand } from '../base.ts';
import { takeShim } from '../early-shim.ts';
import { newContainer } from '../new-container.ts';
import { runFlags } from '../run-flags.ts';
import { printTrace, Session } from '../session.ts';

export default class Run extends PgCommand {
  static override summary = 'Make a container from an image and start it.';
  static override description = `Without -d the container's output is shown and its exit code is pg's; signals are passed on to it. -i gives it
this command's stdin, -t a terminal; Ctrl-P Ctrl-Q leaves it running. What it writes goes to the log of its writable layer; the paths an
image names as volumes are part of that layer, too.`;
  static override usage = 'run [FLAGS] IMAGE [COMMAND] [ARG...]';
  static override examples = [
    '<%= config.bin %> run --rm -it debian bash',
    { description: 'A web server in the background', command: '<%= config.bin %> run -d --name web -p 8080:80 nginx' },
    {
      description: 'A directory of the host in it',
      command: '<%= config.bin %> run --rm -v $PWD:/work -w /work alpine ls',
    },
  ];
  static override flags = {
    ...runFlags,
    detach: Flags.boolean({ char: 'd', description: 'leave it running, print its id' }),
    'sig-proxy': Flags.boolean({ description: 'pass signals on to it', default: true, allowNo: true }),
  };
  static override args = {
    image: Args.string({ description: 'image name or id', required: true }),
    command: Args.string({ description: "in place of the image's command" }),
  };
  static override strict = false;

  async run(): Promise<void> {
    const trace = new Trace();
    const { args, flags } = await this.parse(Run);
    this.needRoot('pg run');
    if (flags.cidfile !== undefined && existsSync(flags.cidfile)) {
      throw new PgError(
        'BAD_USAGE',
        `container ID file found, make sure the other container isn't running or delete ${flags.cidfile}`,
      );
    }
    if (flags.interactive === true && flags.tty === true && !flags.detach && !process.stdin.isTTY) {
      throw new PgError('BAD_USAGE', 'the input device is not a TTY', { hint: 'leave out -t' });
    }
    const roots = this.roots(flags);
    trace.mark('parsed');
    const shim = takeShim(roots);
    trace.mark('shim taken');
    let record: ContainerRecord;
    try {
      record = await newContainer(roots, args.image, commandWords(this.argv), flags);
    } catch (error) {
      shim.close();
      throw error;
    }
    trace.mark('created');
    if (flags.detach) {
      await startContainer(roots, record.id, { shim, onTrace: (phases) => trace.phases.push(...phases) });
      process.stdout.write(`${record.id}\n`);
      trace.mark('started');
      printTrace(trace.phases);
      return;
    }
    process.exitCode = await this.foreground(roots, record, shim, trace, flags['sig-proxy']);
  }

  /** The exit code of the container, or 0 when the user left it running. */
  private async foreground(
    roots: Roots,
    record: ContainerRecord,
    shim: ControlClient,
    trace: Trace,
    proxySignals: boolean,
  ): Promise<number> {
    const { tty, openStdin } = record.config;
    const session = new Session({
      tty,
      stdin: openStdin,
      detachable: true,
      ...(proxySignals && {
        forwardSignal: (signal) => void killContainer(roots, record.id, signalNumber(signal)).catch(() => {}),
      }),
    });
    try {
      await session.prepare();
      session.begin((await startContainer(roots, record.id, { shim, stream: session })) as ControlClient);
      const result = await session.result;
      if (result.detached) return 0;
      trace.mark('ended');
      printTrace([...trace.phases, ...(result.end.trace ?? [])]);
      return result.end.exitCode;
    } finally {
      session.end();
    }
  }
}
