import { Args } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { rollBack } from '../../runtime/rollback.ts';
import { PgCommand } from '../base.ts';
import { parseContainerAt } from '../place.ts';

export default class Rollback extends PgCommand {
  static override summary = 'Make the files of a stopped container what they were at a position.';
  static override description = `What is undone stays in the container's history as long as that is kept (docs/history.md), so a rollback can be rolled back; the
position for that is printed on stderr. A position: a snapshot's name, a commit's size or root, a time (@-5m, '@{2 hours ago}').`;
  static override examples = [
    '<%= config.bin %> rollback web before-upgrade',
    { description: 'The last ten minutes did not happen', command: '<%= config.bin %> rollback web@-10m' },
  ];
  static override usage = ['rollback CONTAINER POSITION', 'rollback CONTAINER@POSITION'];
  static override args = {
    container: Args.string({ description: 'name or id, or a named mount', required: true }),
    position: Args.string({ description: 'where to go back to' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Rollback);
    this.needRoot('pg rollback');
    const place = parseContainerAt(args.container);
    const position = args.position ?? place.position;
    if (position === undefined || (args.position !== undefined && place.position !== undefined)) {
      throw new PgError('BAD_USAGE', 'pg rollback needs one position to go back to', {
        hint: `pg snapshot ls ${place.name} and pg log ${place.name} show positions`,
      });
    }
    const { name, before } = await rollBack(this.roots(flags), place.name, position);
    process.stdout.write(`${name}\n`);
    process.stderr.write(`To take it back: pg rollback ${name} ${before}\n`);
  }
}
