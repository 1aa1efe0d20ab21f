import assert from 'node:assert/strict';
import { PgError } from '../mdm/error.ts';
import type { ContentRef } from '../store/content.ts';
import type { Store } from '../store/store.ts';
import {
  type ChildRef,
  decodeRoot,
  DirectoryNode,
  LinkTable,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
  type Entry,
  type LinkGroup,
  type RootRecord,
} from './trie.ts';

/** An inode of an image, as stat(2) would show it. */
export interface LowerInode {
  ino: number;
  /** The whole st_mode: type and permissions. */
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  /** Bytes of a regular file or of a symlink's target; 0 for everything else. */
  size: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** The kernel's 32-bit device number (`new_encode_dev`), as FUSE carries it. */
  rdev: number;
  /** Regular files that are not empty. */
  content?: ContentRef;
  symlink?: Uint8Array;
  xattrs?: ReadonlyMap<string /* latin1 */, Uint8Array>;
  /** Directories: the number of entries, `.` and `..` not counted. */
  children?: number;
}

/**
 * The read-only namespace of an image. Everything is synchronous; inode numbers are preorder, so they are the same at every
 * opening of the same root. A file with several names has the number of the first of them (the numbers of the others stay unused).
 * Names are latin1 strings: one character is one byte.
 */
export interface Tree {
  /** Inode numbers are 1 (the root directory) to `inodeCount`. */
  readonly inodeCount: number;
  /** The inode, or undefined when there is none of that number. */
  get(ino: number): LowerInode | undefined;
  /** The number of `name` in the directory; undefined when there is none, or `dirIno` is no directory. */
  lookup(dirIno: number, name: string): number | undefined;
  /** The entry at `index` (0-based, byte order of names), for readdir. */
  entryAt(dirIno: number, index: number): { name: string; ino: number; mode: number } | undefined;
  /** How many of the directory's entries are directories: its nlink is 2 + this. */
  subdirs(dirIno: number): number;
  /** The directory that holds (the first name of) this inode; the root's is the root. */
  parentOf(ino: number): number | undefined;
  /** The node of a directory; undefined when the number is no directory's, and of the empty image. */
  nodeOf(dirIno: number): ChildRef | undefined;
}

export interface TreeOptions {
  /** Bytes of nodes kept in memory; the default is 32 MiB. */
  cacheBytes?: number;
}

/**
 * Opens the image tree whose root record has this hash; `null` is the empty image (one directory, 0755 root:root).
 * Costs one index lookup whatever the image's size. PgError `NODE_NOT_FOUND` or `CORRUPT_NODE`, here or in any later call.
 */
export function openTree(store: Store, root: Uint8Array | null, options: TreeOptions = {}): Tree {
  return root === null ? EMPTY : new StoredTree(store, root, options.cacheBytes ?? 32 << 20);
}

const EMPTY: Tree = {
  inodeCount: 1,
  get: (ino) =>
    ino === 1
      ? {
          ino: 1,
          mode: S_IFDIR | 0o755,
          uid: 0,
          gid: 0,
          nlink: 2,
          size: 0,
          mtimeSec: 0,
          mtimeNsec: 0,
          rdev: 0,
          children: 0,
        }
      : undefined,
  lookup: () => undefined,
  entryAt: () => undefined,
  subdirs: () => 0,
  parentOf: (ino) => (ino === 1 ? 1 : undefined),
  nodeOf: () => undefined,
};

/** Reads a node (root record, directory or link table) of the image trie from the store. */
export function readNode(store: Store, hash: Uint8Array): Buffer {
  const bytes = store.table('nodes').get(hash);
  if (bytes === undefined) {
    throw new PgError('NODE_NOT_FOUND', `image tree: node ${Buffer.from(hash).toString('hex')} is not in the store`, {
      hint: 'import the image again',
    });
  }
  return bytes;
}

/** A directory that has been walked to: its node and its own inode number. */
interface Directory {
  ino: number;
  node: DirectoryNode;
}

/** Where an inode's record is: entry `index` of `directory`; the root has none. */
interface Place {
  directory: Directory;
  index: number;
}

const PLACES = 4096;

class StoredTree implements Tree {
  readonly inodeCount: number;
  readonly #store: Store;
  readonly #record: RootRecord;
  readonly #halfBytes: number;
  #links: LinkTable | undefined;
  /** Two generations by inode number: a full young one becomes the old one, and what the old one still held is dropped. */
  #young = new Map<number, Directory>();
  #old = new Map<number, Directory>();
  #youngBytes = 0;
  /** The places last found, direct-mapped by inode number: a lookup is nearly always followed by a get. */
  readonly #placeIno = new Uint32Array(PLACES);
  readonly #place: (Place | undefined)[] = Array.from({ length: PLACES });

  constructor(store: Store, root: Uint8Array, cacheBytes: number) {
    this.#store = store;
    this.#record = decodeRoot(readNode(store, root));
    this.inodeCount = this.#record.inodes;
    this.#halfBytes = cacheBytes / 2;
  }

  get(ino: number): LowerInode | undefined {
    if (ino === 1) return this.#inode(1, this.#record.root);
    const place = this.#locate(ino);
    if (place === undefined) return undefined;
    const entry = place.directory.node.entry(place.index);
    return this.#inode(place.directory.ino + entry.rel, entry);
  }

