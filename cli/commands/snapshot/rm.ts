import { Args } from '@oclif/core';
import { removeSnapshot } from '../../../runtime/history.ts';
import { PgCommand } from '../../base.ts';
import { forEach } from '../../each.ts';

export default class SnapshotRm extends PgCommand {
  static override summary = 'Remove snapshots: what only they kept may be cleaned from then on.';
  static override examples = ['<%= config.bin %> snapshot rm web before-upgrade'];
  static override args = {
    container: Args.string({ description: 'name or id, or a named mount', required: true }),
    name: Args.string({ description: 'one or more snapshots', required: true }),
  };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(SnapshotRm);
    this.needRoot('pg snapshot rm');
    const [container, ...names] = argv as string[];
    process.exitCode = await forEach(names, async (name) => {
      await removeSnapshot(this.roots(flags), container!, name);
      return name;
    });
  }
}
