import { entriesOf, type Found, isDirectoryMode } from './tree-path.ts';
import type { LowerInode, Tree } from './tree.ts';
import { S_IFMT, S_IFREG } from './trie.ts';

/** A path that one tree has and the other has not, or has otherwise: A added, C changed, D deleted. Latin1. */
export interface TreeChange {
  kind: 'A' | 'C' | 'D';
  path: string;
}

/**
 * What has to be done to `before` to make `after` of it, in byte order, a directory before what is in it. Directories whose nodes have the same hash are
 * not looked into, so the cost follows the difference, not the size. A directory that is new or gone stands for all that is in it. Times alone are no change.
 */
export function* compareTrees(before: Tree, after: Tree, sameData: SameData = () => false): Generator<TreeChange> {
  const root = (tree: Tree): Found => ({ path: '/', ino: 1, inode: tree.get(1)! });
  yield* compareFound({ before, after, sameData }, root(before), root(after));
}

/** Whether two regular files of the same size, at least one of which has no content in the store, hold the same bytes. */
export type SameData = (before: LowerInode, after: LowerInode) => boolean;

interface Trees {
  before: Tree;
  after: Tree;
  sameData: SameData;
}

function* compareFound(trees: Trees, old: Found, now: Found): Generator<TreeChange> {
  if (!isSame(old.inode, now.inode, trees.sameData)) yield { kind: 'C', path: now.path };
  const bothDirectories = isDirectoryMode(old.inode.mode) && isDirectoryMode(now.inode.mode);
  if (bothDirectories && !haveSameNode(trees.before, old.ino, trees.after, now.ino))
    yield* compareDirectories(trees, old, now);
}

function* compareDirectories(trees: Trees, old: Found, now: Found): Generator<TreeChange> {
  const left = entriesOf(trees.before, old);
  const right = entriesOf(trees.after, now);
  let a = left.next();
  let b = right.next();
  while (a.done !== true || b.done !== true) {
    if (b.done === true || (a.done !== true && a.value.name < b.value.name)) {
      yield { kind: 'D', path: a.value!.path };
      a = left.next();
    } else if (a.done === true || b.value.name < a.value.name) {
      yield { kind: 'A', path: b.value.path };
      b = right.next();
    } else {
      yield* compareFound(trees, a.value, b.value);
      a = left.next();
      b = right.next();
    }
  }
}

function haveSameNode(before: Tree, oldIno: number, after: Tree, newIno: number): boolean {
  const old = before.nodeOf(oldIno);
  const now = after.nodeOf(newIno);
  return old !== undefined && now !== undefined && Buffer.compare(old.hash, now.hash) === 0;
}

function isSame(a: LowerInode, b: LowerInode, sameData: SameData): boolean {
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.rdev !== b.rdev || !haveSameXattrs(a, b))
    return false;
  if (isDirectoryMode(a.mode)) return true;
  if (a.size !== b.size || !sameBytes(a.symlink, b.symlink)) return false;
  const isData = (a.mode & S_IFMT) === S_IFREG && a.size > 0;
  if (!isData || (a.content !== undefined && b.content !== undefined))
    return sameBytes(a.content?.root, b.content?.root);
  return sameData(a, b);
}

function haveSameXattrs({ xattrs: a }: LowerInode, { xattrs: b }: LowerInode): boolean {
  if ((a?.size ?? 0) !== (b?.size ?? 0)) return false;
  for (const [name, value] of a ?? []) if (!sameBytes(value, b!.get(name))) return false;
  return true;
}

const sameBytes = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;
