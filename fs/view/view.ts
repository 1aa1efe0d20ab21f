import type { NamedCheckpoint } from '../log/checkpoint-entry.ts';
import type { LastRequest } from '../log/append-buffer.ts';
import type { Position } from '../log/log.ts';
import type { Stale } from './merge.ts';
import type { Mark } from '../log/sidecar.ts';
import type { Cleaned, Cleaner } from './cleaner.ts';

export type { LastRequest } from '../log/append-buffer.ts';

/** What stat(2) and statx(2) answer about an inode. Times are seconds since 1970 (may be negative) and nanoseconds; `blocks` are of 512 bytes. */
export interface Attr {
  ino: number;
  size: number;
  blocks: number;
  /** The full st_mode: type and permission bits. */
  mode: number;
  nlink: number;
  uid: number;
  gid: number;
  /** Linux `new_encode_dev` form, as FUSE carries it. */
  rdev: number;
  blksize: number;
  atimeSec: number;
  atimeNsec: number;
  mtimeSec: number;
  mtimeNsec: number;
  ctimeSec: number;
  ctimeNsec: number;
  btimeSec: number;
  btimeNsec: number;
}

/** Who asks, as in `struct fuse_in_header`. */
export interface Caller {
  uid: number;
  gid: number;
  pid: number;
  /** The caller's umask, when the kernel left it to us (FUSE_DONT_MASK): applied at create unless the parent has a default ACL. */
  umask?: number;
}

/** What to change, `struct fuse_setattr_in`; an absent field is left as it is. */
export interface SetAttr {
  /** Permission bits (07777); type bits are ignored. */
  mode?: number;
  uid?: number;
  gid?: number;
  /** New size in bytes: truncates, or grows by a hole. */
  size?: number;
  /** A time to set; `atimeNow` (FATTR_ATIME_NOW) wins over it. */
  atimeSec?: number;
  atimeNsec?: number;
  atimeNow?: boolean;
  mtimeSec?: number;
  mtimeNsec?: number;
  mtimeNow?: boolean;
  /** FATTR_CTIME: only the kernel's write-back cache sends it. Otherwise ctime becomes now. */
  ctimeSec?: number;
  ctimeNsec?: number;
  /** FATTR_KILL_SUIDGID: the caller lacks CAP_FSETID, so a truncation clears setuid, and setgid where the group may execute. */
  killSuid?: boolean;
}

/** statvfs(3) of the disk that the log is on; block numbers are in units of `bsize` bytes. */
export interface StatFs {
  blocks: number;
  bfree: number;
  bavail: number;
  files: number;
  ffree: number;
  bsize: number;
  namelen: number;
  frsize: number;
}

/** rename(2) flags, as renameat2 and FUSE_RENAME2 number them. */
export const RENAME_NOREPLACE = 1;
export const RENAME_EXCHANGE = 2;
export const RENAME_WHITEOUT = 4;

/** fallocate(2) modes. */
export const FALLOC_KEEP_SIZE = 1;
export const FALLOC_PUNCH_HOLE = 2;
export const FALLOC_ZERO_RANGE = 16;

/** setxattr(2) flags. */
export const XATTR_CREATE = 1;
export const XATTR_REPLACE = 2;

/** One path that differs from the image, as `docker diff` lists them: Added, Changed, Deleted. `path` is absolute, latin1. */
export interface Change {
  path: string;
  kind: 'A' | 'C' | 'D';
}

/** What a run of the cleaner has done. */
export interface CleaningReport extends Cleaned {
  /** Bytes that were given back to the disk. */
  givenBackBytes: number;
}

/** A checkpoint that is written a little at a time. */
export interface OnlineCheckpoint {
  readonly mark: Omit<Mark, 'payload'>;
  /** Whether the checkpoint so far is to be kept as the older one. */
  readonly rotates: boolean;
  /** Goes on for about so long; true when all is written. */
  step(budgetMs: number): boolean;
  /** Pieces of the payload that were not taken yet. */
  take(): Uint8Array<ArrayBuffer>[];
  /** Nothing will come of it. */
  stop(): void;
}

/** Counters for `pg stats` and for whoever decides about checkpoints. */
export interface ViewStats {
  /** Inodes held in memory: new ones, and those of the image that were changed. */
  inodes: number;
  /** Unlinked inodes that the kernel still refers to. */
  orphans: number;
  /** Bytes of the log up to the last entry appended. */
  logBytes: number;
  /** Log bytes since the last checkpoint: what a mount after a crash would replay. */
  bytesSinceCheckpoint: number;
}

/**
 * A container's files: an image's tree under a writable log, as POSIX sees them. Synchronous, single-threaded, knows nothing of FUSE.
 * Inodes 1 (the root) to `tree.inodeCount` are the image's; new ones start at 2^40 and are never used twice.
 * Names are latin1 strings (one char = one byte). Every method may throw FsError; a method that throws has changed nothing.
 * Permission checks and path walking are the kernel's (mount option default_permissions).
 */
