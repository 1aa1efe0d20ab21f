import type { SetAttr } from '../view/view.ts';
import { CAP_SYS_ADMIN, callerHas, modeAfterChange, modeAfterKill } from './caller.ts';
import { ERRNO } from './errno.ts';
import { FATTR, SETXATTR_ACL_KILL_SGID, STATFS_OUT_BYTES, UNIQUE_RESEND_HIGH, WRITE_KILL_SUIDGID } from './protocol.ts';
import type { Reply } from './reply.ts';
import type { Request } from './request.ts';
import { callerOf, NO_REPLY, type Seek, type Session } from './session.ts';

/** Operations on inodes: attributes, data, extended attributes, durability. Arguments are at the offsets of the `fuse_*_in` structures. */

export function getattr(session: Session, request: Request, reply: Reply): number {
  return reply.attrOut(session.view.getattr(request.nodeid));
}

export function statx(session: Session, request: Request, reply: Reply): number {
  return reply.statx(session.view.getattr(request.nodeid));
}

/** `struct fuse_setattr_in`. */
export function setattr(session: Session, request: Request, reply: Reply): number {
  const valid = request.u32(0);
  const changes: SetAttr = {};
  if ((valid & FATTR.MODE) !== 0) changes.mode = request.u32(68) & 0o7777;
  if ((valid & FATTR.UID) !== 0) changes.uid = request.u32(76);
  if ((valid & FATTR.GID) !== 0) changes.gid = request.u32(80);
  if ((valid & FATTR.SIZE) !== 0) changes.size = request.u64(16);
  if ((valid & FATTR.ATIME_NOW) !== 0) changes.atimeNow = true;
  else if ((valid & FATTR.ATIME) !== 0) {
    changes.atimeSec = request.i64(32);
    changes.atimeNsec = request.u32(56);
  }
  if ((valid & FATTR.MTIME_NOW) !== 0) changes.mtimeNow = true;
  else if ((valid & FATTR.MTIME) !== 0) {
    changes.mtimeSec = request.i64(40);
    changes.mtimeNsec = request.u32(60);
  }
  if ((valid & FATTR.CTIME) !== 0) {
    changes.ctimeSec = request.i64(48);
    changes.ctimeNsec = request.u32(64);
  }
  if ((valid & FATTR.KILL_SUIDGID) !== 0) {
    changes.killSuid = true;
    const left = changes.size === undefined ? undefined : modeAfterKill(request, session.view.getattr(request.nodeid));
    if (left !== undefined) changes.mode ??= left;
  }
  return reply.attrOut(session.view.setattr(request.nodeid, changes, callerOf(session, request)));
}

export function readlink(session: Session, request: Request, reply: Reply): number {
  const target = session.view.readlink(request.nodeid);
  reply.put(0, target);
  return target.length;
}

/** `struct fuse_read_in`: the file's bytes go straight into the answer. */
export function read(session: Session, request: Request, reply: Reply): number {
  const size = Math.min(request.u32(16), session.maxPayload);
  const length = session.view.read(request.nodeid, request.u64(8), reply.payload.subarray(0, size));
  session.bytesRead += length;
  return length;
}

/** `struct fuse_write_in`, then the bytes: the view appends them to the log from here, their only copy. */
export function write(session: Session, request: Request, reply: Reply): number {
  const bytes = request.payload(40, request.u32(16));
  const killSuid = (request.u32(20) & WRITE_KILL_SUIDGID) !== 0;
  if (killSuid) setLeft(session, request.nodeid, modeAfterKill(request, session.view.getattr(request.nodeid)), request);
  const length = session.view.write(request.nodeid, request.u64(8), bytes, killSuid);
  session.bytesWritten += length;
  reply.u32(0, length);
  reply.u32(4, 0);
  return 8;
}

/** The mode that is left of a file whose contents are about to change, which the kernel may have in its cache. */
function setLeft(session: Session, ino: number, mode: number | undefined, request: Request): void {
  if (mode === undefined) return;
  const inHand = session.view.request;
  // It is what comes after that the request asks for, and by which it is known to be done.
  inHand.low = inHand.high = 0;
  session.view.setattr(ino, { mode }, callerOf(session, request));
  inHand.low = request.uniqueLow;
  inHand.high = (request.uniqueHigh & ~UNIQUE_RESEND_HIGH) >>> 0;
  session.hooks.forgetAttributes(ino);
}

/** The kernel does not say of FALLOCATE and COPY_FILE_RANGE that the caller's change takes setuid and setgid away, though it does. */
function takeSetid(session: Session, ino: number, request: Request): void {
  setLeft(session, ino, modeAfterChange(request, session.view.getattr(ino)), request);
}

export function fallocate(session: Session, request: Request): number {
  takeSetid(session, request.nodeid, request);
  session.view.fallocate(request.nodeid, request.u32(24), request.u64(8), request.u64(16));
  return 0;
}

