import { Args, Flags } from '@oclif/core';
import { containerStats, findContainer, listContainers } from '../../runtime/containers.ts';
import type { Usage } from '../../runtime/cgroup.ts';
import { shortId } from '../../runtime/names.ts';
import { totalmem } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Roots } from '../../store/paths.ts';
import type { Cost } from '../../mdm/cost.ts';
import { amountOf } from '../../mdm/meter.ts';
import { readSettings } from '../../runtime/settings.ts';
import { PgCommand } from '../base.ts';
import { type Column, humanSize, printList } from '../output.ts';

interface Row {
  id: string;
  name: string;
  usage: Usage;
  /** CPUs used between two looks. */
  cpus: number;
  /** What its I/O has cost since it was made, and what that comes to at this node's prices. */
  spent: Cost;
  amount: number | null;
}

type Seen = Pick<Row, 'name' | 'usage' | 'spent'>;

const NOTHING: Cost = { accesses: 0, read: 0, written: 0, compute: 0 };
const INTERVAL_MS = 1000;

const binary = (bytes: number): string => {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const unit = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 2 ** (10 * unit)).toPrecision(4))}${units[unit]}`;
};
const limitOf = (usage: Usage): number => usage.memoryLimitBytes || totalmem();

const COLUMNS: readonly Column<Row>[] = [
  { header: 'CONTAINER ID', key: 'ID', value: (row) => shortId(row.id) },
  { header: 'NAME', key: 'Name', value: (row) => row.name },
  { header: 'CPU %', key: 'CPUPerc', value: (row) => `${(row.cpus * 100).toFixed(2)}%` },
  {
    header: 'MEM USAGE / LIMIT',
    key: 'MemUsage',
    value: ({ usage }) => `${binary(usage.memoryBytes)} / ${binary(limitOf(usage))}`,
  },
  {
    header: 'MEM %',
    key: 'MemPerc',
    value: ({ usage }) => `${((100 * usage.memoryBytes) / limitOf(usage)).toFixed(2)}%`,
  },
  {
    header: 'NET I/O',
    key: 'NetIO',
    value: ({ usage }) => `${humanSize(usage.netReceivedBytes)} / ${humanSize(usage.netSentBytes)}`,
  },
  {
    header: 'BLOCK I/O',
    key: 'BlockIO',
    value: ({ usage }) => `${humanSize(usage.blockReadBytes)} / ${humanSize(usage.blockWrittenBytes)}`,
  },
  {
    header: 'I/O COST',
    key: 'IOCost',
    value: ({ spent }) =>
      `${spent.accesses} / ${humanSize(spent.read)} / ${humanSize(spent.written)} / ${spent.compute}`,
  },
  {
    header: 'AMOUNT',
    key: 'Amount',
    value: ({ amount }) => (amount === null ? '' : String(Number(amount.toPrecision(6)))),
  },
  { header: 'PIDS', key: 'PIDs', value: ({ usage }) => String(usage.pids) },
];

export default class Stats extends PgCommand {
  static override summary = 'What running containers use of CPU, memory, network and disk.';
  static override description = `All that run, or those named. Every second anew, until Ctrl-C. I/O COST is what the container's root has cost since it was made, in the
resources of the machine under it: accesses, bytes read, bytes written, compressions.`;
  static override examples = ['<%= config.bin %> stats', '<%= config.bin %> stats --no-stream web'];
  static override flags = {
    'no-stream': Flags.boolean({ description: 'once' }),
    format: Flags.string({ description: "'table', 'json' or a Go template", helpValue: 'FORMAT' }),
  };
  static override args = { container: Args.string({ description: 'names or ids' }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Stats);
    const roots = this.roots(flags);
    const { prices } = await readSettings(roots);
    const columns =
      prices === null && (flags.format ?? 'table') === 'table' ? COLUMNS.filter((c) => c.key !== 'Amount') : COLUMNS;
    let before = await look(roots, argv as string[]);
    for (;;) {
      await sleep(INTERVAL_MS);
      const now = await look(roots, argv as string[]);
      const rows = [...now].map(([id, seen]) => ({
        id,
        ...seen,
        cpus: cpusBetween(before.get(id)?.usage, seen.usage),
        amount: prices === null ? null : amountOf(seen.spent, prices),
      }));
      if (!flags['no-stream'] && process.stdout.isTTY) process.stdout.write('\x1b[2J\x1b[H');
      printList(rows, columns, (row) => shortId(row.id), { format: flags.format });
      if (flags['no-stream']) return;
      before = now;
    }
  }
}

async function look(roots: Roots, refs: string[]): Promise<Map<string, Seen>> {
  const containers =
    refs.length > 0
      ? await Promise.all(refs.map((ref) => findContainer(roots, ref)))
      : (await listContainers(roots)).filter(({ state }) => state.status === 'running');
  const seen = new Map<string, Seen>();
  for (const { record } of containers) {
    const stats = await containerStats(roots, record.id).catch((error: Error) => {
      // One that ends meanwhile is left out, unless it was asked for by name.
      if (refs.length > 0) throw error;
      return undefined;
    });
    if (stats !== undefined)
      seen.set(record.id, { name: record.name, usage: stats.usage, spent: stats.filesystem.spent ?? NOTHING });
  }
  return seen;
}

function cpusBetween(before: Usage | undefined, now: Usage): number {
  if (before === undefined || now.atMs <= before.atMs) return 0;
  return (now.cpuNs - before.cpuNs) / 1e6 / (now.atMs - before.atMs);
}
