import { PgError } from '../mdm/error.ts';
import { type AttachOptions, type ControlClient, FRAME, frame, jsonFrame, type StreamEnd } from '../runtime/control.ts';
import type { Phase } from '../runtime/trace.ts';

const CTRL_P = 0x10;
const CTRL_Q = 0x11;
const NO_PAYLOAD = new Uint8Array(0);

/** How the command's own streams are tied to a container's or an exec's. */
export interface SessionOptions {
  tty: boolean;
  stdin: boolean;
  /** Passes a signal that came to this command on to the process; undefined: signals have their usual effect here. */
  forwardSignal?: (signal: NodeJS.Signals) => void;
  /** Ctrl-P Ctrl-Q leaves the container running. */
  detachable: boolean;
}

/** What a session came to: the process's end, or the user's leaving. */
export type SessionResult = { detached: true } | { detached: false; end: StreamEnd };

const FORWARDED: NodeJS.Signals[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGCONT'];

/**
 * A command's standard streams while it is attached. Made before the request that opens the stream (`options` and `onFrame` go there), and
 * begun with the connection once that is answered.
 */
export class Session {
  readonly options: AttachOptions;
  readonly result: Promise<SessionResult>;
  private readonly how: SessionOptions;
  private client: ControlClient | undefined;
  private settle: (result: SessionResult) => void = () => {};
  private fail: (error: Error) => void = () => {};
  private sawCtrlP = false;
  private readonly undo: (() => void)[] = [];

  constructor(how: SessionOptions) {
    this.how = how;
    this.options = { stdin: how.stdin, stdout: true, stderr: true, stdinOnce: true };
    if (how.tty && process.stdout.isTTY) this.options.size = terminalSize();
    this.result = new Promise((resolve, reject) => {
      this.settle = resolve;
      this.fail = reject;
    });
    // Whoever gives up before it waits for the result must not be told twice.
    this.result.catch(() => {});
  }

  /** For `startContainer`, `attachContainer` and `execContainer`. */
  readonly onFrame = (type: number, payload: Buffer): void => {
    if (type === FRAME.stdout) process.stdout.write(payload);
    else if (type === FRAME.stderr) process.stderr.write(payload);
    else if (type === FRAME.end) this.settle({ detached: false, end: JSON.parse(payload.toString()) as StreamEnd });
  };

  /** Before the stream is asked for: the terminal becomes raw, so that what is typed at the first output already goes to the process. */
  async prepare(): Promise<void> {
    const { stdin } = process;
    if (!this.how.tty || !this.how.stdin || !stdin.isTTY) return;
    // Loaded only here: most commands have no terminal to prepare.
    const { passOutputRaw } = await import('../runtime/native.ts');
    stdin.setRawMode(true);
    passOutputRaw(stdin.fd);
    this.undo.push(() => stdin.setRawMode(false));
  }

  /** The stream is open: input, signals and sizes are passed on. */
  begin(client: ControlClient): void {
    this.client = client;
    client.socket.on('close', () => {
      this.fail(
        new PgError('SHIM_LOST', 'the connection to the container was lost: its shim has ended', {
          hint: 'pg ps -a shows what became of it',
        }),
      );
    });
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      // The reader of our output has gone; the container goes on.
      if (error.code === 'EPIPE') this.settle({ detached: true });
    });
    if (this.how.tty) this.followSize();
    if (this.how.stdin) this.passInput();
    if (this.how.forwardSignal !== undefined) this.passSignals(this.how.forwardSignal);
  }

  /** Gives the terminal back. */
  end(): void {
    for (const action of this.undo.splice(0)) action();
    process.stdin.pause();
    this.client?.close();
  }

  private followSize(): void {
    const send = (): void => void this.client?.socket.write(jsonFrame(FRAME.resize, terminalSize()));
    if (!process.stdout.isTTY) return;
    send();
    process.stdout.on('resize', send);
    this.undo.push(() => process.stdout.off('resize', send));
  }

  private passInput(): void {
    const { stdin } = process;
    const socket = this.client!.socket;
    stdin.on('data', (chunk: Buffer) => {
      const bytes = this.how.detachable && this.how.tty ? this.watchDetach(chunk) : chunk;
      if (bytes === undefined) return this.settle({ detached: true });
      if (bytes.length > 0 && !socket.write(frame(FRAME.stdin, bytes))) {
        stdin.pause();
        socket.once('drain', () => stdin.resume());
      }
    });
    stdin.on('end', () => socket.write(frame(FRAME.stdinEnd, NO_PAYLOAD)));
    stdin.on('error', () => socket.write(frame(FRAME.stdinEnd, NO_PAYLOAD)));
  }

  /** What of a chunk is for the container; undefined once Ctrl-P Ctrl-Q has been typed. A Ctrl-P waits for what comes after it. */
  private watchDetach(chunk: Buffer): Buffer | undefined {
    const out: number[] = [];
    for (const byte of chunk) {
      if (this.sawCtrlP && byte === CTRL_Q) return undefined;
      if (this.sawCtrlP) out.push(CTRL_P);
      this.sawCtrlP = byte === CTRL_P;
      if (!this.sawCtrlP) out.push(byte);
    }
    return Buffer.from(out);
  }

  private passSignals(forward: (signal: NodeJS.Signals) => void): void {
    for (const signal of FORWARDED) {
      process.on(signal, forward);
      this.undo.push(() => process.off(signal, forward));
    }
  }
}

function terminalSize(): { rows: number; columns: number } {
  return { rows: process.stdout.rows ?? 24, columns: process.stdout.columns ?? 80 };
}

/** With PG_TRACE=1: where the time went, on stderr. */
export function printTrace(phases: Phase[]): void {
  if (!process.env['PG_TRACE']) return;
  void import('../runtime/trace.ts').then(({ formatTrace }) =>
    process.stderr.write(formatTrace(performance.timeOrigin, phases)),
  );
}
