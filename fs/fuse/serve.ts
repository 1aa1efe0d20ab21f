import type { LastRequest, View } from '../view/view.ts';
import { answerAgain } from './again.ts';
import { awaitDevice, writeDevice } from './device.ts';
import { ERRNO, errnoName, errnoOfError } from './errno.ts';
import { Lookups } from './lookups.ts';
import { seekNow } from './inode.ts';
import { operationTable } from './operations.ts';
import { OPCODE, OPCODE_COUNT, OPCODE_NAMES, UNIQUE_RESEND_HIGH } from './protocol.ts';
import { RequestReader } from './reader.ts';
import { Reply } from './reply.ts';
import { Request } from './request.ts';
import {
  type Agreement,
  newSession,
  NO_REPLY,
  type Operation,
  type ServeHooks,
  type ServeSettings,
  type Session,
} from './session.ts';

/** The loop of one FUSE connection: reads a request from the device, does it, answers. One thread, one request at a time. */
export class Server {
  readonly session: Session;
  private readonly fd: number;
  private readonly request = new Request();
  private readonly reply = new Reply();
  private readonly operations: readonly Operation[];
  /** Requests that were answered, or will be by somebody else. */
  answered = 0;
  /** A request that another process did and may not have answered. */
  private readonly done: LastRequest | undefined;

  /**
   * `fd` is an open /dev/fuse that is mounted, or about to be; its owner closes it after `run`. `agreement` is not null when another process served
   * it before, and has ended.
   */
  constructor(fd: number, view: View, settings: ServeSettings, hooks: ServeHooks, agreement: Agreement | null) {
    this.fd = fd;
    this.session = newSession(view, new Lookups(agreement !== null), settings, hooks);
    this.operations = operationTable(settings.readOnly);
    if (agreement === null) return;
    this.session.maxPayload = agreement.maxPayload;
    this.session.setxattrExt = agreement.setxattrExt;
    this.done = view.inherited;
  }

  /**
   * Serves until the filesystem is unmounted or the connection aborted, or `attend` says stop. `other` is a descriptor that `attend` is to be called for when there is
   * something to read from it (-1: none). Throws when the device fails otherwise.
   */
  run(other = -1): void {
    const { request, session } = this;
    const { hooks } = session;
    // The kernel puts requests into its pages; a kill in that moment would fail the request if one had to be found first.
    request.bytes.fill(0);
    const reader = new RequestReader(this.fd, other);
    const patienceMs = (): number => hooks.patienceMs();
    while (hooks.attend()) {
      if (hooks.hasWork()) {
        const isIdle = awaitDevice(this.fd, 0) === 0;
        hooks.work(isIdle);
        if (isIdle) continue;
      }
      const received = reader.next(request.bytes, patienceMs);
      if (received > 0) {
        if (!request.parse(received)) throw new Error(`the FUSE device gave ${received} bytes that are no request`);
        this.answer();
      } else if (!goesOn(received)) return;
    }
  }

  /** The kernel has written back what the LSEEK of this number asked for: answers it. */
  resumeSeek(id: number): void {
    const { session, reply } = this;
    const seek = session.seeks.get(id);
    if (seek === undefined) return;
    session.seeks.delete(id);
    let result: number;
    try {
      result = seekNow(session, seek, reply);
    } catch (error) {
      result = -this.errnoOf(error, OPCODE.LSEEK, seek.ino);
    }
    this.send(OPCODE.LSEEK, seek.uniqueLow, seek.uniqueHigh, result);
  }

  private answer(): void {
    const { request, reply, session } = this;
    const { opcode, uniqueHigh } = request;
    const inHand = session.view.request;
    let result: number;
    this.answered++;
    if (opcode < OPCODE_COUNT) session.counts[opcode]!++;
    inHand.low = request.uniqueLow;
    inHand.high = (uniqueHigh & ~UNIQUE_RESEND_HIGH) >>> 0;
    try {
      const operation = this.operations[opcode];
      const again = uniqueHigh < UNIQUE_RESEND_HIGH ? undefined : this.comesAgain();
      result = again ?? (operation === undefined ? -ERRNO.ENOSYS : operation(session, request, reply));
    } catch (error) {
      result = -this.errnoOf(error, opcode, request.nodeid);
    }
    inHand.low = inHand.high = 0;
    if (result !== NO_REPLY) this.send(opcode, request.uniqueLow, request.uniqueHigh, result);
  }

  /** The answer of the request in hand, which came before, when it is the one that was done then; undefined: it is still to be done. */
  private comesAgain(): number | undefined {
    const { done, session, request, reply } = this;
    const { low, high } = session.view.request;
    // What went before may have taken setuid away, and not come to tell the kernel.
    session.hooks.forgetAttributes(targetOf(request));
    return done?.low === low && done.high === high ? answerAgain(session, request, reply, done.result) : undefined;
  }

  /** `result`: the length of the payload in the reply, or the negative of an errno. */
  private send(opcode: number, uniqueLow: number, uniqueHigh: number, result: number): void {
    const { fd, reply } = this;
    const errno = result < 0 ? -result : 0;
    const length = reply.finish(uniqueLow, uniqueHigh, errno, errno === 0 ? result : 0);
    const written = writeDevice(fd, reply.bytes, length);
    // ENOENT: the caller was killed meanwhile. ENODEV and ECONNABORTED: unmounted; the next read says so too.
    if (written < 0 && -written !== ERRNO.ENOENT && -written !== ERRNO.ENODEV && -written !== ERRNO.ECONNABORTED) {
      this.session.hooks.report(`answering ${OPCODE_NAMES[opcode]} failed: ${errnoName(-written)}`);
    }
  }

  /** The path of an inode, as far as it can be found: where one thing is damaged, more may be. */
  private nameOf(ino: number): string {
    try {
      const path = this.session.view.pathOf(ino);
      if (path !== undefined) return `${Buffer.from(path, 'latin1').toString()} (inode ${ino})`;
    } catch {
      // Its number has to do.
    }
    return `inode ${ino}`;
  }

  private errnoOf(error: unknown, opcode: number, ino: number): number {
    const errno = errnoOfError(error);
    if (errno === undefined || errno === ERRNO.EIO) {
      const name = OPCODE_NAMES[opcode] ?? `opcode ${opcode}`;
      this.session.hooks.report(`${name} of ${this.nameOf(ino)}: ${describe(error)}`);
    }
    return errno ?? ERRNO.EIO;
  }
}

/** The inode that a request changes, if it changes one. */
function targetOf(request: Request): number {
  const { opcode } = request;
  const isCopy = opcode === OPCODE.COPY_FILE_RANGE || opcode === OPCODE.COPY_FILE_RANGE_64;
  return isCopy ? request.u64(16) : request.nodeid;
}

/** Whether a failed read of the device is to be tried again; false when the connection has ended. */
function goesOn(result: number): boolean {
  switch (-result) {
    case ERRNO.EINTR:
    case ERRNO.EAGAIN:
    // The request was interrupted before it was read.
    case ERRNO.ENOENT:
      return true;
    // Unmounted, or aborted.
    case ERRNO.ENODEV:
    case ERRNO.ECONNABORTED:
      return false;
    default:
      throw new Error(`reading the FUSE device failed: ${errnoName(-result)}`);
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { message } = error;
  const because = error.cause instanceof Error ? error.cause.message : '';
  const cause = message.includes(because) ? '' : ` (${because})`;
  return error.name === 'PgError' || error.name === 'FsError' ? message + cause : (error.stack ?? message);
}
