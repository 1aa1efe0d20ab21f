import { OPCODE } from './protocol.ts';
import { entered, openedTemporary } from './namespace.ts';
import type { Reply } from './reply.ts';
import type { Request } from './request.ts';
import type { Session } from './session.ts';

/**
 * The answer of a request that was done by the process that served before and comes again, since that process was killed before it could answer. Nothing was done
 * after it: one thread does one request after the other. So the answer follows from the files as they are, and from `result`: the inode that was made or the
 * bytes that were copied. Returns what an operation returns; undefined for requests that change nothing but an access time, and are simply done again.
 */
export function answerAgain(session: Session, request: Request, reply: Reply, result: number): number | undefined {
  const { view } = session;
  switch (request.opcode) {
    case OPCODE.MKNOD:
    case OPCODE.MKDIR:
    case OPCODE.SYMLINK:
      return entered(session, reply, view.getattr(result));
    case OPCODE.LINK:
      return entered(session, reply, view.getattr(request.u64(0)));
    case OPCODE.TMPFILE:
      return openedTemporary(session, reply, view.getattr(result));
    case OPCODE.SETATTR:
      return reply.attrOut(view.getattr(request.nodeid));
    case OPCODE.WRITE:
      reply.u32(0, request.payload(40, request.u32(16)).length);
      reply.u32(4, 0);
      return 8;
    case OPCODE.COPY_FILE_RANGE:
    case OPCODE.COPY_FILE_RANGE_64:
      reply.u64(0, result);
      return 8;
    case OPCODE.UNLINK:
    case OPCODE.RMDIR:
    case OPCODE.RENAME:
    case OPCODE.RENAME2:
    case OPCODE.FALLOCATE:
    case OPCODE.SETXATTR:
    case OPCODE.REMOVEXATTR:
      return 0;
    default:
      return undefined;
  }
}
