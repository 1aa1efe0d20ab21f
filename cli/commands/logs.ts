import { Args, Flags } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { findContainer, waitContainer } from '../../runtime/containers.ts';
import { type OutputLine, readOutput } from '../../runtime/output-reader.ts';
import { outputPath } from '../../runtime/record.ts';
import { PgCommand } from '../base.ts';

export default class Logs extends PgCommand {
  static override summary = 'Show what a container wrote on stdout and stderr.';
  static override examples = [
    '<%= config.bin %> logs web',
    { description: 'The last ten lines, and what comes', command: '<%= config.bin %> logs -f --tail 10 web' },
    '<%= config.bin %> logs --since 10m -t web',
  ];
  static override flags = {
    follow: Flags.boolean({ char: 'f', description: 'go on as more is written, until it ends' }),
    since: Flags.string({ description: 'only from this time on: RFC 3339, or 10m, 2h ago', helpValue: 'TIME' }),
    until: Flags.string({ description: 'only before this time', helpValue: 'TIME' }),
    tail: Flags.string({ char: 'n', description: 'only the last N lines', helpValue: 'N|all', default: 'all' }),
    timestamps: Flags.boolean({ char: 't', description: 'with the time of each line' }),
  };
  static override args = { container: Args.string({ description: 'name or id', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Logs);
    const roots = this.roots(flags);
    const { record, state } = await findContainer(roots, args.container);
    const since = flags.since === undefined ? -Infinity : timeOf(flags.since);
    const until = flags.until === undefined ? Infinity : timeOf(flags.until);
    const emit = (line: OutputLine): void => {
      const at = Date.parse(line.time);
      if (at < since || at >= until) return;
      process[line.stream].write(flags.timestamps ? `${line.time} ${line.log}` : line.log);
    };
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
    });
    const running = state.status === 'running' || state.status === 'restarting';
    const end = flags.follow && running ? waitContainer(roots, record.id) : undefined;
    await readOutput(outputPath(roots, record.id), tailOf(flags.tail), emit, end);
  }
}

function tailOf(text: string): number | undefined {
  if (text === 'all') return undefined;
  const lines = Number(text);
  if (!Number.isInteger(lines)) throw new PgError('BAD_USAGE', `invalid --tail: ${text}`, { hint: 'a number, or all' });
  // As docker has it, below zero is all.
  return lines < 0 ? undefined : lines;
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** A time as docker takes it: RFC 3339, seconds since 1970, or how long ago (`1h30m`); milliseconds since 1970. */
function timeOf(text: string): number {
  if (/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) {
    const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)];
    return Date.now() - parts.reduce((total, [, amount, unit]) => total + Number(amount) * UNIT_MS[unit!]!, 0);
  }
  const at = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text);
  if (Number.isNaN(at)) throw new PgError('BAD_USAGE', `not a time: ${text}`, { hint: '2026-01-02T03:04:05Z, or 10m' });
  return at;
}
