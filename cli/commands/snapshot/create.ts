import { Args } from '@oclif/core';
import { createSnapshot } from '../../../runtime/history.ts';
import { PgCommand } from '../../base.ts';
import { parseContainerAt } from '../../place.ts';

export default class SnapshotCreate extends PgCommand {
  static override summary = 'Keep the state of a container, as it is or was, under a name.';
  static override description = `A running container is not stopped; what it has written so far is in it. Nothing is copied: what the snapshot needs is kept
when the log is cleaned. Prints the name, which is a position: for pg mount, diff, ls, cat, cp, clone, commit, rollback.`;
  static override examples = [
    '<%= config.bin %> snapshot create web before-upgrade',
    { description: 'A name for a moment that has passed', command: '<%= config.bin %> snapshot create web@-10m good' },
  ];
  static override args = {
    container: Args.string({ description: 'CONTAINER[@POSITION], or a named mount', required: true }),
    name: Args.string({ description: 'its name (else one made of the time)' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(SnapshotCreate);
    this.needRoot('pg snapshot create');
    const { name, position } = parseContainerAt(args.container);
    const made = await createSnapshot(this.roots(flags), name, position, args.name);
    process.stdout.write(`${made.name}\n`);
  }
}
