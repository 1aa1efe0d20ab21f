import type { Attr } from '../view/view.ts';
import { DIRENT_BYTES, ENTRY_OUT_BYTES, FOPEN } from './protocol.ts';
import { isNoEntry } from './errno.ts';
import type { Reply } from './reply.ts';
import type { Request } from './request.ts';
import { callerOf, NO_REPLY, type Session } from './session.ts';

/** Operations on names: lookup, creation, removal, directories. Arguments are at the offsets of the `fuse_*_in` structures. */

/** Answers with an entry, and remembers that the kernel now refers to its inode. */
export function entered(session: Session, reply: Reply, attr: Attr): number {
  session.lookups.add(attr.ino);
  return reply.entry(0, attr);
}

export function lookup(session: Session, request: Request, reply: Reply): number {
  let attr: Attr;
  try {
    attr = session.view.lookup(request.nodeid, request.name(0));
  } catch (error) {
    if (isNoEntry(error)) return reply.noEntry();
    throw error;
  }
  return entered(session, reply, attr);
}

export function forget(session: Session, request: Request): number {
  if (session.lookups.forget(request.nodeid, request.u64(0))) session.view.forget(request.nodeid);
  return NO_REPLY;
}

export function batchForget(session: Session, request: Request): number {
  const count = Math.min(request.u32(0), Math.floor((request.bodyLength - 8) / 16));
  for (let i = 0; i < count; i++) {
    const ino = request.u64(8 + 16 * i);
    if (session.lookups.forget(ino, request.u64(16 + 16 * i))) session.view.forget(ino);
  }
  return NO_REPLY;
}

export function mknod(session: Session, request: Request, reply: Reply): number {
  const caller = callerOf(session, request, request.u32(8));
  return entered(
    session,
    reply,
    session.view.mknod(request.nodeid, request.name(16), request.u32(0), request.u32(4), caller),
  );
}

export function mkdir(session: Session, request: Request, reply: Reply): number {
  const caller = callerOf(session, request, request.u32(4));
  return entered(session, reply, session.view.mkdir(request.nodeid, request.name(8), request.u32(0), caller));
}

/** `name\0target\0`. The target is a view into the request: the view copies what it keeps. */
export function symlink(session: Session, request: Request, reply: Reply): number {
  const targetAt = request.afterName(0);
  const target = request.payload(targetAt, request.afterName(targetAt) - 1 - targetAt);
  return entered(
    session,
    reply,
    session.view.symlink(request.nodeid, request.name(0), target, callerOf(session, request)),
  );
}

export function link(session: Session, request: Request, reply: Reply): number {
  return entered(session, reply, session.view.link(request.u64(0), request.nodeid, request.name(8)));
}

/** O_TMPFILE: an entry, and an open file. */
export function tmpfile(session: Session, request: Request, reply: Reply): number {
  const caller = callerOf(session, request, request.u32(8));
  return openedTemporary(session, reply, session.view.tmpfile(request.nodeid, request.u32(4), caller));
}

export function openedTemporary(session: Session, reply: Reply, attr: Attr): number {
  return reply.openOut(entered(session, reply, attr), FOPEN.KEEP_CACHE);
}

export function unlink(session: Session, request: Request): number {
  session.view.unlink(request.nodeid, request.name(0));
  return 0;
}

export function rmdir(session: Session, request: Request): number {
  session.view.rmdir(request.nodeid, request.name(0));
  return 0;
}

export function rename(session: Session, request: Request): number {
  return renameAs(session, request, 8, 0);
}

export function rename2(session: Session, request: Request): number {
  return renameAs(session, request, 16, request.u32(8));
}

function renameAs(session: Session, request: Request, namesAt: number, flags: number): number {
  const newName = request.name(request.afterName(namesAt));
  session.view.rename(
    request.nodeid,
    request.name(namesAt),
    request.u64(0),
    newName,
    flags,
    callerOf(session, request),
  );
  return 0;
}

/** `fuse_read_in`: the cookie to go on from, and the bytes that fit. */
export function readdir(session: Session, request: Request, reply: Reply): number {
  const limit = Math.min(request.u32(16), session.maxPayload);
  let at = 0;
  session.view.readdir(request.nodeid, request.u64(8), (name, ino, mode, cookie) => {
    const end = reply.dirent(at, limit, name, ino, mode, cookie);
    if (end < 0) return false;
    at = end;
    return true;
  });
  return at;
}

/** Like READDIR, each entry with what LOOKUP would say about it. */
export function readdirplus(session: Session, request: Request, reply: Reply): number {
  const { view, lookups } = session;
  const limit = Math.min(request.u32(16), session.maxPayload);
  let at = 0;
  view.readdir(request.nodeid, request.u64(8), (name, ino, mode, cookie) => {
    const direntAt = at + ENTRY_OUT_BYTES;
    if (direntAt + DIRENT_BYTES + name.length > limit) return false;
    const end = reply.dirent(direntAt, limit, name, ino, mode, cookie);
    if (end < 0) return false;
    if (name === '.' || name === '..') {
      reply.blankEntry(at);
    } else {
      reply.entry(at, view.getattr(ino));
      lookups.add(ino);
    }
    at = end;
    return true;
  });
  return at;
}
