import { Args, Flags } from '@oclif/core';
import { batchOf, type Commit } from '../../fs/log/commits.ts';
import { ENTRY_NAMES } from '../../fs/view/entries.ts';
import { PgError } from '../../mdm/error.ts';
import { InputReader, type Instruction } from '../../mdm/instruction.ts';
import { commitsOf, type LogReport, verifyLog } from '../../runtime/proof.ts';
import { PgCommand } from '../base.ts';
import { type Column, humanDuration, humanSize, listFlags, printList } from '../output.ts';

/** Lines are written in groups of so many. */
const GROUP = 500;

const hex = (root: Uint8Array): string => Buffer.from(root).toString('hex');
const rootOf = ({ root }: Commit, noTrunc: boolean): string => hex(root).slice(0, noTrunc ? 64 : 12);
const timeOf = ({ sec, nsec }: Commit): Date => new Date(sec * 1000 + nsec / 1e6);

/** `Truncate(256) Write(192, 64)`. */
function describe(instructions: readonly Instruction[]): string {
  return instructions
    .map((instruction) => {
      const fields = new InputReader(instruction, instruction.inputs.length);
      const inputs = Array.from({ length: instruction.inputs.length / 8 }, () => fields.u64());
      return `${instruction.name}(${inputs.join(', ')})`;
    })
    .join(' ');
}

const entriesOf = ({ entries }: Commit): string =>
  [...entries]
    .map(([type, count]) => `${ENTRY_NAMES[type] ?? `type ${type}`}${count > 1 ? ` ${count}` : ''}`)
    .join(', ');

const costOf = (commit: Commit): ReturnType<typeof batchOf>['cost'] => batchOf(commit).cost;

function describeCost(commit: Commit): string {
  const { accesses, read, written, compute } = costOf(commit);
  return `${accesses} accesses, ${humanSize(read)} read, ${humanSize(written)} written, ${compute} hashes`;
}

/** Columns of the table, with widths that hold whatever comes: a long list is printed as it is found. */
const TABLE: {
  header: string;
  width: (noTrunc: boolean) => number;
  value: (commit: Commit, noTrunc: boolean) => string;
}[] = [
  { header: 'ROOT', width: (noTrunc) => (noTrunc ? 64 : 12), value: rootOf },
  {
    header: 'CREATED',
    width: (noTrunc) => (noTrunc ? 24 : 22),
    value: (commit, noTrunc) =>
      noTrunc ? timeOf(commit).toISOString() : `${humanDuration(Date.now() - timeOf(commit).getTime())} ago`,
  },
  {
    header: 'SIZE',
    width: (noTrunc) => (noTrunc ? 14 : 7),
    value: ({ end }, noTrunc) => (noTrunc ? String(end) : humanSize(end)),
  },
  { header: 'INSTRUCTIONS', width: () => 48, value: (commit) => describe(batchOf(commit).instructions) },
  { header: 'COST', width: () => 54, value: describeCost },
  { header: 'ENTRIES', width: () => 0, value: entriesOf },
];

/** What templates and JSON know of a commit. */
const COLUMNS: Column<Commit>[] = [
  { header: 'ROOT', key: 'Root', value: ({ root }) => hex(root) },
  { header: 'SIZE', key: 'Size', value: ({ end }) => String(end) },
  { header: 'START', key: 'Start', value: ({ start }) => String(start) },
  { header: 'CREATED AT', key: 'CreatedAt', value: (commit) => timeOf(commit).toISOString() },
  {
    header: 'CREATED',
    key: 'CreatedSince',
    value: (commit) => `${humanDuration(Date.now() - timeOf(commit).getTime())} ago`,
  },
  { header: 'INSTRUCTIONS', key: 'Instructions', value: (commit) => describe(batchOf(commit).instructions) },
  { header: 'ACCESSES', key: 'Accesses', value: (commit) => String(costOf(commit).accesses) },
  { header: 'READ', key: 'Read', value: (commit) => String(costOf(commit).read) },
  { header: 'WRITTEN', key: 'Written', value: (commit) => String(costOf(commit).written) },
  { header: 'COMPUTE', key: 'Compute', value: (commit) => String(costOf(commit).compute) },
  { header: 'COST', key: 'Cost', value: describeCost },
  { header: 'ENTRIES', key: 'Entries', value: entriesOf },
];