/**
 * SEEK_DATA (3) and SEEK_HOLE (4); the kernel does the others itself. With a write-back cache the kernel may have data that we do not know of,
 * and it does not say so: those who copy only what is data would lose it. So its pages are written back first.
 */
export function lseek(session: Session, request: Request, reply: Reply): number {
  const number = request.u32(16);
  if (number !== 3 && number !== 4) return -ERRNO.EINVAL;
  const { nodeid: ino, uniqueLow, uniqueHigh } = request;
  const seek: Seek = { ino, uniqueLow, uniqueHigh, offset: request.u64(8), whence: number === 3 ? 'data' : 'hole' };
  const { settings, hooks, seeks } = session;
  if (settings.writeback && !settings.readOnly) {
    const id = uniqueLow + (uniqueHigh & 0xfffff) * 2 ** 32;
    seeks.set(id, seek);
    hooks.writeBack(id, ino);
    return NO_REPLY;
  }
  return seekNow(session, seek, reply);
}

/** Answers an LSEEK from what is known here. */
export function seekNow(session: Session, seek: Seek, reply: Reply): number {
  reply.u64(0, session.view.lseek(seek.ino, seek.offset, seek.whence));
  return 8;
}

/** Bytes that one COPY_FILE_RANGE may copy when the answer has only 32 bits for it. */
const MAX_COPY_32 = 0x7ffff000;

export function copyFileRange(session: Session, request: Request, reply: Reply): number {
  takeSetid(session, request.u64(16), request);
  const length = Math.min(request.u64(40), MAX_COPY_32);
  const copied = session.view.copyFileRange(request.nodeid, request.u64(8), request.u64(16), request.u64(32), length);
  reply.u64(0, copied);
  return 8;
}

export function copyFileRange64(session: Session, request: Request, reply: Reply): number {
  takeSetid(session, request.u64(16), request);
  const length = Math.min(request.u64(40), Number.MAX_SAFE_INTEGER);
  reply.u64(0, session.view.copyFileRange(request.nodeid, request.u64(8), request.u64(16), request.u64(32), length));
  return 8;
}

export function statfs(session: Session, _request: Request, reply: Reply): number {
  const of = session.view.statfs();
  reply.zero(0, STATFS_OUT_BYTES);
  reply.u64(0, of.blocks);
  reply.u64(8, of.bfree);
  reply.u64(16, of.bavail);
  reply.u64(24, of.files);
  reply.u64(32, of.ffree);
  reply.u32(40, of.bsize);
  reply.u32(44, of.namelen);
  reply.u32(48, of.frsize);
  return STATFS_OUT_BYTES;
}

/** FSYNC, FSYNCDIR, SYNCFS: everything acknowledged so far becomes durable; the syncer answers unless there is nothing to do. */
export function sync(session: Session, request: Request): number {
  return session.hooks.sync(request.uniqueLow, request.uniqueHigh) ? 0 : NO_REPLY;
}

/** The kernel asks with size 0 for the length alone. */
function sized(request: Request, reply: Reply, value: Uint8Array): number {
  const room = request.u32(0);
  if (room === 0) {
    reply.u32(0, value.length);
    reply.u32(4, 0);
    return 8;
  }
  if (value.length > room) return -ERRNO.ERANGE;
  reply.put(0, value);
  return value.length;
}

export function getxattr(session: Session, request: Request, reply: Reply): number {
  return sized(request, reply, session.view.getxattr(request.nodeid, request.name(8)));
}

/** trusted.* is shown to those only who may read it. */
export function listxattr(session: Session, request: Request, reply: Reply): number {
  const isTrusted = (name: string): boolean => name.startsWith('trusted.');
  let names = session.view.listxattr(request.nodeid);
  if (names.some(isTrusted) && !callerHas(request, CAP_SYS_ADMIN)) names = names.filter((name) => !isTrusted(name));
  return sized(request, reply, Buffer.from(names.map((name) => `${name}\0`).join(''), 'latin1'));
}

/** `struct fuse_setxattr_in` (before SETXATTR_EXT, Linux 5.13, only its first 8 bytes), the name, the value. */
export function setxattr(session: Session, request: Request): number {
  const nameAt = session.setxattrExt ? 16 : 8;
  const killSgid = session.setxattrExt && (request.u32(8) & SETXATTR_ACL_KILL_SGID) !== 0;
  const valueAt = request.afterName(nameAt);
  const value = request.payload(valueAt, request.u32(0));
  session.view.setxattr(request.nodeid, request.name(nameAt), value, request.u32(4), killSgid);
  return 0;
}

export function removexattr(session: Session, request: Request): number {
  session.view.removexattr(request.nodeid, request.name(0));
  return 0;
}