export interface View {
  /** The request in hand, as the kernel numbers it (two halves; 0 outside of one): whoever serves sets it, and the log's entries carry it. */
  readonly request: { low: number; high: number };
  /** The last request that the process before this one did, if one was killed and this one has its log. */
  readonly inherited: LastRequest | undefined;
  /** The entry's attributes; '.' and '..' are understood. ENOENT, ENOTDIR, ENAMETOOLONG. */
  lookup(parent: number, name: string): Attr;
  getattr(ino: number): Attr;
  setattr(ino: number, changes: SetAttr, caller: Caller): Attr;
  /** EINVAL when it is no symlink. */
  readlink(ino: number): Uint8Array;
  /** A regular file, device, FIFO or socket: `mode` has type and permission bits. EEXIST, ENOSPC. */
  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Attr;
  mkdir(parent: number, name: string, mode: number, caller: Caller): Attr;
  symlink(parent: number, name: string, target: Uint8Array, caller: Caller): Attr;
  link(ino: number, parent: number, name: string): Attr;
  /** Removes a name that is no directory (EISDIR). */
  unlink(parent: number, name: string): void;
  /** Removes an empty directory (ENOTDIR, ENOTEMPTY). */
  rmdir(parent: number, name: string): void;
  rename(parent: number, name: string, newParent: number, newName: string, flags: number, caller: Caller): void;
  /** O_TMPFILE: an inode without a name, which `link` may give it. It counts as unlinked until then. */
  tmpfile(parent: number, mode: number, caller: Caller): Attr;
  /** Counts an open (files and directories); `truncate` is O_TRUNC. */
  open(ino: number, truncate: boolean): void;
  /** Takes one open back; an unlinked inode without opens goes. */
  release(ino: number): void;
  /** FUSE_FORGET of the last reference: an unlinked inode that nobody has open goes. Harmless for any other inode, unknown ones included. */
  forget(ino: number): void;
  /** Fills `into` from `offset`; returns the bytes read, fewer only at the end of the file. EIO when a checksum is wrong. */
  read(ino: number, offset: number, into: Uint8Array): number;
  /** Writes all of `bytes`. `killSuid` is FUSE_WRITE_KILL_SUIDGID. EFBIG, ENOSPC. */
  write(ino: number, offset: number, bytes: Uint8Array, killSuid: boolean): number;
  /** EOPNOTSUPP for modes other than those above. */
  fallocate(ino: number, mode: number, offset: number, length: number): void;
  /** SEEK_DATA and SEEK_HOLE; ENXIO past the end. */
  lseek(ino: number, offset: number, whence: 'data' | 'hole'): number;
  /** Shares extents: no data is copied. Returns the bytes now equal, 0 at the source's end. */
  copyFileRange(src: number, srcOffset: number, dst: number, dstOffset: number, length: number): number;
  /**
   * Entries after `cookie` (0 = from the start), '.' and '..' first, until `emit` returns false. Cookies are below 2^53 and stay valid while
   * the directory changes: an entry that was there throughout is seen exactly once.
   */
  readdir(
    ino: number,
    cookie: number,
    emit: (name: string, ino: number, mode: number, nextCookie: number) => boolean,
  ): void;
  /** ENODATA when it is not there. */
  getxattr(ino: number, name: string): Uint8Array;
  /** `flags`: XATTR_CREATE (EEXIST), XATTR_REPLACE (ENODATA). ERANGE, E2BIG, EOPNOTSUPP. `killSgid` is FUSE_SETXATTR_ACL_KILL_SGID. */
  setxattr(ino: number, name: string, value: Uint8Array, flags: number, killSgid?: boolean): void;
  listxattr(ino: number): string[];
  removexattr(ino: number, name: string): void;
  statfs(): StatFs;

  /** Whether something was appended since the last `flush`. */
  dirty(): boolean;
  /** Ends the batch with a commit entry and writes everything to the file. Returns the size that an fdatasync of `logFd()` makes durable. */
  flush(): number;
  /** The log's file descriptor, for the thread that runs fdatasync(2); -1 on a read-only view. */
  logFd(): number;
  /** Tells that an fdatasync begun after `flush()` had returned `size` succeeded. */
  synced(size: number): void;
  /** An fdatasync failed: nothing more is accepted (EIO), for what reached the disk is unknown. */
  failed(error: unknown): void;
  /** Hashes at most `bytes` of what is committed; true when nothing is left. For idle moments. */
  hashSome(bytes: number): boolean;
  /** flush + fdatasync + the root over all of it. */
  position(): Position;
  /** Whether so much was logged since the last checkpoint that another one pays. */
  checkpointDue(): boolean;
  /** flush, fdatasync, then writes the state to the log's checkpoint file, so that the next mount replays only what comes after. */
  checkpoint(): void;
  /** flush, then begins a checkpoint of the state as it is now, which may change meanwhile; one at a time. Undefined on a read-only view. */
  beginCheckpoint(): OnlineCheckpoint | undefined;
  /** The checkpoint begun last is installed, or (null) nothing has come of it. */
  checkpointEnded(named: NamedCheckpoint | null): void;
  /** What moves the needed bytes out of sparse sectors; undefined on a read-only view. */
  readonly cleaner: Cleaner | undefined;
  /** Bytes of the last checkpoint. */
  readonly checkpointBytes: number;
  /** About what the next one will take. */
  readonly nextCheckpointBytes: number;
  /** `make` is called when the disk has no byte left for an operation that removes something; it tells whether there is one now. */
  whenFull(make: () => boolean): void;
  /** Bytes that are free of the disk that the log is on. */
  freeBytes(): number;
  /** Cleans the log, whether it pays or not, while nobody is served. */
  clean(): CleaningReport;
  /** A path (latin1) by which an inode is reached now, undefined when none is found. Looks through directories: for messages. */
  pathOf(ino: number): string | undefined;
  stats(): ViewStats;
  /** Inodes without a name that the kernel may still refer to. */
  orphans(): number[];
  /** What differs from the image, directories before their contents. */
  changes(): Iterable<Change>;
  /** Does here, as one batch, what the clone in `dir` has done since `from`, where it began: see `mergeClone`. What the kernel does not know of. */
  merge(dir: string, from: number, firstIno: number): Stale;
  /** Closes the log, after a checkpoint if it pays and `mayCheckpoint`. The view is unusable afterwards. */
  close(mayCheckpoint?: boolean): void;
}
