/** What an image's size costs when it is opened and mounted: nothing, for its nodes are read when they are walked. */
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { canonicalMountPoint, startDetachedMount, stopDetachedMount } from '../fs/detached.ts';
import { buildTree } from '../layers/build.ts';
import { MergedTree } from '../layers/merge.ts';
import { resolveTreePath } from '../layers/tree-path.ts';
import { openTree } from '../layers/tree.ts';
import { S_IFDIR, S_IFREG } from '../layers/trie.ts';
import { openStore } from '../store/store.ts';
import { machine, median, scratch, table } from './engines.ts';

const SIZES = [10, 1000, 100_000, 1_000_000];
const ROUNDS = 5;
const PER_DIRECTORY = 100;
const plain = { uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };

/** A tree of empty files, a hundred in each directory, a hundred directories in each. */
function treeOf(files: number): MergedTree {
  const tree = new MergedTree();
  const directory = (parent: number, name: string): number => {
    const found = tree.lookup(parent, name);
    if (found) return found.inode;
    const made = tree.add({ ...plain, mode: S_IFDIR | 0o755 });
    tree.link(parent, name, made, 0);
    return made;
  };
  for (let i = 0; i < files; i++) {
    const above = directory(0, `d${Math.floor(i / PER_DIRECTORY / PER_DIRECTORY)}`);
    const parent = directory(above, `e${Math.floor(i / PER_DIRECTORY) % PER_DIRECTORY}`);
    tree.link(parent, `f${i % PER_DIRECTORY}`, tree.add({ ...plain, mode: S_IFREG | 0o644 }), 0);
  }
  return tree;
}

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
