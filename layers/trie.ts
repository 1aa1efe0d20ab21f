import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import { PgError } from '../mdm/error.ts';

/**
 * The bytes of the trie (docs/formats/trie.md): a directory is one node, addressed by the Merkle root of its bytes; names are in
 * byte order; inode numbers are preorder and relative to the directory's own, so a node means the same wherever it hangs.
 *
 * Everything here is little endian. Names, xattr names and paths are latin1 strings: one character is one byte.
 */
export const S_IFMT = 0o170000;
export const S_IFSOCK = 0o140000;
export const S_IFLNK = 0o120000;
export const S_IFREG = 0o100000;
export const S_IFBLK = 0o060000;
export const S_IFDIR = 0o040000;
export const S_IFCHR = 0o020000;
export const S_IFIFO = 0o010000;

export const NAME_MAX = 255;
const MAGIC_DIRECTORY = 0x31644750; // "PGd1"
const MAGIC_ROOT = 0x31744750; // "PGt1"
const MAGIC_LINKS = 0x316c4750; // "PGl1"
/** A directory and the root record of a container's namespace (docs/formats/proof.md): as an image's, but files may be maps of extents. */
const MAGIC_NAMESPACE_DIRECTORY = 0x316e4750; // "PGn1"
const MAGIC_NAMESPACE_ROOT = 0x31724750; // "PGr1"
/** Bytes before a directory node's table of entries. */
export const NODE_HEAD = 24;
const RECORD_HEAD = 32;
const LINK_BYTES = 16;
const FLAG_LINKED = 1;
const FLAG_XATTRS = 2;
const FLAG_MAPPED = 4;
const HASH_BYTES = 32;

/** What a record says of one inode, before it is bytes. */
export interface Entry {
  name: string;
  /** Inode number minus that of the directory the entry is in; 0 in a root record. */
  rel: number;
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** Regular files. */
  size: number;
  root?: Uint8Array | undefined;
  /** `root` is that of a map of extents, not of the content: only in a container's namespace. */
  mapped?: boolean | undefined;
  /** Symlinks: the target's bytes. */
  symlink?: Uint8Array | undefined;
  /** Devices: the kernel's 32-bit encoding (`new_encode_dev`), as FUSE and mknod(2) carry it. */
  rdev: number;
  child?: ChildRef | undefined;
  xattrs?: ReadonlyMap<string, Uint8Array> | undefined;
  /** Non-zero for a file that has more than one name in this image. */
  linkId: number;
}

/** What a directory's entry says of the node below it. */
export interface ChildRef {
  hash: Uint8Array;
  /** Inodes below the directory, itself not counted. */
  inodes: number;
  entries: number;
  subdirs: number;
}

/** A hard-link group: the number of its first name and how many names there are. */
export interface LinkGroup {
  id: number;
  ino: number;
  nlink: number;
}

/** The first thing read of an image: its root directory's record and where the hard-link table is. */
export interface RootRecord {
  /** Inode numbers are 1..inodes. */
  inodes: number;
  links: { hash: Uint8Array; count: number } | undefined;
  root: Entry;
}

/** Whose node it is: an image's, or a container's. */
export type Realm = 'image' | 'namespace';

/**
 * The bytes of a directory node; `entries` must be in byte order of their names, without doubles. They are gone through twice, so that
 * those of a large directory need not all be there at once.
 */
export function encodeDirectory(entries: Iterable<Entry>, realm: Realm = 'image'): Buffer {
  let size = NODE_HEAD;
  let count = 0;
  for (const e of entries) {
    size += 4 + recordBytes(e);
    count++;
  }
  const out = Buffer.alloc(size);
  let at = NODE_HEAD + count * 4;
  let i = 0;
  let inodes = 0;
  let subdirs = 0;
  let before = '';
  for (const e of entries) {
    assert.ok(before < e.name, 'names are in byte order');
    before = e.name;
    out.writeUInt32LE(at, NODE_HEAD + 4 * i++);
    at = encodeRecord(out, at, e);
    inodes += 1 + (e.child?.inodes ?? 0);
    if (e.child) subdirs++;
  }
  assert.equal(at, size);
  out.writeUInt32LE(count, 8);
  out.writeUInt32LE(inodes, 12);
  out.writeUInt32LE(subdirs, 16);
  out.writeUInt32LE(size, 20);
  return seal(out, realm === 'image' ? MAGIC_DIRECTORY : MAGIC_NAMESPACE_DIRECTORY);
}

