import { Args } from '@oclif/core';
import { getImage, shortId } from '../../layers/images.ts';
import { pinImage } from '../../layers/pins.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { forEach } from '../each.ts';

export default class Pin extends PgCommand {
  static override summary = 'Keep images: pg prune leaves them, and pg rmi removes them only by force.';
  static override examples = ['<%= config.bin %> pin nginx:latest'];
  static override args = { image: Args.string({ description: 'name, id or address, one or more', required: true }) };
  static override strict = false;

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Pin);
    const store = openStore(this.roots(flags));
    try {
      process.exitCode = await forEach(argv as string[], async (word) => {
        const { id } = getImage(store, word);
        pinImage(store, id);
        return shortId(id);
      });
    } finally {
      await store.close();
    }
  }
}
