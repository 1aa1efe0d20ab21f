import { closeSync, openSync, rmSync } from 'node:fs';
import { createConnection, type Server, type Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { fromErrorData, type PgErrorData } from '../mdm/error.ts';
import type { NamespaceClaim } from '../fs/log/claim.ts';
import type { ServerProgram } from '../fs/server-process.ts';
import type { IoBudget } from './record.ts';
import { containerRunDir, type Roots } from '../store/paths.ts';
import { badRequest } from './control-request.ts';
import type { Phase } from './trace.ts';

/**
 * The protocol between a command and a container's shim, over a unix socket: a request is one line of JSON, answered by one line
 * of JSON; any number follow one another on a connection. After the answer to `start` with streams, `attach` or `exec` the connection
 * carries frames instead, both ways, until it is closed. See docs/protocols/control.md.
 */
export type Request =
  | { op: 'start'; roots: Roots; id: string; attach: AttachOptions | null }
  | { op: 'attach'; attach: AttachOptions }
  | { op: 'exec'; exec: ExecOptions; attach: AttachOptions | null }
  | { op: 'state' }
  | { op: 'wait' }
  | { op: 'kill'; signal: number }
  | { op: 'stop'; signal: number | null; timeoutSec: number | null }
  | { op: 'stats' }
  | { op: 'pids' }
  | { op: 'commit' }
  | { op: 'changes' }
  /** A claim about the files, its root as hex, to append to the log. */
  | { op: 'namespace'; claim: Omit<NamespaceClaim, 'root'> & { root: string } }
  | { op: 'checkpoint' }
  /** Cleans the log now, whether it pays or not. */
  | { op: 'clean' }
  | { op: 'budget'; budget: IoBudget | null }
  /** Another process is to serve the root from now on, of this program. */
  | { op: 'replaceFs'; program: ServerProgram }
  | { op: 'root' };

/** What a command wants of a container's streams. */
export interface AttachOptions {
  stdin: boolean;
  stdout: boolean;
  stderr: boolean;
  /** Size of the command's terminal, if it is one. */
  size?: { rows: number; columns: number };
  /** Close the container's stdin when this client's ends. */
  stdinOnce?: boolean;
}

export interface ExecOptions {
  args: string[];
  tty: boolean;
  stdin: boolean;
  user: string | null;
  workdir: string | null;
  env: string[];
  privileged: boolean;
  /** All of what it writes is kept when it exits with 0, or nothing. */
  atomic?: boolean;
}

export type Response = { ok: true; result: unknown } | { ok: false; error: PgErrorData };

/** Frames of a stream: one byte of type, four of length (big-endian), then that many bytes. */
export const FRAME = { stdin: 0, stdout: 1, stderr: 2, resize: 3, stdinEnd: 4, end: 5 } as const;
export const FRAME_HEADER_BYTES = 5;
const FRAME_MAX_BYTES = 1 << 24;

/** The last frame of a stream, as JSON. */
export interface StreamEnd {
  exitCode: number;
  error?: PgErrorData;
  /** With PG_TRACE: what took how long in the shim. */
  trace?: Phase[];
}

export function frame(type: number, payload: Uint8Array): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_HEADER_BYTES + payload.length);
  bytes[0] = type;
  bytes.writeUInt32BE(payload.length, 1);
  bytes.set(payload, FRAME_HEADER_BYTES);
  return bytes;
}

export const jsonFrame = (type: number, value: unknown): Buffer => frame(type, Buffer.from(JSON.stringify(value)));

/**
 * Reads one side of a connection: lines until `frames()` is called, frames from then on. Bytes that came early are kept.
 * What it is given by the socket it hands over at once; backpressure is the socket's pause and resume.
 */
export class ConnectionReader {
  private pending: Buffer = Buffer.alloc(0);
  private onLine: ((line: string) => void) | undefined;
  private onFrame: FrameHandler | undefined;
  private readonly lineMaxBytes: number;

  /** `onBroken` is told of the first thing that is neither a line nor a frame, or that these handlers throw of; nothing more is read then. */
  constructor(
    socket: Socket,
    onLine: (line: string) => void,
    onBroken: (error: Error) => void,
    lineMaxBytes = Number.MAX_SAFE_INTEGER,
  ) {
    this.onLine = onLine;
    this.lineMaxBytes = lineMaxBytes;
    const onData = (chunk: Buffer): void => {
      try {
        this.take(chunk);
      } catch (error) {
        socket.off('data', onData).resume();
        this.pending = Buffer.alloc(0);
        onBroken(error as Error);
      }
    };
    socket.on('data', onData);
  }

  /** From the next byte on there are frames. */
  frames(onFrame: FrameHandler): void {
    this.onLine = undefined;
    this.onFrame = onFrame;
    this.take(Buffer.alloc(0));
  }

