import type { Caller, View } from '../view/view.ts';
import type { Lookups } from './lookups.ts';
import { OPCODE_COUNT } from './protocol.ts';
import type { Reply } from './reply.ts';
import type { Request } from './request.ts';

/** What an operation returns instead of a payload length when the kernel expects no answer, or a later one. */
export const NO_REPLY = 2 ** 30;

/** What the mount asks of its kernel and of the loop. */
export interface ServeSettings {
  readOnly: boolean;
  /** Let the kernel keep written pages and write them back later (FUSE_WRITEBACK_CACHE). */
  writeback: boolean;
}

/** What lies around the loop and is not the protocol's business: the syncer, the controller, the log of the shim. */
export interface ServeHooks {
  /**
   * Make everything acknowledged so far durable, then answer the request of this `unique`. Returns true when it is durable already
   * (the loop answers at once), false when the syncer will answer. Throws what the caller gets as an errno.
   */
  sync(uniqueLow: number, uniqueHigh: number): boolean;
  /** The kernel is to write back its dirty pages of this inode; `Server.resumeSeek` is called with this number when it has. */
  writeBack(seek: number, ino: number): void;
  /** The kernel is to ask again for the attributes of this inode. */
  forgetAttributes(ino: number): void;
  /** Called before every read of the device, and so after a wake: does what was asked for meanwhile. False ends the loop. */
  attend(): boolean;
  /**
   * Called when `attend` has said that the loop goes on: whether there is something to do beside the requests.
   */
  hasWork(): boolean;
  /** Does some of it; `isIdle`: no request waits. */
  work(isIdle: boolean): void;
  /** How long the loop may sleep before it attends again, -1: until a request comes or it is woken. */
  patienceMs(): number;
  /** INIT was answered like this; whoever serves the connection next must know it. */
  agreed(agreement: Agreement): void;
  /** Something that an errno does not tell: a corrupt sector, a bug. */
  report(message: string): void;
}

/** What the kernel and we agreed on in INIT and is needed later. */
export interface Agreement {
  /** Largest payload of one READ or WRITE. */
  maxPayload: number;
  /** SETXATTR comes in its longer form. */
  setxattrExt: boolean;
  /** Whether unanswered requests can be had again, by another process (FUSE_HAS_RESEND). */
  resends: boolean;
}

/** An LSEEK that waits for the kernel's dirty pages. */
export interface Seek {
  uniqueLow: number;
  uniqueHigh: number;
  ino: number;
  offset: number;
  whence: 'data' | 'hole';
}

/** What the operations of one connection share. */
export interface Session {
  readonly view: View;
  readonly lookups: Lookups;
  readonly settings: ServeSettings;
  readonly hooks: ServeHooks;
  /** The caller of the request in hand; one object, overwritten by the next request. */
  readonly caller: Caller & { umask: number };
  /** By the number that `writeBack` was told. */
  readonly seeks: Map<number, Seek>;
  /** Requests by opcode. */
  readonly counts: Float64Array;
  bytesRead: number;
  bytesWritten: number;
  /** Largest payload of one READ or WRITE, as negotiated. */
  maxPayload: number;
  /** SETXATTR comes in its longer form. */
  setxattrExt: boolean;
}

/** A session that has seen nothing. */
export function newSession(view: View, lookups: Lookups, settings: ServeSettings, hooks: ServeHooks): Session {
  return {
    view,
    lookups,
    settings,
    hooks,
    caller: { uid: 0, gid: 0, pid: 0, umask: 0 },
    seeks: new Map(),
    counts: new Float64Array(OPCODE_COUNT),
    bytesRead: 0,
    bytesWritten: 0,
    maxPayload: 0,
    setxattrExt: false,
  };
}

/**
 * One operation of the protocol: reads its arguments from `request`, builds its answer in `reply`, returns the payload's length,
 * the negative of an errno, or NO_REPLY. What the view throws becomes the answer's errno.
 */
export type Operation = (session: Session, request: Request, reply: Reply) => number;

/** The request's caller, with the umask that the kernel left to us (0 where the operation has none). */
export function callerOf(session: Session, request: Request, umask = 0): Caller {
  const { caller } = session;
  caller.uid = request.uid;
  caller.gid = request.gid;
  caller.pid = request.pid;
  caller.umask = umask;
  return caller;
}
