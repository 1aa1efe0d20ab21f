import { ERRNO } from './errno.ts';
import * as inode from './inode.ts';
import * as namespace from './namespace.ts';
import { init } from './negotiate.ts';
import { OPCODE, OPCODE_COUNT, type OpcodeName } from './protocol.ts';
import type { Operation } from './session.ts';

const unsupported: Operation = () => -ERRNO.ENOSYS;
const nothing: Operation = () => 0;

/**
 * What each opcode does. ENOSYS tells the kernel never to ask again:
 * OPEN, OPENDIR: files open and close without a message (NO_OPEN_SUPPORT); the inode's lifetime is that of the kernel's references (FORGET).
 * CREATE: the kernel sends MKNOD instead and opens without a message, so a new file costs one request, not two.
 * FLUSH, ACCESS: nothing to do at close, and permissions are the kernel's. INTERRUPT: no request waits for anything but fdatasync.
 */
const TABLE: Partial<Record<OpcodeName, Operation>> = {
  INIT: init,
  LOOKUP: namespace.lookup,
  FORGET: namespace.forget,
  BATCH_FORGET: namespace.batchForget,
  MKNOD: namespace.mknod,
  MKDIR: namespace.mkdir,
  SYMLINK: namespace.symlink,
  LINK: namespace.link,
  TMPFILE: namespace.tmpfile,
  UNLINK: namespace.unlink,
  RMDIR: namespace.rmdir,
  RENAME: namespace.rename,
  RENAME2: namespace.rename2,
  READDIR: namespace.readdir,
  READDIRPLUS: namespace.readdirplus,
  GETATTR: inode.getattr,
  STATX: inode.statx,
  SETATTR: inode.setattr,
  READLINK: inode.readlink,
  READ: inode.read,
  WRITE: inode.write,
  FALLOCATE: inode.fallocate,
  LSEEK: inode.lseek,
  COPY_FILE_RANGE: inode.copyFileRange,
  COPY_FILE_RANGE_64: inode.copyFileRange64,
  STATFS: inode.statfs,
  FSYNC: inode.sync,
  FSYNCDIR: inode.sync,
  SYNCFS: inode.sync,
  GETXATTR: inode.getxattr,
  LISTXATTR: inode.listxattr,
  SETXATTR: inode.setxattr,
  REMOVEXATTR: inode.removexattr,
  RELEASE: nothing,
  RELEASEDIR: nothing,
  DESTROY: nothing,
  IOCTL: () => -ERRNO.ENOTTY,
};

/** Operations that change something: refused with EROFS on a read-only mount. */
const CHANGING: readonly OpcodeName[] = [
  'MKNOD',
  'MKDIR',
  'SYMLINK',
  'LINK',
  'TMPFILE',
  'UNLINK',
  'RMDIR',
  'RENAME',
  'RENAME2',
  'SETATTR',
  'WRITE',
  'FALLOCATE',
  'COPY_FILE_RANGE',
  'COPY_FILE_RANGE_64',
  'SETXATTR',
  'REMOVEXATTR',
];

/** The operations of a mount, indexed by opcode; an opcode without one answers ENOSYS. */
export function operationTable(readOnly: boolean): readonly Operation[] {
  const table = Array.from({ length: OPCODE_COUNT }, () => unsupported);
  for (const [name, operation] of Object.entries(TABLE)) table[OPCODE[name as OpcodeName]] = operation;
  if (readOnly) for (const name of CHANGING) table[OPCODE[name]] = () => -ERRNO.EROFS;
  return table;
}
