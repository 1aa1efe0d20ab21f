import { MergedTree } from '../layers/merge.ts';
import { S_IFDIR, S_IFREG } from '../layers/trie.ts';

const PER_DIRECTORY = 100;
const plain = { uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };

/** A tree of empty files, a hundred in each directory, a hundred directories in each. */
export function treeOf(files: number): MergedTree {
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
