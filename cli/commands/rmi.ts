import { Flags } from '@oclif/core';
import { isPgError } from '../../mdm/error.ts';
import { removeImage } from '../../layers/images.ts';
import { wakeHousekeeper } from '../../runtime/housekeeper.ts';
import { usersOfImage } from '../../runtime/image-users.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { EXIT_ENGINE } from '../exit-codes.ts';

export default class Rmi extends PgCommand {
  static override summary = 'Remove names of images, and images with their last name.';
  static override description = `Space is given back when nothing else needs it (pg gc). An image that a container uses stays, unless --force takes
its names away; one that a running container uses always stays.`;
  static override examples = [
    '<%= config.bin %> rmi nginx:latest',
    { description: 'By id, with all of its names', command: '<%= config.bin %> rmi --force 3f8a4339aadd' },
  ];
  static override strict = false;
  static override usage = 'rmi [-f] IMAGE...';
  static override flags = {
    force: Flags.boolean({ char: 'f', description: 'also when it has several names, or a stopped container uses it' }),
  };

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Rmi);
    if (argv.length === 0) this.error('pg rmi needs at least one IMAGE', { exit: EXIT_ENGINE });
    const roots = this.roots(flags);
    const store = openStore(roots);
    let failed = false;
    try {
      for (const asked of argv as string[]) {
        try {
          const { untagged, deleted } = removeImage(store, asked, (image) => usersOfImage(roots, image), flags.force);
          for (const name of untagged) process.stdout.write(`Untagged: ${name}\n`);
          if (deleted !== undefined) process.stdout.write(`Deleted: ${deleted}\n`);
        } catch (error) {
          if (!isPgError(error)) throw error;
          failed = true;
          process.stderr.write(`pg: ${error.message}\n${error.hint === undefined ? '' : `    ${error.hint}\n`}`);
        }
      }
    } finally {
      await store.close();
    }
    await wakeHousekeeper(roots);
    if (failed) this.exit(1);
  }
}