/** The bytes of the record that `openTree` starts from, or of a container's namespace. */
export function encodeRoot(record: RootRecord, realm: Realm = 'image'): Buffer {
  const out = Buffer.alloc(48 + recordBytes(record.root));
  out.writeUInt32LE(record.inodes, 8);
  out.writeUInt32LE(record.links?.count ?? 0, 12);
  if (record.links) out.set(record.links.hash, 16);
  encodeRecord(out, 48, record.root);
  return seal(out, realm === 'image' ? MAGIC_ROOT : MAGIC_NAMESPACE_ROOT);
}

/** The hard-link table's bytes; `groups` in order of their ids. */
export function encodeLinks(groups: readonly LinkGroup[]): Buffer {
  const out = Buffer.alloc(12 + groups.length * LINK_BYTES);
  out.writeUInt32LE(groups.length, 8);
  for (const [i, g] of groups.entries()) {
    const at = 12 + i * LINK_BYTES;
    writeU64(out, at, g.id);
    out.writeUInt32LE(g.ino, at + 8);
    out.writeUInt32LE(g.nlink, at + 12);
  }
  return seal(out, MAGIC_LINKS);
}

/** Reads a root record, checking it. */
export function decodeRoot(bytes: Buffer, realm: Realm = 'image'): RootRecord {
  unseal(bytes, realm === 'image' ? MAGIC_ROOT : MAGIC_NAMESPACE_ROOT, 48 + RECORD_HEAD);
  const count = bytes.readUInt32LE(12);
  return {
    inodes: bytes.readUInt32LE(8),
    links: count === 0 ? undefined : { hash: bytes.subarray(16, 48), count },
    root: decodeRecord(bytes, 48),
  };
}

/** What the first 24 bytes of a directory node say: how many entries, and how many bytes it has (0: made before nodes said it). */
export function directoryHead(head: Buffer): { count: number; bytes: number } {
  const magic = head.length < NODE_HEAD ? 0 : head.readUInt32LE(0);
  if (magic !== MAGIC_DIRECTORY && magic !== MAGIC_NAMESPACE_DIRECTORY) throw corrupt('not a directory node');
  return { count: head.readUInt32LE(8), bytes: head.readUInt32LE(20) };
}

/** A loaded hard-link table: id -> group, by binary search. */
export class LinkTable {
  readonly #bytes: Buffer;
  readonly count: number;

  constructor(bytes: Buffer) {
    unseal(bytes, MAGIC_LINKS, 12);
    this.#bytes = bytes;
    this.count = bytes.readUInt32LE(8);
    if (bytes.length !== 12 + this.count * LINK_BYTES) throw corrupt('hard-link table has another length than it says');
  }

  /** The group with this id. */
  find(id: number): LinkGroup | undefined {
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const at = 12 + middle * LINK_BYTES;
      const here = readU64(this.#bytes, at);
      if (here === id) return { id, ino: this.#bytes.readUInt32LE(at + 8), nlink: this.#bytes.readUInt32LE(at + 12) };
      if (here < id) low = middle + 1;
      else high = middle - 1;
    }
    return undefined;
  }
}

/** A directory node opened for reading: nothing is parsed but what is asked for. */
export class DirectoryNode {
  readonly bytes: Buffer;
  readonly count: number;
  readonly subdirs: number;

  /** Checks the node's checksum and shape; PgError `CORRUPT_NODE`. */
  constructor(bytes: Buffer, realm: Realm = 'image') {
    unseal(bytes, realm === 'image' ? MAGIC_DIRECTORY : MAGIC_NAMESPACE_DIRECTORY, NODE_HEAD);
    this.bytes = bytes;
    this.count = bytes.readUInt32LE(8);
    this.subdirs = bytes.readUInt32LE(16);
    if (NODE_HEAD + this.count * 4 > bytes.length) throw corrupt('directory node is shorter than its table of entries');
  }

  /** Where the record of entry `index` begins. */
  offset(index: number): number {
    return this.bytes.readUInt32LE(NODE_HEAD + index * 4);
  }

  name(index: number): string {
    const at = this.offset(index);
    return this.bytes.toString('latin1', at + RECORD_HEAD, at + RECORD_HEAD + this.bytes.readUInt16LE(at + 28));
  }

