import { Args, Flags } from '@oclif/core';
import { exportImage } from '../../layers/export.ts';
import { getImage } from '../../layers/images.ts';
import { openStore } from '../../store/store.ts';
import { PgCommand } from '../base.ts';
import { terminalProgress } from '../progress.ts';

export default class Export extends PgCommand {
  static override summary = 'Write an image to an archive or a directory that other tools read.';
  static override description = `DESTINATION is docker-archive:PATH[:NAME], oci-archive:PATH[:NAME] or oci:DIR[:NAME]. Config and layers are those that were
imported, bit for bit: the image id and every DiffID stay. Layers are written uncompressed.`;
  static override examples = [
    { description: 'For docker load', command: '<%= config.bin %> export nginx:latest docker-archive:nginx.tar' },
    {
      description: 'For podman, skopeo, umoci',
      command: '<%= config.bin %> export nginx:latest oci-archive:nginx.tar',
    },
  ];
  static override flags = {
    quiet: Flags.boolean({ char: 'q', description: 'no progress' }),
  };
  static override args = {
    image: Args.string({ description: 'a name or the beginning of an id', required: true }),
    destination: Args.string({ description: 'where to write it', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Export);
    const store = openStore(this.roots(flags));
    const progress = terminalProgress(flags.quiet === true);
    try {
      await exportImage(store, getImage(store, args.image), args.destination, progress);
    } finally {
      progress.end();
      await store.close();
    }
  }
}
