/**
 * The FUSE kernel protocol as tables, from the kernel's `include/uapi/linux/fuse.h` (protocol 7.45). Offsets and sizes are bytes.
 * Everything on the wire is in the host's byte order, which is little-endian on every machine that pg runs on.
 */

export const PROTOCOL_MAJOR = 7;
export const PROTOCOL_MINOR = 45;
/** The oldest kernel protocol served: 7.31 (Linux 5.4) has everything the negotiation below relies on. */
export const OLDEST_MINOR = 31;

export const ROOT_NODE_ID = 1;
/** `struct fuse_in_header`. */
export const IN_HEADER_BYTES = 40;
/** `struct fuse_out_header`. */
export const OUT_HEADER_BYTES = 16;
/** Largest READ and WRITE payload: 256 pages, the kernel's default limit (`fs.fuse.max_pages_limit`). */
export const MAX_PAYLOAD_BYTES = 1 << 20;
export const MAX_PAGES = 256;
/** Room for the largest request: a WRITE, or a SETXATTR of 64 KiB with its name; the header and the fixed part before it. */
export const REQUEST_BUFFER_BYTES = MAX_PAYLOAD_BYTES + 8192;

/** `enum fuse_opcode`. */
export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  SETXATTR: 21,
  GETXATTR: 22,
  LISTXATTR: 23,
  REMOVEXATTR: 24,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  FSYNCDIR: 30,
  GETLK: 31,
  SETLK: 32,
  SETLKW: 33,
  ACCESS: 34,
  CREATE: 35,
  INTERRUPT: 36,
  BMAP: 37,
  DESTROY: 38,
  IOCTL: 39,
  POLL: 40,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
  COPY_FILE_RANGE: 47,
  SETUPMAPPING: 48,
  REMOVEMAPPING: 49,
  SYNCFS: 50,
  TMPFILE: 51,
  STATX: 52,
  COPY_FILE_RANGE_64: 53,
} as const;

export type OpcodeName = keyof typeof OPCODE;
/** One more than the largest opcode: the length of tables indexed by opcode. */
export const OPCODE_COUNT = 54;

/** Name of an opcode, for statistics and messages. */
export const OPCODE_NAMES: readonly string[] = (() => {
  const names = Array.from({ length: OPCODE_COUNT }, (_, opcode) => `opcode ${opcode}`);
  for (const [name, opcode] of Object.entries(OPCODE)) names[opcode] = name;
  return names;
})();

/** `FUSE_*` flags of INIT; those of `flags2` are given as that word's bits (bit 32 of the kernel's numbering is bit 0). */
export const INIT_FLAG = {
  ASYNC_READ: 1 << 0,
  ATOMIC_O_TRUNC: 1 << 3,
  EXPORT_SUPPORT: 1 << 4,
  BIG_WRITES: 1 << 5,
  DONT_MASK: 1 << 6,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  NO_OPEN_SUPPORT: 1 << 17,
  PARALLEL_DIROPS: 1 << 18,
  POSIX_ACL: 1 << 20,
  ABORT_ERROR: 1 << 21,
  MAX_PAGES: 1 << 22,
  CACHE_SYMLINKS: 1 << 23,
  NO_OPENDIR_SUPPORT: 1 << 24,
  EXPLICIT_INVAL_DATA: 1 << 25,
  HANDLE_KILLPRIV_V2: 1 << 28,
  SETXATTR_EXT: 1 << 29,
  INIT_EXT: 1 << 30,
} as const;

export const INIT_FLAG2 = {
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
  PASSTHROUGH: 1 << 5,
  HAS_RESEND: 1 << 7,
  ALLOW_IDMAP: 1 << 8,
} as const;

/** `FUSE_UNIQUE_RESEND` in the upper half of `unique`: the request was read before, and not answered. */
export const UNIQUE_RESEND_HIGH = 0x80000000;

/** `FATTR_*`: which fields of SETATTR count. */
export const FATTR = {
  MODE: 1 << 0,
  UID: 1 << 1,
  GID: 1 << 2,
  SIZE: 1 << 3,
  ATIME: 1 << 4,
  MTIME: 1 << 5,
  ATIME_NOW: 1 << 7,
  MTIME_NOW: 1 << 8,
  CTIME: 1 << 10,
  KILL_SUIDGID: 1 << 11,
} as const;

/** `FOPEN_*`. */
export const FOPEN = { KEEP_CACHE: 1 << 1, CACHE_DIR: 1 << 3, NOFLUSH: 1 << 5 } as const;

/** `FUSE_WRITE_KILL_SUIDGID`. */
export const WRITE_KILL_SUIDGID = 1 << 2;
/** `FUSE_OPEN_KILL_SUIDGID`. */
export const OPEN_KILL_SUIDGID = 1 << 0;

/** `FUSE_SETXATTR_ACL_KILL_SGID`. */
export const SETXATTR_ACL_KILL_SGID = 1 << 0;

/** Sizes of the structures that answer. */
export const ATTR_BYTES = 88;
export const ATTR_OUT_BYTES = 16 + ATTR_BYTES;
export const ENTRY_OUT_BYTES = 40 + ATTR_BYTES;
export const OPEN_OUT_BYTES = 16;
export const INIT_OUT_BYTES = 64;
export const STATFS_OUT_BYTES = 80;
export const STATX_OUT_BYTES = 288;
/** `struct fuse_dirent` before the name; records are padded to 8 bytes. */
export const DIRENT_BYTES = 24;

/** STATX_BASIC_STATS | STATX_BTIME (linux/stat.h). */
export const STATX_MASK = 0xfff;

/** Seconds that the kernel may trust names and attributes: for ever (it clamps to its own longest time). We are the only writer. */
export const FOREVER_SECONDS = 0x7fffffff;
