import type { LowerInode, Tree } from '../../layers/tree.ts';
import assert from 'node:assert';
import { Directory } from './directory.ts';
import { FsError } from './error.ts';
import { Extents } from './extents.ts';
import { LiveSectors } from './live-sectors.ts';
import { FIRST_NEW_INO, isDirectory, Node } from './node.ts';
import { lowerSource } from './run-source.ts';
import type { StateWalk } from './state-walk.ts';

/**
 * What a container's files are now: the image's tree, and in memory the inodes that are new or were changed. It changes only through `apply` (apply.ts), so
 * that it is a function of the image and the log's entries.
 */
export class State {
  readonly tree: Tree;
  /** The number that the next new inode gets. */
  nextIno = FIRST_NEW_INO;
  /** Inodes without a name, which the kernel may still refer to. */
  readonly orphans = new Set<number>();
  /** Gives what the state was when the log had so many bytes: set by whoever replays the log, for entries that go back there. */
  past: ((size: number) => State) | undefined = undefined;
  /** What of the log the files need. */
  live = new LiveSectors();
  /** What it took to come here from the last checkpoint on, and would again: entries applied, and runs that one entry copied. */
  work = 0;
  /** Who goes through all inodes as they were at one moment, while they change. */
  walk: StateWalk | undefined;
  readonly #changed = new Map<number, Node>();
  /** By number less FIRST_NEW_INO: small integers are cheaper keys. */
  readonly #created = new Map<number, Node>();

  constructor(tree: Tree) {
    this.tree = tree;
  }

  /** The inode's node, undefined when it is the image's and unchanged, or unknown. */
  node(ino: number): Node | undefined {
    return ino < FIRST_NEW_INO ? this.#changed.get(ino) : this.#created.get(ino - FIRST_NEW_INO);
  }

  /** The inode as it is now. FsError ESTALE when there is none. */
  peek(ino: number): Node | LowerInode {
    const found = this.node(ino) ?? (ino < FIRST_NEW_INO ? this.tree.get(ino) : undefined);
    if (found === undefined) throw new FsError('ESTALE', `inode ${ino}`);
    return found;
  }

  /** The inode's node, to be changed; made if it is an unchanged one of the image. FsError ESTALE. */
  materialize(ino: number): Node {
    const found = this.peek(ino);
    if (found instanceof Node) {
      this.walk?.beforeChange(found);
      return found;
    }
    const node = Node.ofLower(found, isDirectory(found.mode) ? (this.tree.parentOf(ino) ?? 1) : 0);
    this.walk?.skip(node);
    this.#changed.set(ino, node);
    return node;
  }

  add(node: Node): void {
    this.walk?.skip(node);
    if (node.ino < FIRST_NEW_INO) this.#changed.set(node.ino, node);
    else this.#created.set(node.ino - FIRST_NEW_INO, node);
    if (node.ino >= this.nextIno) this.nextIno = node.ino + 1;
  }

  /**
   * Becomes what the state was when the log had `size` bytes, but for the numbers of new inodes, none of which is used twice. Nobody has anything open then:
   * inodes without a name go.
   */
  rollBackTo(size: number): void {
    assert(this.past !== undefined && this.walk === undefined, 'whoever replays a log knows its past');
    const before = this.past(size);
    this.#changed.clear();
    this.#created.clear();
    this.orphans.clear();
    this.live = before.live;
    for (const node of before.nodes()) {
      if (node.nlink > 0) this.add(node);
      else node.extents?.release();
    }
    this.nextIno = Math.max(this.nextIno, before.nextIno);
  }

  /** Forgets an inode that has no name. */
  drop(ino: number): void {
    const node = this.node(ino);
    if (node !== undefined) {
      this.walk?.beforeChange(node);
      node.extents?.release();
    }
    this.orphans.delete(ino);
    if (ino < FIRST_NEW_INO) this.#changed.delete(ino);
    else this.#created.delete(ino - FIRST_NEW_INO);
  }

  *nodes(): Generator<Node> {
    yield* this.#changed.values();
    yield* this.#created.values();
  }

  get nodeCount(): number {
    return this.#changed.size + this.#created.size;
  }

  /** The inode that a name means in a directory of this number, undefined when there is no such name. */
  lookup(parent: number, name: string): number | undefined {
    const node = this.node(parent);
    return node === undefined ? this.tree.lookup(parent, name) : node.dir?.get(this.tree, name);
  }

  /** Number of the directory that holds this directory; the root's is the root. */
  parentOf(dirIno: number): number {
    return dirIno === 1 ? 1 : (this.node(dirIno)?.parent ?? this.tree.parentOf(dirIno) ?? 1);
  }

  /** Names in a directory. */
  entryCount(dirIno: number): number {
    const found = this.peek(dirIno);
    return found instanceof Node ? (found.dir?.count ?? 0) : (found.children ?? 0);
  }

  directory(node: Node): Directory {
    return (node.dir ??= new Directory(0, 0));
  }

  /** The extents of a regular file, made of the image's content if they were not needed so far. */
  extents(node: Node): Extents {
    if (node.extents === undefined) {
      node.extents = new Extents(this.live);
      if (node.ino < FIRST_NEW_INO && node.size > 0) node.extents.set(0, node.size, 0, lowerSource(node.ino));
    }
    return node.extents;
  }
}
