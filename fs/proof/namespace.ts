import { bufferRoot } from '../../mdm/merkle.ts';
import { type ChildRef, encodeDirectory, encodeRoot, type Entry } from '../../layers/trie.ts';
import type { LowerInode } from '../../layers/tree.ts';
import type { ContentRef } from '../../store/content.ts';
import type { Extents } from '../view/extents.ts';
import { FIRST_NEW_INO, isDirectory, isRegular, Node } from '../view/node.ts';
import { isLog, lowerIno, ZEROS as ALLOCATED } from '../view/run-source.ts';
import type { State } from '../view/state.ts';
import { IN_CONTENT, IN_LOG, MapWriter, ZEROS } from './extent-map.ts';

/**
 * A container's files as a Merkle trie (docs/formats/proof.md): as an image's, but a changed file is a map of extents. Directories of the image in and below
 * which nothing changed are the image's own nodes, so only what was touched is hashed.
 */
export interface Namespace {
  /** Root of its root record. */
  root: Uint8Array;
  /** Root record, and nodes and maps of the inodes that were asked for, by their roots in hex; those of the image are not among them. */
  nodes: Map<string, Buffer>;
  /** The same by inode. */
  ofInode: Map<number, Buffer>;
}

/** The namespace of these files. The bytes of nodes are kept for directories and files in `keep`. */
export function buildNamespace(state: State, keep: ReadonlySet<number> = new Set()): Namespace {
  return new Builder(state, keep).build();
}

/** A directory whose node is being made: entries so far. */
interface Frame {
  ino: number;
  names: { name: string; ino: number }[];
  entries: Entry[];
}

class Builder {
  readonly #state: State;
  readonly #keep: ReadonlySet<number>;
  readonly #touched: ReadonlySet<number>;
  readonly #nodes = new Map<string, Buffer>();
  readonly #ofInode = new Map<number, Buffer>();
  readonly #contents = new Map<number, ContentRef>();

  constructor(state: State, keep: ReadonlySet<number>) {
    this.#state = state;
    this.#keep = keep;
    this.#touched = touchedDirectories(state);
  }