  private take(chunk: Buffer): void {
    this.pending = this.pending.length === 0 ? chunk : Buffer.concat([this.pending, chunk]);
    for (;;) {
      if (this.onLine !== undefined) {
        const end = this.pending.indexOf(10);
        if ((end < 0 ? this.pending.length : end) > this.lineMaxBytes)
          throw badRequest(`it has more than ${this.lineMaxBytes} bytes`);
        if (end < 0) return;
        const line = this.pending.toString('utf8', 0, end);
        this.pending = this.pending.subarray(end + 1);
        this.onLine(line);
      } else {
        if (this.pending.length < FRAME_HEADER_BYTES) return;
        const length = this.pending.readUInt32BE(1);
        if (length > FRAME_MAX_BYTES) throw badRequest(`a frame of ${length} bytes`);
        if (this.pending.length < FRAME_HEADER_BYTES + length) return;
        const payload = this.pending.subarray(FRAME_HEADER_BYTES, FRAME_HEADER_BYTES + length);
        const type = this.pending[0]!;
        this.pending = this.pending.subarray(FRAME_HEADER_BYTES + length);
        this.onFrame?.(type, payload);
      }
    }
  }
}

const SOCKET_NAME = 'shim.sock';
const SUN_PATH_MAX_BYTES = 107;

/**
 * A unix socket's address must be short (unix(7)) but directories need not be: the directory is opened and the socket named
 * through /proc/self/fd. `action` runs with the path to use.
 */
export function withSocketPath<T>(path: string, action: (usable: string) => T): T {
  if (Buffer.byteLength(path) <= SUN_PATH_MAX_BYTES) return action(path);
  const fd = openSync(dirname(path), 'r');
  try {
    return action(`/proc/self/fd/${fd}/${basename(path)}`);
  } finally {
    closeSync(fd);
  }
}

export const shimSocketPath = (roots: Roots, id: string): string => join(containerRunDir(roots, id), SOCKET_NAME);

/**
 * Listens where the commands will look for this container's shim. bind(2) happens before it returns. The container's lock is held: a socket
 * that is there already is a dead shim's.
 */
export function listenControl(roots: Roots, id: string, server: Server): Promise<void> {
  return withSocketPath(
    shimSocketPath(roots, id),
    (path) =>
      new Promise((resolve, reject) => {
        rmSync(path, { force: true });
        server.once('error', reject);
        server.listen(path, () => resolve());
      }),
  );
}

export type FrameHandler = (type: number, payload: Buffer) => void;

interface Waiter {
  resolve(value: unknown): void;
  reject(error: Error): void;
  onFrame: FrameHandler | undefined;
}

/** A command's end of a connection. */
export class ControlClient {
  readonly socket: Socket;
  private readonly reader: ConnectionReader;
  private waiting: Waiter[] = [];
  private ended: Error | undefined;

  constructor(socket: Socket) {
    this.socket = socket;
    const onLine = (line: string): void => {
      const response = JSON.parse(line) as Response;
      const waiter = this.waiting.shift();
      if (response.ok) {
        // Frames may follow in the same packet.
        if (waiter?.onFrame !== undefined) this.reader.frames(waiter.onFrame);
        waiter?.resolve(response.result);
      } else waiter?.reject(fromErrorData(response.error));
    };
    this.reader = new ConnectionReader(socket, onLine, (error) => socket.destroy(error));
    socket.on('error', (error) => this.end(error));
    socket.on('close', () => this.end(new Error('the connection to the container ended')));
  }

  private end(error: Error): void {
    this.ended ??= error;
    for (const waiter of this.waiting.splice(0)) waiter.reject(Object.assign(this.ended, { shimGone: true }));
  }

  /**
   * Sends a request; resolves to its result, rejects with the shim's PgError, or with an error marked `shimGone`.
   * With `onFrame` the request opens a stream: whatever follows the answer goes there.
   */
  request(request: Request, onFrame?: FrameHandler): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.ended !== undefined) return reject(Object.assign(this.ended, { shimGone: true }));
      this.waiting.push({ resolve, reject, onFrame });
      this.socket.write(`${JSON.stringify(request)}\n`);
    });
  }

  close(): void {
    this.socket.destroy();
  }
}

/** Connects to a container's shim; undefined when none is there. */
export async function connectShim(roots: Roots, id: string): Promise<ControlClient | undefined> {
  try {
    return await withSocketPath(shimSocketPath(roots, id), connect);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (['ENOENT', 'ECONNREFUSED', 'ENOTDIR', 'ECONNRESET'].includes(code)) return undefined;
    throw error;
  }
}

function connect(path: string): Promise<ControlClient> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(new ControlClient(socket));
    });
  });
}
