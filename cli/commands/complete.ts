import { Args, Flags } from '@oclif/core';
import { PgCommand } from '../base.ts';
import { complete, completeBytes } from '../complete.ts';
import { EXIT_ENGINE } from '../exit-codes.ts';

export default class Complete extends PgCommand {
  static override summary = 'What a byte sequence may become: names, ids, addresses, paths in images.';
  static override description = `A line for each name, id and address of an image, for each content and node of the store (by at least four hex digits of its root, a hundred at most), or behind
IMAGE:/ for each path, that begins with PREFIX; a directory ends with a slash. Only what lies under the prefix is read. The shell's Tab asks the same (pg completion).`;
  static override examples = [
    '<%= config.bin %> complete ngi',
    '<%= config.bin %> complete nginx:/etc/ng',
    { description: 'By its PromiseGrid address', command: '<%= config.bin %> complete bafk2bzace' },
  ];
  static override flags = {
    words: Flags.boolean({ description: 'complete the last of these words of a pg command line', hidden: true }),
  };
  static override args = { prefix: Args.string({ description: 'how it begins', required: true }) };
  static override strict = false;
  static override usage = 'complete PREFIX';

  async run(): Promise<void> {
    const { argv, flags } = await this.parse(Complete);
    const roots = this.roots(flags);
    const words = argv as string[];
    if (flags.words) {
      // A shell has no use for what went wrong.
      return this.print(await complete(this.config, roots, words).catch(() => []));
    }
    if (words.length !== 1) this.error('pg complete needs one PREFIX', { exit: EXIT_ENGINE });
    this.print(await completeBytes(roots, words[0]!));
  }

  private print(found: readonly string[]): void {
    if (found.length > 0) process.stdout.write(`${found.join('\n')}\n`);
  }
}
