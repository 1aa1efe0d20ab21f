import { Args, Flags } from '@oclif/core';
import { type Found, walkTree } from '../../layers/tree-path.ts';
import { S_IFMT } from '../../layers/trie.ts';
import { PgError } from '../../mdm/error.ts';
import { PgCommand } from '../base.ts';
import { globToRegExp } from '../glob.ts';
import { withFilePath, writeOut } from '../image-path.ts';
import { describeInode, TYPE_LETTERS } from '../inode-line.ts';
import { pathOfWord, wordOfPath } from '../paths.ts';

export default class Find extends PgCommand {
  static override summary = 'List what is in an image, or in a container at some position, from a directory down.';
  static override description = 'A path a line, in byte order. As find(1), but nothing is unpacked or mounted.';
  static override examples = [
    "<%= config.bin %> find nginx:latest:/etc --name '*.conf'",
    {
      description: 'Programs that run as their owner',
      command: '<%= config.bin %> find nginx --type f --perm 4000 -l',
    },
  ];
  static override flags = {
    name: Flags.string({ description: 'only names that match, as the shell would: * ? [a-z]', helpValue: 'PATTERN' }),
    type: Flags.option({
      description: 'f file, d directory, l symlink, b or c device, p FIFO, s socket',
      options: ['f', 'd', 'l', 'b', 'c', 'p', 's'] as const,
    })(),
    perm: Flags.string({ description: 'only with all of these bits of the mode (octal)', helpValue: 'MODE' }),
    long: Flags.boolean({
      char: 'l',
      description: 'mode, links, owner (numbers), size, time (UTC), and where symlinks lead',
    }),
    null: Flags.boolean({
      description: 'a NUL instead of a newline after each path, which is written byte for byte',
      exclusive: ['long'],
    }),
  };
  static override args = {
    path: Args.string({ description: 'IMAGE[:/PATH], or CONTAINER[@POSITION][:/PATH]', required: true }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Find);
    const pattern = flags.name === undefined ? undefined : globToRegExp(pathOfWord(flags.name, false));
    const perm = flags.perm === undefined ? 0 : octal(flags.perm);
    const isWanted = ({ path, inode }: Found): boolean =>
      (pattern === undefined || pattern.test(path.slice(path.lastIndexOf('/') + 1))) &&
      (flags.type === undefined || TYPE_LETTERS.get(inode.mode & S_IFMT)?.find === flags.type) &&
      (inode.mode & perm) === perm;
    const line = (found: Found): Buffer => {
      if (flags.null) return Buffer.from(`${found.path}\0`, 'latin1');
      return Buffer.from(`${flags.long ? describeInode(found.inode, found.path) : wordOfPath(found.path)}\n`);
    };
    await withFilePath(this.roots(flags), args.path, async (top, { tree }) => {
      for (const found of walkTree(tree, top)) if (isWanted(found)) await writeOut(line(found));
    });
  }
}

function octal(word: string): number {
  if (!/^[0-7]{1,4}$/.test(word)) {
    throw new PgError('BAD_MODE', `--perm takes up to four octal digits, not ${word}`, { hint: 'as in --perm 4000' });
  }
  return parseInt(word, 8);
}