  rel(index: number): number {
    return this.bytes.readUInt32LE(this.offset(index));
  }

  mode(index: number): number {
    return this.bytes.readUInt32LE(this.offset(index) + 4);
  }

  /** The hard-link id of entry `index`, 0 when it has one name only. */
  linkId(index: number): number {
    const at = this.offset(index);
    return (this.bytes.readUInt16LE(at + 30) & FLAG_LINKED) === 0 ? 0 : decodeRecord(this.bytes, at).linkId;
  }

  entry(index: number): Entry {
    return decodeRecord(this.bytes, this.offset(index));
  }

  /** The index of the first entry whose name is not before `name` (0..count): where a completion of `name` begins. */
  lowerBound(name: string): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(middle, name) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The index of `name`, or -1. */
  find(name: string): number {
    const index = this.lowerBound(name);
    return index < this.count && this.#compare(index, name) === 0 ? index : -1;
  }

  /** The last entry whose relative number is not above `rel`; -1 when `rel` is before the first. */
  findRel(rel: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.rel(middle) <= rel) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  #compare(index: number, name: string): number {
    const bytes = this.bytes;
    const at = this.offset(index);
    const length = bytes.readUInt16LE(at + 28);
    const start = at + RECORD_HEAD;
    const common = Math.min(length, name.length);
    for (let i = 0; i < common; i++) {
      const difference = bytes[start + i]! - name.charCodeAt(i);
      if (difference !== 0) return difference;
    }
    return length - name.length;
  }
}

function recordBytes(e: Entry): number {
  assert.ok(e.name.length <= NAME_MAX);
  let size = RECORD_HEAD + e.name.length;
  switch (e.mode & S_IFMT) {
    case S_IFREG:
      size += 8 + (e.size > 0 ? HASH_BYTES : 0);
      break;
    case S_IFDIR:
      size += HASH_BYTES + 12;
      break;
    case S_IFLNK:
      size += 2 + e.symlink!.length;
      break;
    case S_IFCHR:
    case S_IFBLK:
      size += 4;
      break;
  }
  if (e.linkId !== 0) size += 8;
  if (e.xattrs?.size) {
    size += 2;
    for (const [name, value] of e.xattrs) size += 6 + name.length + value.length;
  }
  return size;
}

function encodeRecord(out: Buffer, start: number, e: Entry): number {
  const xattrs = e.xattrs?.size ? [...e.xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1)) : [];
  out.writeUInt32LE(e.rel, start);
  out.writeUInt32LE(e.mode, start + 4);
  out.writeUInt32LE(e.uid, start + 8);
  out.writeUInt32LE(e.gid, start + 12);
  out.writeBigInt64LE(BigInt(e.mtimeSec), start + 16);
  out.writeUInt32LE(e.mtimeNsec, start + 24);
  out.writeUInt16LE(e.name.length, start + 28);
  const flags = (e.linkId !== 0 ? FLAG_LINKED : 0) | (xattrs.length > 0 ? FLAG_XATTRS : 0);
  out.writeUInt16LE(flags | (e.mapped === true ? FLAG_MAPPED : 0), start + 30);
  out.write(e.name, start + RECORD_HEAD, 'latin1');
  let at = encodeBody(out, start + RECORD_HEAD + e.name.length, e);
  if (e.linkId !== 0) {
    writeU64(out, at, e.linkId);
    at += 8;
  }
  if (xattrs.length > 0) at = out.writeUInt16LE(xattrs.length, at);
  for (const [name, value] of xattrs) {
    out.writeUInt16LE(name.length, at);
    out.writeUInt32LE(value.length, at + 2);
    out.write(name, at + 6, 'latin1');
    out.set(value, at + 6 + name.length);
    at += 6 + name.length + value.length;
  }
  return at;
}

/** What a record holds beyond the attributes, by type of file. */
function encodeBody(out: Buffer, at: number, e: Entry): number {
  switch (e.mode & S_IFMT) {
    case S_IFREG:
      writeU64(out, at, e.size);
      if (e.size === 0) return at + 8;
      assert.ok(e.root?.length === HASH_BYTES);
      out.set(e.root, at + 8);
      return at + 8 + HASH_BYTES;
    case S_IFDIR:
      out.set(e.child!.hash, at);
      out.writeUInt32LE(e.child!.inodes, at + 32);
      out.writeUInt32LE(e.child!.entries, at + 36);
      return out.writeUInt32LE(e.child!.subdirs, at + 40);
    case S_IFLNK:
      out.writeUInt16LE(e.symlink!.length, at);
      out.set(e.symlink!, at + 2);
      return at + 2 + e.symlink!.length;
    case S_IFCHR:
    case S_IFBLK:
      return out.writeUInt32LE(e.rdev, at);
    default:
      return at;
  }
}

