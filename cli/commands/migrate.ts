import { Args, Flags } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { moveOut, planMove } from '../../runtime/migrate-out.ts';
import type { MovePlan, MoveReport } from '../../runtime/migrate-report.ts';
import { PgCommand } from '../base.ts';
import { humanSize } from '../output.ts';
import { terminalProgress } from '../progress.ts';

export default class Migrate extends PgCommand {
  static override summary = 'Move a container to another node.';
  static override description = `What the other node lacks of the image and of the container's log is shipped while the container runs. Then it is stopped, the rest is shipped, the roots on both sides are compared, and it is started there.

The memory of its processes does not travel: they are stopped here and started there. Volumes (-v) do not travel either: the other node uses its own. Everything that the container wrote to its own root does, and its name, options and published ports.

If anything fails before the hand-over, the container stays here and runs on. After it, what is left here is a copy that cannot run; a move back ships only what has changed. When the connection breaks in the very moment of the hand-over, the same command again settles it.`;
  static override examples = ['<%= config.bin %> migrate web node-b', '<%= config.bin %> migrate --dry-run web node-b'];
  static override args = {
    CONTAINER: Args.string({ required: true, description: 'name or id of a container, running or not' }),
    NODE: Args.string({ required: true, description: "name of a known peer ('pg peer ls')" }),
  };
  static override flags = {
    'dry-run': Flags.boolean({ description: 'only say what would be shipped, and whether the node would take it' }),
    time: Flags.integer({
      char: 't',
      helpValue: 'SECONDS',
      description: 'seconds to wait for it to stop before killing it',
      min: 0,
    }),
    format: Flags.string({ description: 'how to show the report', options: ['text', 'json'], default: 'text' }),
    quiet: Flags.boolean({ char: 'q', description: 'no progress and no report' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Migrate);
    this.needRoot('migrate');
    const interrupt = new AbortController();
    const stop = (): void =>
      interrupt.abort(new PgError('INTERRUPTED', 'the move was interrupted: the container stays on this node'));
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, stop);
    const progress = terminalProgress(flags.quiet);
    const options = {
      roots: this.roots(flags),
      container: args.CONTAINER,
      peer: args.NODE,
      stopTimeoutSec: flags.time ?? null,
      progress,
      signal: interrupt.signal,
      say: (line: string): void => void (flags.quiet || process.stderr.write(`${line}\n`)),
    };
    if (flags['dry-run']) {
      const plan = await planMove(options);
      process.stdout.write(flags.format === 'json' ? `${JSON.stringify(plan)}\n` : describePlan(plan));
      return;
    }
    const report = await moveOut(options).finally(() => progress.end());
    if (flags.format === 'json') process.stdout.write(`${JSON.stringify(jsonReport(report))}\n`);
    else if (!flags.quiet) process.stdout.write(describeReport(report));
    if (report.startError !== null) {
      throw new PgError(
        'NOT_STARTED',
        `the container is on ${report.peer} now, but does not run there: ${report.startError.message}`,
        {
          hint: `on ${report.peer}: pg start ${report.container}`,
        },
      );
    }
  }
}

const sized = (bytes: number): string => `${humanSize(bytes)} (${bytes} bytes)`;
const noted = (notes: string[]): string => notes.map((note) => `note: ${note}\n`).join('');

function describePlan(plan: MovePlan): string {
  const lines = [
    `${plan.container} -> ${plan.peer}: ${plan.running ? 'running: it would be stopped here and started there' : 'not running'}`,
    plan.imageBytes === 0
      ? 'image   nothing to ship: it is there'
      : `image   ${plan.sectors} sectors, ${plan.contents} contents, ${plan.nodes} directory nodes: at most ${sized(plan.imageBytes)}`,
    `log     ${sized(plan.logBytes)} of ${sized(plan.logSize)}`,
  ];
  return `${lines.join('\n')}\n${noted(plan.notes)}`;
}

function describeReport(report: MoveReport): string {
  const root = Buffer.from(report.position.root).toString('hex');
  const lines = [
    `${report.container} is on ${report.peer} now (epoch ${report.epoch})${report.running ? ', running' : ''}`,
    `root    ${root} at ${report.position.size} bytes, equal on both nodes`,
    `shipped ${sized(report.wireBytes)} on the wire: ${report.sectors} sectors, ${sized(report.logBytes)} of log, ${report.rounds} round${report.rounds === 1 ? '' : 's'} before the stop`,
  ];
  if (report.downtimeMs !== null) {
    const phases = report.downPhases.map(({ name, ms }) => `${name} ${(ms / 1000).toFixed(2)}`).join(', ');
    lines.push(`down    ${(report.downtimeMs / 1000).toFixed(2)} s (${phases})`);
  }
  return `${lines.join('\n')}\n${noted(report.notes)}`;
}

function jsonReport({ position, startError, ...report }: MoveReport): object {
  return {
    ...report,
    position: { size: position.size, root: Buffer.from(position.root).toString('hex') },
    startError: startError === null ? null : { code: startError.code, message: startError.message },
  };
}
