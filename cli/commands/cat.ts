import { Args } from '@oclif/core';
import { PgError } from '../../mdm/error.ts';
import { S_IFMT, S_IFREG } from '../../layers/trie.ts';
import { PgCommand } from '../base.ts';
import { withFilePath, writeOut } from '../image-path.ts';

const PIECE_BYTES = 1 << 20;

export default class Cat extends PgCommand {
  static override summary = 'Write a file of an image, or of a container at some position, to standard output.';
  static override description =
    'Nothing is unpacked or mounted; every byte is checked against its checksum. Symlinks are followed within the image or container.';
  static override examples = [
    '<%= config.bin %> cat nginx:latest:/etc/nginx/nginx.conf',
    { description: 'Of an image by its id', command: '<%= config.bin %> cat 3f8a4339aadd:/etc/os-release' },
    { description: 'As it was ten minutes ago', command: '<%= config.bin %> cat web@-10m:/etc/nginx/nginx.conf' },
  ];
  static override args = {
    path: Args.string({ description: 'IMAGE:/PATH, or CONTAINER[@POSITION]:/PATH', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Cat);
    await withFilePath(this.roots(flags), args.path, async ({ inode }, files) => {
      if ((inode.mode & S_IFMT) !== S_IFREG)
        throw new PgError('NOT_A_FILE', `${args.path} is not a regular file`, { hint: `pg ls -l ${args.path}` });
      for (let at = 0; at < inode.size;) {
        const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, inode.size - at));
        at += files.readAt(inode, at, piece);
        await writeOut(piece);
      }
    });
  }
}
