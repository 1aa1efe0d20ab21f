import { Args } from '@oclif/core';
import { compareTrees } from '../../layers/compare.ts';
import { containerChanges } from '../../runtime/containers.ts';
import { PgCommand } from '../base.ts';
import { treeOf, withImageTree, writeOut } from '../image-path.ts';
import { wordOfPath } from '../paths.ts';

export default class Diff extends PgCommand {
  static override summary =
    "What a container's writable layer changed against its image, or what one image has otherwise than another.";
  static override description = `A path a line: A added, C changed, D deleted. Of two images, only directories that differ are read, however large the images
are; a directory that is new or gone stands for all in it; what differs in its time alone is not listed.`;
  static override examples = [
    '<%= config.bin %> diff web',
    { description: 'What an upgrade brings', command: '<%= config.bin %> diff nginx:1.26 nginx:1.27' },
  ];
  static override usage = ['diff CONTAINER', 'diff IMAGE IMAGE'];
  static override args = {
    container: Args.string({ description: "a container's name or id, or the image before", required: true }),
    image: Args.string({ description: 'the image after' }),
  };

  async run(): Promise<void> {
    const { args, flags } = await this.parse(Diff);
    const roots = this.roots(flags);
    const { image } = args;
    if (image === undefined) {
      for (const { kind, path } of await containerChanges(roots, args.container))
        await writeOut(Buffer.from(`${kind} ${path}\n`, 'latin1'));
      return;
    }
    await withImageTree(roots, args.container, async (before, store) => {
      for (const { kind, path } of compareTrees(before, treeOf(store, image)))
        await writeOut(Buffer.from(`${kind} ${wordOfPath(path)}\n`));
    });
  }
}
