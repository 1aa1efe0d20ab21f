import { ERRNO } from './errno.ts';
import {
  INIT_FLAG,
  INIT_FLAG2,
  INIT_OUT_BYTES,
  MAX_PAGES,
  MAX_PAYLOAD_BYTES,
  OLDEST_MINOR,
  PROTOCOL_MAJOR,
  PROTOCOL_MINOR,
} from './protocol.ts';
import type { Reply } from './reply.ts';
import type { Request } from './request.ts';
import type { Session } from './session.ts';

/** Asynchronous requests (read-ahead, write-back) that the kernel may have in flight, and where it calls the device congested. */
const MAX_BACKGROUND = 64;
const CONGESTION_THRESHOLD = 48;

/**
 * What we ask for when the kernel offers it. Not asked for, and why:
 * ATOMIC_O_TRUNC: there is no OPEN that could carry it (NO_OPEN_SUPPORT); the kernel sends SETATTR instead.
 * POSIX_LOCKS, FLOCK_LOCKS: locks are the kernel's own, and survive a change of server.
 * AUTO_INVAL_DATA: nobody changes a file behind the kernel's back.
 * ASYNC_DIO: after an asynchronous direct write the kernel drops no pages that were read meanwhile: they would stay in its cache as they were before.
 */
const WANTED =
  INIT_FLAG.ASYNC_READ |
  INIT_FLAG.EXPORT_SUPPORT |
  INIT_FLAG.BIG_WRITES |
  INIT_FLAG.DONT_MASK |
  INIT_FLAG.DO_READDIRPLUS |
  INIT_FLAG.READDIRPLUS_AUTO |
  INIT_FLAG.NO_OPEN_SUPPORT |
  INIT_FLAG.PARALLEL_DIROPS |
  INIT_FLAG.POSIX_ACL |
  INIT_FLAG.ABORT_ERROR |
  INIT_FLAG.MAX_PAGES |
  INIT_FLAG.CACHE_SYMLINKS |
  INIT_FLAG.NO_OPENDIR_SUPPORT |
  INIT_FLAG.EXPLICIT_INVAL_DATA |
  INIT_FLAG.HANDLE_KILLPRIV_V2 |
  INIT_FLAG.SETXATTR_EXT |
  INIT_FLAG.INIT_EXT;
const WANTED2 = INIT_FLAG2.DIRECT_IO_ALLOW_MMAP | INIT_FLAG2.HAS_RESEND | INIT_FLAG2.ALLOW_IDMAP;

/** FUSE_INIT: agrees on version, features and sizes. EPROTO for a kernel older than 7.31 (Linux 5.4). */
export function init(session: Session, request: Request, reply: Reply): number {
  const major = request.u32(0);
  const minor = request.u32(4);
  reply.zero(0, INIT_OUT_BYTES);
  reply.u32(0, PROTOCOL_MAJOR);
  reply.u32(4, PROTOCOL_MINOR);
  // A kernel with a larger major version takes our answer as the request to come again with ours.
  if (major > PROTOCOL_MAJOR) return INIT_OUT_BYTES;
  if (major < PROTOCOL_MAJOR || minor < OLDEST_MINOR) {
    session.hooks.report(
      `this kernel speaks FUSE ${major}.${minor}; ${PROTOCOL_MAJOR}.${OLDEST_MINOR} (Linux 5.4) is the oldest that works`,
    );
    return -ERRNO.EPROTO;
  }
  const offered = request.u32(12);
  const wanted = session.settings.writeback ? WANTED | INIT_FLAG.WRITEBACK_CACHE : WANTED;
  const offered2 = (offered & INIT_FLAG.INIT_EXT) !== 0 ? request.u32(16) : 0;
  session.maxPayload = (offered & INIT_FLAG.MAX_PAGES) !== 0 ? MAX_PAYLOAD_BYTES : 128 << 10;
  session.setxattrExt = (offered & INIT_FLAG.SETXATTR_EXT) !== 0;
  reply.u32(4, Math.min(minor, PROTOCOL_MINOR));
  reply.u32(8, request.u32(8));
  reply.u32(12, offered & wanted);
  reply.u16(16, MAX_BACKGROUND);
  reply.u16(18, CONGESTION_THRESHOLD);
  reply.u32(20, session.maxPayload);
  reply.u32(24, 1);
  reply.u16(28, MAX_PAGES);
  reply.u32(32, offered2 & WANTED2);
  const { maxPayload, setxattrExt } = session;
  session.hooks.agreed({ maxPayload, setxattrExt, resends: (offered2 & INIT_FLAG2.HAS_RESEND) !== 0 });
  return INIT_OUT_BYTES;
}
