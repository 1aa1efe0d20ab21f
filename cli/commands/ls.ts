import { Args, Flags } from '@oclif/core';
import { entriesOf, type Found, isDirectoryMode } from '../../layers/tree-path.ts';
import { PgCommand } from '../base.ts';
import { withFilePath, writeOut } from '../image-path.ts';
import { describeInode } from '../inode-line.ts';
import { wordOfPath } from '../paths.ts';

export default class Ls extends PgCommand {
  static override summary = 'List a directory of an image, or of a container at some position.';
  static override description =
    'Nothing is unpacked or mounted: only the directories on the way are read. Names in byte order, hidden ones too.';
  static override examples = [
    '<%= config.bin %> ls nginx:latest:/etc/nginx',
    { description: 'With mode, links, owner, size and time', command: '<%= config.bin %> ls -l nginx:/usr/bin' },
    { description: 'A container as it was', command: '<%= config.bin %> ls web@before:/etc' },
  ];
  static override flags = {
    long: Flags.boolean({
      char: 'l',
      description: 'mode, links, owner (numbers), size, time (UTC), and where symlinks lead',
    }),
  };
  static override args = {
    path: Args.string({ description: 'IMAGE[:/PATH], or CONTAINER[@POSITION][:/PATH]', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Ls);
    await withFilePath(this.roots(flags), args.path, async (found, { tree }) => {
      const isDirectory = isDirectoryMode(found.inode.mode);
      const listed: Iterable<Found & { name: string }> = isDirectory
        ? entriesOf(tree, found)
        : [{ ...found, name: found.path.slice(found.path.lastIndexOf('/') + 1) }];
      for (const { name, inode } of listed) {
        await writeOut(Buffer.from(`${flags.long ? describeInode(inode, name) : wordOfPath(name)}\n`));
      }
    });
  }
}
