import { Args } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { S_IFMT, S_IFREG } from '../../layers/trie.ts';
import { PgCommand } from '../base.ts';
import { withImagePath, writeOut } from '../image-path.ts';

const PIECE_BYTES = 1 << 20;

export default class Cat extends PgCommand {
  static override summary = 'Write a file of an image to standard output.';
  static override description =
    'Nothing is unpacked or mounted; every byte is checked against its checksum. Symlinks are followed within the image.';
  static override examples = [
    '<%= config.bin %> cat nginx:latest:/etc/nginx/nginx.conf',
    { description: 'Of an image by its id', command: '<%= config.bin %> cat 3f8a4339aadd:/etc/os-release' },
  ];
  static override args = { path: Args.string({ description: 'IMAGE:/PATH', required: true }) };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Cat);
    await withImagePath(this.roots(flags), args.path, async ({ inode }, _tree, store) => {
      if ((inode.mode & S_IFMT) !== S_IFREG)
        throw new PgError('NOT_A_FILE', `${args.path} is not a regular file`, { hint: `pg ls -l ${args.path}` });
      if (inode.content === undefined) return;
      const content = store.openContent(inode.content);
      for (let at = 0; at < content.size;) {
        const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, content.size - at));
        at += content.readAt(piece, at);
        await writeOut(piece);
      }
    });
  }
}
