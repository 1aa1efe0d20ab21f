import assert from 'node:assert/strict';
import { PgError } from '../mdm/error.ts';
import { S_IFDIR, S_IFMT } from './trie.ts';

/** Inode numbers have 32 bits in the trie; long before that, memory is the limit. */
export const INODES_MAX = 1 << 23;
/** Directories below one another: deeper than any path that PATH_MAX lets a program use. */
export const DEPTH_MAX = 2048;
const LAYERS_MAX = 1 << 16;
/** Memory that the tree may take, as it counts it: a million and a half files are less, and nobody's input may take more. */
export const TREE_BYTES_MAX = 256 << 20;
/** What an inode, its name in a directory, a directory's map of names, and a set of attributes take beside their own bytes. */
const ROW_BYTES = 80;
const NAME_BYTES = 64;
const DIRECTORY_BYTES = 250;
const XATTR_BYTES = 200;
const ROOT_BYTES = 32;

/** Metadata of an inode, as an entry of a tar gives it. */
export interface Metadata {
  /** The whole st_mode. */
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  xattrs?: ReadonlyMap<string, Uint8Array> | undefined;
}

/** A name in a directory: which inode, and in which layer the name was made (0 = lowest). */
export interface Dirent {
  inode: number;
  layer: number;
}

/**
 * The tree that grows while layers are laid one over another. Inodes are rows of columns and directories maps of names to rows:
 * about 200 bytes an inode, so that a million of them fit. Row 0 is the root directory. Names are latin1.
 */
export class MergedTree {
  #rows = 0;
  #capacity = 1024;
  #numbers = new Uint32Array(this.#capacity * 6); // mode, uid, gid, mtime's nanoseconds, rdev, number of names
  #large = new Float64Array(this.#capacity * 2); // mtime's seconds, size
  #roots = new Uint8Array(this.#capacity * ROOT_BYTES);
  readonly #children: (Map<string, number> | undefined)[] = [];
  readonly #symlinks = new Map<number, Uint8Array>();
  readonly #xattrs = new Map<number, ReadonlyMap<string, Uint8Array>>();
  /** Equal sets of attributes are kept once: labels are the same on thousands of files. */
  readonly #xattrSets = new Map<string, ReadonlyMap<string, Uint8Array>>();
  /** For each directory: 1 + the layer that has taken away everything of those below it. */
  readonly #cleared = new Map<number, number>();
  #bytes = 0;

  constructor() {
    this.add({ mode: S_IFDIR | 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 });
    this.#numbers[5] = 1;
  }