/** Reads the record at `start`. The hash, target and xattr values are views of `bytes`. */
export function decodeRecord(bytes: Buffer, start: number): Entry {
  const nameEnd = start + RECORD_HEAD + bytes.readUInt16LE(start + 28);
  const flags = bytes.readUInt16LE(start + 30);
  const e: Entry = {
    name: bytes.toString('latin1', start + RECORD_HEAD, nameEnd),
    rel: bytes.readUInt32LE(start),
    mode: bytes.readUInt32LE(start + 4),
    uid: bytes.readUInt32LE(start + 8),
    gid: bytes.readUInt32LE(start + 12),
    mtimeSec: bytes.readInt32LE(start + 20) * 0x1_0000_0000 + bytes.readUInt32LE(start + 16),
    mtimeNsec: bytes.readUInt32LE(start + 24),
    size: 0,
    rdev: 0,
    linkId: 0,
  };
  let at = decodeBody(bytes, nameEnd, e);
  if (flags & FLAG_LINKED) {
    e.linkId = readU64(bytes, at);
    at += 8;
  }
  if (flags & FLAG_XATTRS) e.xattrs = decodeXattrs(bytes, at);
  if (flags & FLAG_MAPPED) e.mapped = true;
  return e;
}

function decodeBody(bytes: Buffer, at: number, e: Entry): number {
  switch (e.mode & S_IFMT) {
    case S_IFREG:
      e.size = readU64(bytes, at);
      if (e.size === 0) return at + 8;
      e.root = bytes.subarray(at + 8, at + 8 + HASH_BYTES);
      return at + 8 + HASH_BYTES;
    case S_IFDIR:
      e.child = {
        hash: bytes.subarray(at, at + HASH_BYTES),
        inodes: bytes.readUInt32LE(at + 32),
        entries: bytes.readUInt32LE(at + 36),
        subdirs: bytes.readUInt32LE(at + 40),
      };
      return at + 44;
    case S_IFLNK: {
      const end = at + 2 + bytes.readUInt16LE(at);
      e.symlink = bytes.subarray(at + 2, end);
      e.size = e.symlink.length;
      return end;
    }
    case S_IFCHR:
    case S_IFBLK:
      e.rdev = bytes.readUInt32LE(at);
      return at + 4;
    default:
      return at;
  }
}

function decodeXattrs(bytes: Buffer, start: number): Map<string, Uint8Array> {
  const xattrs = new Map<string, Uint8Array>();
  let at = start + 2;
  for (let left = bytes.readUInt16LE(start); left > 0; left--) {
    const nameEnd = at + 6 + bytes.readUInt16LE(at);
    const end = nameEnd + bytes.readUInt32LE(at + 2);
    xattrs.set(bytes.toString('latin1', at + 6, nameEnd), bytes.subarray(nameEnd, end));
    at = end;
  }
  return xattrs;
}

function seal(out: Buffer, magic: number): Buffer {
  out.writeUInt32LE(magic, 0);
  out.writeUInt32LE(crc32(out.subarray(8)), 4);
  return out;
}

function unseal(bytes: Buffer, magic: number, least: number): void {
  if (bytes.length < least || bytes.readUInt32LE(0) !== magic) {
    throw corrupt('not a node of the kind expected here, or of a newer version');
  }
  if (crc32(bytes.subarray(8)) !== bytes.readUInt32LE(4)) throw corrupt('checksum of a node does not fit its bytes');
}

function corrupt(what: string): PgError {
  return new PgError('CORRUPT_NODE', `image tree: ${what}`, {
    hint: 'remove the image and import it again, or run: pg verify',
  });
}

function writeU64(out: Buffer, at: number, value: number): void {
  assert.ok(Number.isSafeInteger(value) && value >= 0);
  out.writeUInt32LE(value % 0x1_0000_0000, at);
  out.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
}

function readU64(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000;
}