  lookup(dirIno: number, name: string): number | undefined {
    const directory = this.#directory(dirIno);
    if (directory === undefined) return undefined;
    const index = directory.node.find(name);
    return index < 0 ? undefined : this.#inoOf(directory, index);
  }

  entryAt(dirIno: number, index: number): { name: string; ino: number; mode: number } | undefined {
    const directory = this.#directory(dirIno);
    if (directory === undefined || index < 0 || index >= directory.node.count) return undefined;
    return { name: directory.node.name(index), ino: this.#inoOf(directory, index), mode: directory.node.mode(index) };
  }

  subdirs(dirIno: number): number {
    return this.#directory(dirIno)?.node.subdirs ?? 0;
  }

  parentOf(ino: number): number | undefined {
    return ino === 1 ? 1 : this.#locate(ino)?.directory.ino;
  }

  nodeOf(dirIno: number): ChildRef | undefined {
    if (dirIno === 1) return this.#record.root.child;
    const place = this.#locate(dirIno);
    return place === undefined ? undefined : place.directory.node.entry(place.index).child;
  }

  #inode(ino: number, entry: Entry): LowerInode {
    const group = entry.linkId === 0 ? undefined : this.#group(entry.linkId);
    const inode: LowerInode = {
      ino: group?.ino ?? ino,
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      nlink: group?.nlink ?? (entry.child ? 2 + entry.child.subdirs : 1),
      size: entry.size,
      mtimeSec: entry.mtimeSec,
      mtimeNsec: entry.mtimeNsec,
      rdev: entry.rdev,
    };
    if (entry.root !== undefined && (entry.mode & S_IFMT) === S_IFREG)
      inode.content = { root: entry.root, size: entry.size };
    if (entry.symlink !== undefined) inode.symlink = entry.symlink;
    if (entry.xattrs !== undefined) inode.xattrs = entry.xattrs;
    if (entry.child !== undefined) inode.children = entry.child.entries;
    return inode;
  }

  /** The number by which entry `index` is known: that of its group's first name if it has several. */
  #inoOf(directory: Directory, index: number): number {
    const linkId = directory.node.linkId(index);
    if (linkId !== 0) return this.#group(linkId).ino;
    const ino = directory.ino + directory.node.rel(index);
    this.#remember(ino, { directory, index });
    return ino;
  }

  #group(linkId: number): LinkGroup {
    if (this.#links === undefined) {
      const links = this.#record.links;
      if (links === undefined)
        throw new PgError('CORRUPT_NODE', 'image tree: a file with several names, but no table of them');
      this.#links = new LinkTable(readNode(this.#store, links.hash));
    }
    const group = this.#links.find(linkId);
    if (group === undefined)
      throw new PgError('CORRUPT_NODE', `image tree: hard-link group ${linkId.toString(16)} is in no table`);
    return group;
  }

  #remember(ino: number, place: Place): void {
    this.#placeIno[ino % PLACES] = ino;
    this.#place[ino % PLACES] = place;
  }

  /** Descends by ranges of numbers: the entry with the last relative number not above the wanted one holds it. */
  #locate(ino: number): Place | undefined {
    if (!(ino > 1 && ino <= this.inodeCount)) return undefined;
    if (this.#placeIno[ino % PLACES] === ino) return this.#place[ino % PLACES];
    let directory = this.#load(1, this.#record.root);
    for (;;) {
      const index = directory.node.findRel(ino - directory.ino);
      if (index < 0) return undefined;
      const here = directory.ino + directory.node.rel(index);
      if (here === ino) {
        const place = { directory, index };
        this.#remember(ino, place);
        return place;
      }
      const cached = this.#cached(here);
      if (cached !== undefined) directory = cached;
      else {
        const entry = directory.node.entry(index);
        if (entry.child === undefined) return undefined;
        directory = this.#load(here, entry);
      }
    }
  }

  #directory(ino: number): Directory | undefined {
    const cached = this.#cached(ino);
    if (cached !== undefined) return cached;
    if (ino === 1) return this.#load(1, this.#record.root);
    const place = this.#locate(ino);
    if (place === undefined || (place.directory.node.mode(place.index) & S_IFMT) !== S_IFDIR) return undefined;
    return this.#load(ino, place.directory.node.entry(place.index));
  }

  #cached(ino: number): Directory | undefined {
    const young = this.#young.get(ino);
    if (young !== undefined) return young;
    const old = this.#old.get(ino);
    if (old !== undefined) this.#keep(old);
    return old;
  }

  #load(ino: number, entry: Entry): Directory {
    const cached = this.#cached(ino);
    if (cached !== undefined) return cached;
    assert.ok(entry.child !== undefined);
    const directory = { ino, node: new DirectoryNode(readNode(this.#store, entry.child.hash)) };
    this.#keep(directory);
    return directory;
  }

  #keep(directory: Directory): void {
    if (this.#youngBytes > this.#halfBytes) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#youngBytes = 0;
      this.#place.fill(undefined);
      this.#placeIno.fill(0);
    }
    this.#young.set(directory.ino, directory);
    this.#youngBytes += directory.node.bytes.length + 200;
  }
}