  /** A new inode without a name; a directory is empty. PgError `IMAGE_TOO_LARGE`. */
  add(metadata: Metadata): number {
    if (this.#rows === INODES_MAX) {
      throw new PgError('IMAGE_TOO_LARGE', `the image has more than ${INODES_MAX} files`, {
        hint: 'no container needs them all: split it',
      });
    }
    const row = this.#rows++;
    if (row === this.#capacity) this.#grow();
    const isDirectory = (metadata.mode & S_IFMT) === S_IFDIR;
    this.#charge(isDirectory ? ROW_BYTES + DIRECTORY_BYTES : ROW_BYTES);
    this.#children.push(isDirectory ? new Map() : undefined);
    this.setMetadata(row, metadata);
    return row;
  }

  setMetadata(row: number, metadata: Metadata): void {
    const at = row * 6;
    this.#numbers[at] = metadata.mode;
    this.#numbers[at + 1] = metadata.uid;
    this.#numbers[at + 2] = metadata.gid;
    this.#numbers[at + 3] = metadata.mtimeNsec;
    this.#large[row * 2] = metadata.mtimeSec;
    if (metadata.xattrs?.size) this.#xattrs.set(row, this.#oneSet(metadata.xattrs));
    else this.#xattrs.delete(row);
  }

  metadata(row: number): Metadata {
    const at = row * 6;
    return {
      mode: this.#numbers[at]!,
      uid: this.#numbers[at + 1]!,
      gid: this.#numbers[at + 2]!,
      mtimeNsec: this.#numbers[at + 3]!,
      mtimeSec: this.#large[row * 2]!,
      xattrs: this.#xattrs.get(row),
    };
  }

  mode(row: number): number {
    return this.#numbers[row * 6]!;
  }

  isDirectory(row: number): boolean {
    return this.#children[row] !== undefined;
  }

  /** How many names the inode has. */
  names(row: number): number {
    return this.#numbers[row * 6 + 5]!;
  }

  /** Whether any file has more than one name. */
  hasHardLinks(): boolean {
    for (let row = 0; row < this.#rows; row++) if (this.names(row) > 1) return true;
    return false;
  }

  setDevice(row: number, rdev: number): void {
    this.#numbers[row * 6 + 4] = rdev;
  }

  device(row: number): number {
    return this.#numbers[row * 6 + 4]!;
  }

  setSymlink(row: number, target: Uint8Array): void {
    this.#charge(target.length + NAME_BYTES);
    this.#symlinks.set(row, Uint8Array.from(target)); // not a piece of a pool
  }

  symlink(row: number): Uint8Array | undefined {
    return this.#symlinks.get(row);
  }

  setSize(row: number, size: number): void {
    this.#large[row * 2 + 1] = size;
  }

  size(row: number): number {
    return this.#large[row * 2 + 1]!;
  }

  /** The root of the file's content: may become known long after its size. */
  setRoot(row: number, root: Uint8Array): void {
    this.#roots.set(root, row * ROOT_BYTES);
  }

  root(row: number): Uint8Array {
    return this.#roots.subarray(row * ROOT_BYTES, (row + 1) * ROOT_BYTES);
  }

  /** What `name` in a directory is. */
  lookup(directory: number, name: string): Dirent | undefined {
    const packed = this.#children[directory]!.get(name);
    return packed === undefined ? undefined : { inode: Math.floor(packed / LAYERS_MAX), layer: packed % LAYERS_MAX };
  }

  /** Gives an inode a name; the name must be free. */
  link(directory: number, name: string, inode: number, layer: number): void {
    const children = this.#children[directory]!;
    assert.ok(!children.has(name) && layer < LAYERS_MAX);
    this.#charge(name.length + NAME_BYTES);
    children.set(name, inode * LAYERS_MAX + layer);
    this.#numbers[inode * 6 + 5]!++;
  }

  /** The name belongs to this layer from now on. */
  touch(directory: number, name: string, layer: number): void {
    const children = this.#children[directory]!;
    children.set(name, Math.floor(children.get(name)! / LAYERS_MAX) * LAYERS_MAX + layer);
  }

  /** Takes a name away, with everything below it. */
  unlink(directory: number, name: string): void {
    const children = this.#children[directory]!;
    const inode = Math.floor(children.get(name)! / LAYERS_MAX);
    children.delete(name);
    this.#bytes -= name.length + NAME_BYTES;
    this.#numbers[inode * 6 + 5]!--;
    const below = this.#children[inode];
    if (below !== undefined) for (const child of below.keys()) this.unlink(inode, child);
  }

  /** Takes away everything below a directory that layers before this one put there. Once is enough: what comes later is this layer's. */
  clearLower(directory: number, layer: number): void {
    if (this.#cleared.get(directory) === layer + 1) return;
    this.#cleared.set(directory, layer + 1);
    for (const name of this.#children[directory]!.keys()) this.unlinkLower(directory, name, layer);
  }

  /** Takes away what layers before this one put under the name: a whiteout does not reach what its own layer brings. */
  unlinkLower(directory: number, name: string, layer: number): void {
    const dirent = this.lookup(directory, name);
    if (dirent === undefined) return;
    if (this.isDirectory(dirent.inode)) {
      this.clearLower(dirent.inode, layer);
      if (this.#children[dirent.inode]!.size > 0) return;
    }
    if (dirent.layer !== layer) this.unlink(directory, name);
  }

  /** The names of a directory in byte order with their inodes. */
  sorted(directory: number): { name: string; inode: number }[] {
    const children = this.#children[directory]!;
    const names = [...children.keys()].toSorted();
    return names.map((name) => ({ name, inode: Math.floor(children.get(name)! / LAYERS_MAX) }));
  }

  #oneSet(xattrs: ReadonlyMap<string, Uint8Array>): ReadonlyMap<string, Uint8Array> {
    const parts = [...xattrs].flatMap(([name, value]) => [name, Buffer.from(value).toString('latin1')]);
    const key = parts.map((part) => `${part.length}:${part}`).join('');
    this.#charge(key.length); // kept once, but written in each node
    const known = this.#xattrSets.get(key);
    if (known !== undefined) return known;
    this.#charge(key.length + XATTR_BYTES * xattrs.size);
    // Copies: a value may be a view of something larger.
    const set = new Map([...xattrs].map(([name, value]) => [name, Uint8Array.from(value)]));
    this.#xattrSets.set(key, set);
    return set;
  }

  #charge(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes <= TREE_BYTES_MAX) return;
    throw new PgError(
      'IMAGE_TOO_LARGE',
      `the names and attributes of the image take more than ${TREE_BYTES_MAX >> 20} MiB`,
      {
        hint: 'no container needs them all: split it',
      },
    );
  }

  #grow(): void {
    this.#capacity *= 2;
    this.#numbers = grown(this.#numbers, new Uint32Array(this.#capacity * 6));
    this.#large = grown(this.#large, new Float64Array(this.#capacity * 2));
    this.#roots = grown(this.#roots, new Uint8Array(this.#capacity * ROOT_BYTES));
  }
}

function grown<T extends Uint32Array | Float64Array | Uint8Array>(from: T, into: T): T {
  into.set(from);
  return into;
}
