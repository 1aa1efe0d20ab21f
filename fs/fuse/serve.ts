import type { View } from '../view/view.ts';
import { awaitDevice, writeDevice } from './device.ts';
import { ERRNO, errnoName, errnoOfError } from './errno.ts';
import { Lookups } from './lookups.ts';
import { seekNow } from './inode.ts';
import { operationTable } from './operations.ts';
import { OPCODE, OPCODE_COUNT, OPCODE_NAMES } from './protocol.ts';
import { RequestReader } from './reader.ts';
import { Reply } from './reply.ts';
import { Request } from './request.ts';
import { newSession, NO_REPLY, type Operation, type ServeHooks, type ServeSettings, type Session } from './session.ts';

/** The loop of one FUSE connection: reads a request from the device, does it, answers. One thread, one request at a time. */
export class Server {
  readonly session: Session;
  private readonly fd: number;
  private readonly request = new Request();
  private readonly reply = new Reply();
  private readonly operations: readonly Operation[];

  /** `fd` is an open /dev/fuse that is mounted, or about to be; its owner closes it after `run`. */
  constructor(fd: number, view: View, settings: ServeSettings, hooks: ServeHooks) {
    this.fd = fd;
    this.session = newSession(view, new Lookups(), settings, hooks);
    this.operations = operationTable(settings.readOnly);
  }

  /** Serves until the filesystem is unmounted or the connection aborted, or `attend` says stop. Throws when the device fails otherwise. */
  run(): void {
    const { request, session } = this;
    const reader = new RequestReader(this.fd);
    while (session.hooks.attend()) {
      if (session.hooks.hasWork()) {
        const isIdle = awaitDevice(this.fd, 0) === 0;
        session.hooks.work(isIdle);
        if (isIdle) continue;
      }
      const received = reader.next(request.bytes);
      if (received > 0) {
        if (!request.parse(received)) throw new Error(`the FUSE device gave ${received} bytes that are no request`);
        this.answer();
      } else if (!goesOn(received)) return;
    }
  }

  /** The kernel has written back what the LSEEK that waits longest asked for: answers it. */
  resumeSeek(): void {
    const { session, reply } = this;
    const seek = session.seeks.shift();
    if (seek === undefined) return;
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
    const { opcode } = request;
    let result: number;
    if (opcode < OPCODE_COUNT) session.counts[opcode]!++;
    try {
      const operation = this.operations[opcode];
      result = operation === undefined ? -ERRNO.ENOSYS : operation(session, request, reply);
    } catch (error) {
      result = -this.errnoOf(error, opcode, request.nodeid);
    }
    if (result !== NO_REPLY) this.send(opcode, request.uniqueLow, request.uniqueHigh, result);
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