  build(): Namespace {
    const root = attributesOf('', this.#state.peek(1));
    root.child = this.#tree(1);
    const record = encodeRoot({ inodes: 1 + root.child.inodes, links: undefined, root }, 'namespace');
    const hash = bufferRoot(record);
    this.#nodes.set(Buffer.from(hash).toString('hex'), record);
    return { root: hash, nodes: this.#nodes, ofInode: this.#ofInode };
  }

  /** The image's node of a directory in and below which nothing changed. */
  #unchanged(ino: number): ChildRef | undefined {
    return this.#touched.has(ino) || ino >= FIRST_NEW_INO ? undefined : this.#state.tree.nodeOf(ino);
  }

  /** Makes the nodes of a touched directory and of those below it, depth first; a container may nest them deeper than a stack is. */
  #tree(top: number): ChildRef {
    const stack: Frame[] = [this.#frame(top)];
    for (;;) {
      const frame = stack.at(-1)!;
      const next = frame.names[frame.entries.length];
      if (next === undefined) {
        const made = this.#seal(frame);
        stack.pop();
        const above = stack.at(-1);
        if (above === undefined) return made;
        above.entries.push(this.#directoryEntry(above.names[above.entries.length]!, made));
        continue;
      }
      const inode = this.#state.peek(next.ino);
      if (!isDirectory(inode.mode)) {
        frame.entries.push(this.#fileEntry(next.name, next.ino, inode));
        continue;
      }
      const unchanged = this.#unchanged(next.ino);
      if (unchanged === undefined) stack.push(this.#frame(next.ino));
      else frame.entries.push(this.#directoryEntry(next, unchanged));
    }
  }

  #frame(ino: number): Frame {
    const { tree } = this.#state;
    const names: Frame['names'] = [];
    const list = (name: string, child: number): boolean => {
      if (name !== '.' && name !== '..') names.push({ name, ino: child });
      return true;
    };
    const dir = this.#state.node(ino)?.dir;
    if (dir !== undefined) dir.list(tree, ino, ino, 0, list);
    else for (let i = 0, entry; (entry = tree.entryAt(ino, i)) !== undefined; i++) list(entry.name, entry.ino);
    return { ino, names: names.toSorted((a, b) => (a.name < b.name ? -1 : 1)), entries: [] };
  }

  #seal({ ino, entries }: Frame): ChildRef {
    const bytes = encodeDirectory(entries, 'namespace');
    const hash = this.#hashed(ino, bytes);
    const directories = entries.filter((entry) => entry.child !== undefined);
    const below = directories.reduce((sum, entry) => sum + entry.child!.inodes, entries.length);
    return { hash, inodes: below, entries: entries.length, subdirs: directories.length };
  }

  #hashed(ino: number, bytes: Buffer): Uint8Array {
    const hash = bufferRoot(bytes);
    if (this.#keep.has(ino)) {
      this.#nodes.set(Buffer.from(hash).toString('hex'), bytes);
      this.#ofInode.set(ino, bytes);
    }
    return hash;
  }

  #directoryEntry({ name, ino }: { name: string; ino: number }, child: ChildRef): Entry {
    return { ...attributesOf(name, this.#state.peek(ino)), child };
  }

  #fileEntry(name: string, ino: number, inode: Node | LowerInode): Entry {
    const entry = attributesOf(name, inode);
    entry.symlink = inode.symlink;
    if (!isRegular(inode.mode) || inode.size === 0) return entry;
    entry.size = inode.size;
    const extents = inode instanceof Node ? inode.extents : undefined;
    if (extents === undefined) entry.root = this.#content(ino).root;
    else this.#map(entry, ino, extents);
    return entry;
  }

  #map(entry: Entry, ino: number, extents: Extents): void {
    const map = new MapWriter(extents.count);
    extents.visit(0, entry.size, (start, length, place, source) => {
      if (isLog(source)) map.add({ start, length, kind: IN_LOG, place });
      else if (source === ALLOCATED) map.add({ start, length, kind: ZEROS, place: 0 });
      else map.add({ start, length, kind: IN_CONTENT, place, content: this.#content(lowerIno(source)) });
    });
    entry.root = map.wholeContent(entry.size);
    if (entry.root !== undefined) return;
    entry.root = this.#hashed(ino, map.finish());
    entry.mapped = true;
  }

  #content(ino: number): ContentRef {
    let content = this.#contents.get(ino);
    if (content === undefined) {
      content = this.#state.tree.get(ino)!.content!;
      this.#contents.set(ino, content);
    }
    return content;
  }
}

function attributesOf(name: string, inode: Node | LowerInode): Entry {
  const { mode, uid, gid, mtimeSec, mtimeNsec, rdev, xattrs } = inode;
  return { name, rel: 0, mode, uid, gid, mtimeSec, mtimeNsec, size: 0, rdev, xattrs, linkId: 0 };
}

/** Directories that have another node than the image's: in or below them a name, an inode or a file's bytes may differ. */
function touchedDirectories(state: State): Set<number> {
  // The root always: the empty image has no node.
  const touched = new Set<number>([1]);
  const touch = (dir: number): void => {
    for (let at = dir; !touched.has(at); at = state.parentOf(at)) touched.add(at);
  };
  const linked = new Set<number>();
  for (const node of state.nodes()) {
    if (node.nlink === 0) continue;
    if (isDirectory(node.mode)) touch(node.ino);
    else if (node.ino < FIRST_NEW_INO) {
      touch(state.tree.parentOf(node.ino) ?? 1);
      if ((state.tree.get(node.ino)?.nlink ?? 1) > 1) linked.add(node.ino);
    }
  }
  if (linked.size > 0) for (const dir of directoriesNaming(state, linked)) touch(dir);
  return touched;
}

/** The image's directories that have a name of one of these inodes: nothing but the directories knows where a file's other names are. */
function* directoriesNaming({ tree }: State, inos: ReadonlySet<number>): Generator<number> {
  const left = [1];
  for (let dir; (dir = left.pop()) !== undefined;) {
    let found = false;
    for (let i = 0, entry; (entry = tree.entryAt(dir, i)) !== undefined; i++) {
      if (isDirectory(entry.mode)) left.push(entry.ino);
      else found ||= inos.has(entry.ino);
    }
    if (found) yield dir;
  }
}