export default class Log extends PgCommand {
  static override summary = "The commits of a container's writable layer, newest first.";
  static override description = `Each is a batch of the Merklized Data Machine on the container's log: the root and the size of the log after it are a
position, which names the whole history and which pg prove proves files under. Roots are computed from the log's bytes, and the cost is the
machine's (docs/formats/mdm.md). What a running container has written so far is committed first. Also for named mounts.`;
  static override examples = [
    '<%= config.bin %> log web',
    '<%= config.bin %> log -n 1 --no-trunc web',
    "<%= config.bin %> log --format '{{.Root}} {{.Size}}' web",
    {
      description: 'Replay everything, and check what was said of the files',
      command: '<%= config.bin %> log --verify web',
    },
  ];
  static override flags = {
    ...listFlags,
    quiet: Flags.boolean({ char: 'q', description: 'show roots only' }),
    limit: Flags.integer({ char: 'n', description: 'show so many commits', min: 0, helpValue: 'N' }),
    reverse: Flags.boolean({ description: 'oldest first' }),
    verify: Flags.boolean({
      description: 'replay the log and check its claims about the files',
      exclusive: ['format', 'quiet', 'limit', 'reverse'],
    }),
  };
  static override args = { container: Args.string({ description: 'name or id, or a named mount', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Log);
    const roots = this.roots(flags);
    if (flags.verify) return this.verify(args.container, await verifyLog(roots, args.container));
    const list = await commitsOf(roots, args.container);
    if (list === undefined) return;
    const noTrunc = flags['no-trunc'];
    const asTable = !flags.quiet && (flags.format ?? 'table') === 'table';
    const print = asTable
      ? tablePrinter(noTrunc)
      : (rows: Commit[]) => printList(rows, COLUMNS, (row) => rootOf(row, noTrunc), flags);
    try {
      // A table by template has one heading, and columns as wide as its widest line.
      const groupSize = flags.format?.startsWith('table ') === true ? Infinity : GROUP;
      let left = flags.limit ?? Infinity;
      let group: Commit[] = [];
      for (const commit of left === 0 ? [] : flags.reverse ? list.oldestFirst() : list.newestFirst()) {
        group.push(commit);
        if (group.length === groupSize) {
          print(group);
          group = [];
          await drained();
        }
        if (--left === 0) break;
      }
      print(group);
      if (left > 0 && list.goneBefore > 0)
        process.stderr.write(`what was committed before byte ${list.goneBefore} was cleaned: only its root is left\n`);
    } finally {
      list.close();
    }
  }

  private verify(name: string, { claims, recorded }: LogReport): void {
    const lines = claims.map(({ at, size, root, holds }) => ({
      holds,
      what: `${hex(root)}  files at ${size}, said at ${at}`,
    }));
    if (recorded !== undefined)
      lines.push({ holds: recorded.holds, what: `${recorded.root}  log at ${recorded.size}, as was recorded` });
    for (const { holds, what } of lines) process.stdout.write(`${holds ? 'holds' : 'FALSE'}  ${what}\n`);
    const wrong = lines.filter(({ holds }) => !holds).length;
    process.stderr.write(
      wrong === 0
        ? `The log of ${name} replays, and has the roots that it should have\n`
        : `pg: ${wrong} of ${lines.length} roots of the log of ${name} are false\n`,
    );
    if (wrong > 0) this.exit(1);
  }
}

function tablePrinter(noTrunc: boolean): (rows: Commit[]) => void {
  const line = (cells: string[]): string =>
    `${cells
      .map((cell, i) => cell.padEnd(TABLE[i]!.width(noTrunc)))
      .join('   ')
      .trimEnd()}\n`;
  let isFirst = true;
  return (rows) => {
    const header = isFirst ? line(TABLE.map((column) => column.header)) : '';
    isFirst = false;
    process.stdout.write(header + rows.map((row) => line(TABLE.map((column) => column.value(row, noTrunc)))).join(''));
  };
}

/** Waits until what was written has gone out; whoever reads may have read enough. */
function drained(): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write('', (error) =>
      error ? reject(new PgError('OUTPUT', `stdout: ${error.message}`)) : resolve(),
    );
  });
}
