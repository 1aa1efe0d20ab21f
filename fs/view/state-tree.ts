import type { LowerInode, Tree } from '../../layers/tree.ts';
import type { ChildRef } from '../../layers/trie.ts';
import { lowerIno, lowerSource } from './run-source.ts';
import { FIRST_NEW_INO, isDirectory, isRegular, Node } from './node.ts';
import type { State } from './state.ts';

/**
 * The files of a state as a tree that is only read, so that whatever reads an image (ls, find, comparisons) reads a container at some position as well.
 * A regular file that is not wholly a file of the image has no `content`: its bytes are the view's to read.
 */
export class StateTree implements Tree {
  readonly state: State;
  /** Names of directories that were listed, in byte order. */
  readonly #sorted = new Map<number, { name: string; ino: number }[]>();
  #touched: ReadonlySet<number> | undefined;

  constructor(state: State) {
    this.state = state;
  }

  /** Of the image; new inodes have numbers from 2^40 on. */
  get inodeCount(): number {
    return this.state.tree.inodeCount;
  }

  get(ino: number): LowerInode | undefined {
    const node = this.state.node(ino);
    if (node !== undefined) return inodeOf(this.state, node);
    return ino < FIRST_NEW_INO ? this.state.tree.get(ino) : undefined;
  }

  lookup(dirIno: number, name: string): number | undefined {
    return this.state.lookup(dirIno, name);
  }

  entryAt(dirIno: number, index: number): { name: string; ino: number; mode: number } | undefined {
    const node = this.state.node(dirIno);
    if (node !== undefined) {
      const entry = this.#names(node)[index];
      return entry === undefined ? undefined : { ...entry, mode: this.state.peek(entry.ino).mode };
    }
    const entry = this.state.tree.entryAt(dirIno, index);
    return entry === undefined ? undefined : { ...entry, mode: this.state.node(entry.ino)?.mode ?? entry.mode };
  }

  subdirs(dirIno: number): number {
    const node = this.state.node(dirIno);
    if (node === undefined) return this.state.tree.subdirs(dirIno);
    return isDirectory(node.mode) ? node.nlink - 2 : 0;
  }

  parentOf(ino: number): number | undefined {
    const node = this.state.node(ino);
    if (node !== undefined && isDirectory(node.mode)) return this.state.parentOf(ino);
    return ino < FIRST_NEW_INO ? this.state.tree.parentOf(ino) : undefined;
  }

  /** Only of a directory in which, and below which, nothing differs from the image. */
  nodeOf(dirIno: number): ChildRef | undefined {
    this.#touched ??= touchedDirectories(this.state);
    return this.#touched.has(dirIno) || dirIno >= FIRST_NEW_INO ? undefined : this.state.tree.nodeOf(dirIno);
  }

  #names(node: Node): { name: string; ino: number }[] {
    const known = this.#sorted.get(node.ino);
    if (known !== undefined) return known;
    const names: { name: string; ino: number }[] = [];
    node.dir?.list(this.state.tree, node.ino, node.parent, 0, (name, ino) => {
      if (name !== '.' && name !== '..') names.push({ name, ino });
      return true;
    });
    names.sort((a, b) => (a.name < b.name ? -1 : 1));
    this.#sorted.set(node.ino, names);
    return names;
  }
}

function inodeOf(state: State, node: Node): LowerInode {
  const { ino, mode, uid, gid, nlink, mtimeSec, mtimeNsec, rdev } = node;
  const directory = isDirectory(mode);
  const inode: LowerInode = {
    ino,
    mode,
    uid,
    gid,
    nlink,
    size: directory ? 0 : node.size,
    mtimeSec,
    mtimeNsec,
    rdev,
  };
  const lower = wholeLower(node);
  if (lower !== undefined) {
    const content = state.tree.get(lower)?.content;
    if (content !== undefined && content.size === node.size) inode.content = content;
  }
  if (node.symlink !== undefined) inode.symlink = node.symlink;
  if (node.xattrs !== undefined && node.xattrs.size > 0) inode.xattrs = node.xattrs;
  if (directory) inode.children = node.dir?.count ?? 0;
  return inode;
}

/** The image's inode whose content may be all that the file holds; undefined when it holds anything else. */
function wholeLower(node: Node): number | undefined {
  if (!isRegular(node.mode) || node.size === 0) return undefined;
  if (node.extents === undefined) return node.ino < FIRST_NEW_INO ? node.ino : undefined;
  let found: number | undefined;
  node.extents.visit(0, Infinity, (start, length, place, source) => {
    const isAll = start === 0 && place === 0 && length === node.size && source <= lowerSource(1);
    found = isAll ? lowerIno(source) : undefined;
    return isAll;
  });
  return found;
}

/**
 * Numbers of the directories in which, or somewhere below which, something differs from the image, the way up to the root included. Of a file of the image
 * with several names all names count, which takes a walk over the whole tree if there is such a one.
 */
export function touchedDirectories(state: State): Set<number> {
  const touched = new Set<number>();
  const mark = (dirIno: number): void => {
    for (let at = dirIno; !touched.has(at); at = state.parentOf(at)) touched.add(at);
  };
  const linked = new Set<number>();
  for (const node of state.nodes()) {
    if (node.nlink === 0) continue;
    if (isDirectory(node.mode)) mark(node.ino);
    else if (node.ino < FIRST_NEW_INO) {
      mark(state.tree.parentOf(node.ino) ?? 1);
      if ((state.tree.get(node.ino)?.nlink ?? 1) > 1) linked.add(node.ino);
    }
  }
  if (linked.size > 0) markNames(state.tree, 1, linked, mark);
  return touched;
}

function markNames(tree: Tree, dirIno: number, wanted: ReadonlySet<number>, mark: (dirIno: number) => void): void {
  for (let index = 0, entry; (entry = tree.entryAt(dirIno, index)) !== undefined; index++) {
    if (wanted.has(entry.ino)) mark(dirIno);
    else if (isDirectory(entry.mode)) markNames(tree, entry.ino, wanted, mark);
  }
}
