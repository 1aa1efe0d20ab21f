import { Flags } from '@oclif/core';
import { diskUsage, type DiskUsage, type ImageUsage, type LogUsage } from '../../runtime/disk-usage.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { type Column, humanSize, printList, printObjects } from '../output.ts';

/** A line of the summary. */
interface Row {
  type: string;
  count: string;
  bytes: number;
  /** What is needed of them, where that is known. */
  live?: number;
}

const SUMMARY: readonly Column<Row>[] = [
  { header: 'TYPE', key: 'Type', value: ({ type }) => type },
  { header: 'TOTAL', key: 'TotalCount', value: ({ count }) => count },
  { header: 'SIZE', key: 'Size', value: ({ bytes }) => humanSize(bytes) },
  { header: 'LIVE', key: 'Live', value: ({ live }) => (live === undefined ? '' : humanSize(live)) },
  { header: 'DEAD', key: 'Dead', value: ({ bytes, live }) => (live === undefined ? '' : humanSize(bytes - live)) },
];

const IMAGES: readonly Column<ImageUsage>[] = [
  { header: 'IMAGE', key: 'Name', value: ({ name }) => name },
  { header: 'SIZE', key: 'Size', value: ({ totalBytes }) => humanSize(totalBytes) },
  { header: 'SHARED SIZE', key: 'SharedSize', value: ({ sharedBytes }) => humanSize(sharedBytes) },
  { header: 'UNIQUE SIZE', key: 'UniqueSize', value: ({ uniqueBytes }) => humanSize(uniqueBytes) },
];

const LOGS: readonly Column<LogUsage>[] = [
  { header: 'NAME', key: 'Name', value: ({ name }) => name },
  { header: 'SIZE', key: 'Size', value: ({ totalBytes }) => humanSize(totalBytes) },
  { header: 'LIVE', key: 'Live', value: ({ liveBytes }) => humanSize(liveBytes) },
  { header: 'DEAD', key: 'Dead', value: ({ deadBytes }) => humanSize(deadBytes) },
  { header: 'OVERHEAD', key: 'Overhead', value: ({ overheadBytes }) => humanSize(overheadBytes) },
  { header: 'SHARED SIZE', key: 'SharedSize', value: ({ sharedBytes }) => humanSize(sharedBytes) },
  { header: 'UNIQUE SIZE', key: 'UniqueSize', value: ({ uniqueBytes }) => humanSize(uniqueBytes) },
];

function summaryOf(usage: DiskUsage): Row[] {
  const overhead = ({ overheadBytes, liveBytes }: LogUsage): number => overheadBytes + liveBytes;
  const live = (logs: readonly LogUsage[], bytes: number): number =>
    Math.min(
      bytes,
      logs.reduce((sum, log) => sum + overhead(log), 0),
    );
  const { containers, mounts, images } = usage;
  return [
    {
      type: 'Images',
      count: String(images.length),
      bytes: usage.sectorBytes,
      live: Math.min(usage.sectorBytes, usage.liveSectorBytes),
    },
    {
      type: 'Containers',
      count: String(containers.length),
      bytes: usage.containerBytes,
      live: live(containers, usage.containerBytes),
    },
    {
      type: 'Named mounts',
      count: String(mounts.length),
      bytes: usage.mountBytes,
      live: live(mounts, usage.mountBytes),
    },
    { type: 'Index', count: '', bytes: usage.indexBytes },
    { type: 'Other', count: '', bytes: usage.otherBytes },
    { type: 'Total', count: '', bytes: usage.totalBytes },
  ];
}

export default class Df extends PgCommand {
  static override aliases = ['system:df'];
  static override summary = 'Show what images, containers and mounts take on the disk.';
  static override description = `Sparse files count by their blocks: the total is what du -sx says of the data directory. What is live of a container's log is what its files needed at its last
checkpoint, and everything written since; dead bytes go back to the disk by themselves once there are more of them than live ones, and more than 32 MiB. Dead bytes of images go with pg gc.
Overhead is all but the log: checkpoints, snapshots, records, output. What is shared, by images with one another or by a container with its clones, is told for each; the summary counts it once.`;
  static override examples = [
    '<%= config.bin %> df',
    { description: 'Each image, container and mount', command: '<%= config.bin %> df -v' },
    { description: 'In bytes, for programs', command: '<%= config.bin %> df --format json' },
  ];
  static override flags = {
    verbose: Flags.boolean({ char: 'v', description: 'each image, container and mount' }),
    format: Flags.string({
      description:
        "'table', 'json' (one object with everything, in bytes) or a Go template for the lines of the summary",
      helpValue: 'FORMAT',
    }),
  };

  async run(): Promise<void> {
    const { flags } = await this.parse(Df);
    const roots = this.roots(flags);
    const store = openStore(roots);
    let usage: DiskUsage;
    try {
      usage = diskUsage(roots, store);
    } finally {
      await store.close();
    }
    if (flags.format === 'json') return printObjects([usage], flags.format);
    printList(summaryOf(usage), SUMMARY, ({ type }) => type, { format: flags.format });
    if (!flags.verbose) return;
    process.stdout.write('\nImages:\n');
    printList(usage.images, IMAGES, ({ id }) => id, {});
    for (const [title, logs] of [
      ['Containers', usage.containers],
      ['Named mounts', usage.mounts],
    ] as const) {
      process.stdout.write(`\n${title}:\n`);
      printList(logs, LOGS, ({ id }) => id, {});
    }
  }
}
