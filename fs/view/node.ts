import type { LowerInode } from '../../layers/tree.ts';
import { Directory } from './directory.ts';
import type { Extents } from './extents.ts';
import { LiveSectors } from './live-sectors.ts';
import type { Attr } from './view.ts';

export const S_IFMT = 0o170000;
export const S_IFREG = 0o100000;
export const S_IFDIR = 0o040000;
export const S_IFLNK = 0o120000;
export const S_IFCHR = 0o020000;
export const S_ISUID = 0o4000;
export const S_ISGID = 0o2000;
export const S_IXGRP = 0o0010;
export const PERMISSIONS = 0o7777;

/** Number of the first inode that is not the image's. */
export const FIRST_NEW_INO = 2 ** 40;
export const BLOCK_BYTES = 4096;

export const isDirectory = (mode: number): boolean => (mode & S_IFMT) === S_IFDIR;
export const isRegular = (mode: number): boolean => (mode & S_IFMT) === S_IFREG;

/** An inode that is new, or the image's and changed: everything about it. */
export class Node {
  readonly ino: number;
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  rdev: number;
  size: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  btimeSec: number;
  btimeNsec: number;
  /** A directory's parent. */
  parent = 0;
  /** A directory's names. */
  dir: Directory | undefined = undefined;
  /** Where a regular file's bytes are; undefined: all of them in the image's file of this number (if it has one). */
  extents: Extents | undefined = undefined;
  symlink: Uint8Array | undefined = undefined;
  xattrs: Map<string, Uint8Array> | undefined = undefined;
  /** The last walk (state-walk.ts) that needs nothing of it any more. */
  walked = 0;

  constructor(
    ino: number,
    mode: number,
    nlink: number,
    uid: number,
    gid: number,
    rdev: number,
    sec: number,
    nsec: number,
  ) {
    this.ino = ino;
    this.mode = mode;
    this.nlink = nlink;
    this.uid = uid;
    this.gid = gid;
    this.rdev = rdev;
    this.size = 0;
    this.atimeSec = this.mtimeSec = this.ctimeSec = this.btimeSec = sec;
    this.atimeNsec = this.mtimeNsec = this.ctimeNsec = this.btimeNsec = nsec;
  }

  /** A node for the image's inode, as it is there. `parent` is that of a directory. */
  static ofLower(lower: LowerInode, parent: number): Node {
    const { ino, mode, nlink, uid, gid, rdev, mtimeSec, mtimeNsec } = lower;
    const node = new Node(ino, mode, nlink, uid, gid, rdev, mtimeSec, mtimeNsec);
    node.size = lower.size;
    if (isDirectory(mode)) {
      node.size = 0;
      node.parent = parent;
      node.dir = new Directory(ino, lower.children ?? 0);
    }
    if (lower.symlink !== undefined) node.symlink = lower.symlink;
    if (lower.xattrs !== undefined && lower.xattrs.size > 0) node.xattrs = new Map(lower.xattrs);
    return node;
  }

  /** A copy that does not change with it. */
  frozen(): Node {
    const { ino, mode, nlink, uid, gid, rdev } = this;
    const copy = Object.assign(new Node(ino, mode, nlink, uid, gid, rdev, 0, 0), this);
    copy.dir = this.dir?.frozen();
    copy.extents = this.extents?.frozen(new LiveSectors());
    if (this.xattrs !== undefined) copy.xattrs = new Map(this.xattrs);
    return copy;
  }

  touchCtime(sec: number, nsec: number): void {
    this.ctimeSec = sec;
    this.ctimeNsec = nsec;
  }

  /** Contents (of a file or a directory) changed. */
  touch(sec: number, nsec: number): void {
    this.mtimeSec = this.ctimeSec = sec;
    this.mtimeNsec = this.ctimeNsec = nsec;
  }
}

export function attrOfNode(node: Node): Attr {
  return {
    ino: node.ino,
    size: isDirectory(node.mode) ? BLOCK_BYTES : node.size,
    blocks: blocksOfNode(node),
    mode: node.mode,
    nlink: node.nlink,
    uid: node.uid,
    gid: node.gid,
    rdev: node.rdev,
    blksize: BLOCK_BYTES,
    atimeSec: node.atimeSec,
    atimeNsec: node.atimeNsec,
    mtimeSec: node.mtimeSec,
    mtimeNsec: node.mtimeNsec,
    ctimeSec: node.ctimeSec,
    ctimeNsec: node.ctimeNsec,
    btimeSec: node.btimeSec,
    btimeNsec: node.btimeNsec,
  };
}

function blocksOfNode(node: Node): number {
  if (isDirectory(node.mode)) return BLOCK_BYTES / 512;
  if (!isRegular(node.mode)) return 0;
  const bytes = node.extents === undefined ? node.size : node.extents.allocated;
  return Math.ceil(bytes / BLOCK_BYTES) * (BLOCK_BYTES / 512);
}

/** The attributes of an inode of the image that was never changed: all its times are when the layer says it was modified. */
export function attrOfLower(lower: LowerInode): Attr {
  const { ino, mode, nlink, uid, gid, rdev, mtimeSec, mtimeNsec } = lower;
  const directory = isDirectory(mode);
  const size = directory ? BLOCK_BYTES : lower.size;
  const hasBlocks = directory || isRegular(mode);
  return {
    ino,
    size,
    blocks: hasBlocks ? Math.ceil(size / BLOCK_BYTES) * (BLOCK_BYTES / 512) : 0,
    mode,
    nlink,
    uid,
    gid,
    rdev,
    blksize: BLOCK_BYTES,
    atimeSec: mtimeSec,
    atimeNsec: mtimeNsec,
    mtimeSec,
    mtimeNsec,
    ctimeSec: mtimeSec,
    ctimeNsec: mtimeNsec,
    btimeSec: mtimeSec,
    btimeNsec: mtimeNsec,
  };
}
