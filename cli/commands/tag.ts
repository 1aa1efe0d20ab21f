import { Args } from '@oclif/core';
import { getImage, tagImage } from '../../layers/images.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';

export default class Tag extends PgCommand {
  static override summary = 'Give an image one more name.';
  static override description =
    'The name leaves the image that had it; an image without any name is dangling, and stays until pg rmi.';
  static override examples = [
    '<%= config.bin %> tag nginx:latest localhost:5000/web:1',
    '<%= config.bin %> tag 3f8a4339aadd web',
  ];
  static override args = {
    image: Args.string({ description: 'a name or the beginning of an id', required: true }),
    name: Args.string({ description: 'the new name, NAME[:TAG]', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Tag);
    const store = openStore(this.roots(flags));
    try {
      tagImage(store, getImage(store, args.image).id, args.name);
    } finally {
      await store.close();
    }
  }
}
