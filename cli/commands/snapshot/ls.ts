import { Args } from '@oclif/core';
import type { Snapshot } from '../../../fs/history/snapshots.ts';
import { listSnapshots } from '../../../runtime/history.ts';
import { PgCommand } from '../../base.ts';
import { type Column, humanDuration, humanSize, listFlags, printList } from '../../output.ts';

const COLUMNS: Column<Snapshot>[] = [
  { header: 'NAME', key: 'Name', value: ({ name }) => name },
  { header: 'ROOT', key: 'Root', value: ({ root }, noTrunc) => (noTrunc ? root : root.slice(0, 12)) },
  {
    header: 'SIZE',
    key: 'Size',
    value: ({ size }, noTrunc) => (noTrunc ? String(size) : humanSize(size)),
  },
  {
    header: 'STATE OF',
    key: 'StateOf',
    value: ({ ms }, noTrunc) => (noTrunc ? new Date(ms).toISOString() : `${humanDuration(Date.now() - ms)} ago`),
  },
  {
    header: 'CREATED',
    key: 'Created',
    value: ({ createdMs }, noTrunc) =>
      noTrunc ? new Date(createdMs).toISOString() : `${humanDuration(Date.now() - createdMs)} ago`,
  },
];

export default class SnapshotLs extends PgCommand {
  static override summary = 'The snapshots of a container, oldest state first.';
  static override description =
    'SIZE is the bytes of the log at that state: with ROOT its position, which pg log lists and pg prove proves files under.';
  static override examples = [
    '<%= config.bin %> snapshot ls web',
    "<%= config.bin %> snapshot ls --no-trunc --format '{{.Name}} {{.Size}} {{.Root}}' web",
  ];
  static override flags = listFlags;
  static override args = { container: Args.string({ description: 'name or id, or a named mount', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(SnapshotLs);
    printList(await listSnapshots(this.roots(flags), args.container), COLUMNS, ({ name }) => name, flags);
  }
}
