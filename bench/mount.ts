/** What an image's size costs when it is opened and mounted: nothing, for its nodes are read when they are walked. */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { canonicalMountPoint, startDetachedMount, stopDetachedMount } from '../fs/detached.ts';
import { buildTree } from '../layers/build.ts';
import { resolveTreePath } from '../layers/tree-path.ts';
import { openTree } from '../layers/tree.ts';
import { openStore } from '../store/store.ts';
import { machine, median, scratch, table } from './engines.ts';
import { treeOf } from './mount-tree.ts';

const SIZES = [10, 1000, 100_000, 1_000_000];
const ROUNDS = 5;
const milliseconds = async (work: () => unknown): Promise<number> => {
  const start = performance.now();
  await work();
  return performance.now() - start;
};

const work = scratch('mount');
const roots = { data: join(work.dir, 'data'), run: join(work.dir, 'run'), config: join(work.dir, 'etc') };
const mountPoint = join(work.dir, 'mnt');
mkdirSync(mountPoint);
const rows: string[][] = [];
try {
  for (const files of SIZES) {
    const writer = openStore(roots);
    const treeRoot = buildTree(writer, treeOf(files));
    await writer.close();
    const opening: number[] = [];
    const mounting: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const store = openStore(roots, { readOnly: true });
      opening.push(await milliseconds(() => resolveTreePath(openTree(store, treeRoot), '/d0/e0/f9')));
      await store.close();
      const at = canonicalMountPoint(mountPoint);
      mounting.push(
        await milliseconds(async () => {
          const logDir = join(work.dir, `log-${files}-${round}`);
          await startDetachedMount({ roots, treeRoot, logDir, mountPoint: at, label: 'bench' });
          if (!existsSync(join(at, 'd0/e0/f9')) || readdirSync(at).length === 0) throw new Error('the mount is empty');
        }),
      );
      await stopDetachedMount(roots, at);
    }
    rows.push([String(files), median(opening).toFixed(2), median(mounting).toFixed(0)]);
  }
} finally {
  work.clean();
}
process.stdout.write(`${machine()}; medians of ${ROUNDS}\n`);
table(
  'Opening and mounting an image',
  ['files', 'open the trie and find a file, ms', 'mount with its server process, first file found, ms'],
  rows,
);
