import { Args } from '@oclif/core';
import { getImage, shortId } from '../../layers/images.ts';
import { unpinImage } from '../../layers/pins.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';

export default class Unpin extends PgCommand {
  static override summary = 'Take back what pg pin did: the images may be pruned and removed again.';
  static override examples = ['<%= config.bin %> unpin nginx:latest'];
  static override args = { image: Args.string({ description: 'name, id or address, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Unpin);
    const store = openStore(this.roots(flags));
    try {
      process.exitCode = await forEach(argv as string[], async (word) => {
        const { id } = getImage(store, word);
        unpinImage(store, id);
        return shortId(id);
      });
    } finally {
      await store.close();
    }
  }
}
