import { Socket } from 'node:net';
import { closeSync, createWriteStream } from 'node:fs';
import { ReadStream } from 'node:tty';
import type { Readable, Writable } from 'node:stream';
import { FRAME, frame, jsonFrame, type AttachOptions, type StreamEnd } from '../control.ts';
import { parseTerminalSize } from '../control-request.ts';
import { duplicate, pipe, setTerminalSize } from '../native.ts';
import type { OutputLog } from './output-log.ts';
import type { Stdio } from './oci.ts';

type StreamName = 'stdout' | 'stderr';

/** More than this waiting for a slow client, and the process's output is not read on until it has caught up. */
const CLIENT_PENDING_MAX_BYTES = 1 << 20;

/**
 * The standard streams of one process (the container's own, or an exec's): pipes or a terminal on one side, the log and any
 * number of attached clients on the other.
 */
export class ProcessStreams {
  private readonly clients = new Map<Socket, AttachOptions>();
  private readonly log: OutputLog | undefined;
  private readonly sources: { name: StreamName; source: Readable }[] = [];
  private readonly drained: Promise<void>[] = [];
  private input: Writable | undefined;
  private terminalFd = -1;
  /** Chunks passed on so far, and sources that wait for a slow client or disk. */
  private passed = 0;
  private blocked = 0;

  constructor(log: OutputLog | undefined) {
    this.log = log;
  }

  /** Makes pipes. `give` are the descriptors for the process, which must be closed here (`closeGiven`) once it has them. */
  openPipes(withInput: boolean): { give: Stdio; closeGiven(): void; adopt(): void; abandon(): void } {
    const out = pipe();
    const err = pipe();
    const input = withInput ? pipe() : undefined;
    const given = [out.write, err.write, ...(input === undefined ? [] : [input.read])];
    const kept = [out.read, err.read, ...(input === undefined ? [] : [input.write])];
    return {
      give: [input?.read ?? 'ignore', out.write, err.write],
      closeGiven: () => given.forEach((fd) => closeSync(fd)),
      adopt: () => {
        this.addSource('stdout', new Socket({ fd: out.read, readable: true, writable: false }));
        this.addSource('stderr', new Socket({ fd: err.read, readable: true, writable: false }));
        if (input !== undefined) this.setInput(new Socket({ fd: input.write, readable: false, writable: true }));
      },
      abandon: () => kept.forEach((fd) => closeSync(fd)),
    };
  }

  /** Takes the master of the process's terminal. */
  openTerminal(fd: number): void {
    this.terminalFd = fd;
    // Reading and writing are separate: the reader is a libuv terminal, the writer a descriptor of its own.
    const reader = new ReadStream(fd);
    this.addSource('stdout', reader);
    this.setInput(createWriteStream('', { fd: duplicate(fd) }));
  }

  resize(rows: number, columns: number): void {
    if (this.terminalFd >= 0) setTerminalSize(this.terminalFd, rows, columns);
  }

  /** From now on the client gets the output; what it sends as stdin goes to the process. */
  attach(client: Socket, options: AttachOptions): void {
    this.clients.set(client, options);
    if (options.size !== undefined) this.resize(options.size.rows, options.size.columns);
    client.on('close', () => this.clients.delete(client));
  }

  /** A frame from an attached client. */
  take(client: Socket, type: number, payload: Buffer): void {
    const options = this.clients.get(client);
    if (options === undefined) return;
    if (type === FRAME.stdin && options.stdin && this.input !== undefined) {
      if (!this.input.write(Buffer.from(payload))) {
        client.pause();
        this.input.once('drain', () => client.resume());
      }
    } else if (type === FRAME.stdinEnd && options.stdin && options.stdinOnce === true) {
      if (this.terminalFd < 0) this.input?.end();
    } else if (type === FRAME.resize) {
      const size = parseTerminalSize(payload);
      this.resize(size.rows, size.columns);
    }
  }

  /** Resolves when the process's output has ended, or none has come for `timeoutMs` though it could: a descendant may hold it open. */
  async end(timeoutMs: number): Promise<void> {
    const all = Promise.all(this.drained).then(() => true);
    for (let seen = -1; this.blocked > 0 || seen !== this.passed;) {
      seen = this.passed;
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), timeoutMs)));
      const ended = await Promise.race([all, late]);
      clearTimeout(timer);
      if (ended) break;
    }
    for (const { source } of this.sources) source.destroy();
    this.input?.destroy();
    this.terminalFd = -1;
  }

  /** After a restart: the clients go on with the new process. */
  handOver(next: ProcessStreams): void {
    for (const [client, options] of this.clients) next.attach(client, options);
    this.clients.clear();
  }

  /** Tells every client how it ended, and lets them go. */
  finish(end: StreamEnd): void {
    for (const client of this.clients.keys()) client.end(jsonFrame(FRAME.end, end));
    this.clients.clear();
  }

  private setInput(input: Writable): void {
    // The process may close its end or be gone: what was meant for it is lost, as in a pipe.
    input.on('error', () => {});
    this.input = input;
  }

  /** Reading begins: what the process has written meanwhile was kept by the kernel. */
  begin(): void {
    for (const { name, source } of this.sources) source.on('data', (chunk: Buffer) => this.pass(name, source, chunk));
  }

  private addSource(name: StreamName, source: Readable): void {
    this.sources.push({ name, source });
    this.drained.push(
      new Promise((resolve) => {
        source.on('end', resolve);
        source.on('close', resolve);
        // A terminal whose last process has ended says EIO.
        source.on('error', () => resolve());
      }),
    );
  }

  private pass(name: StreamName, source: Readable, chunk: Buffer): void {
    this.passed++;
    const slow: Promise<void>[] = [];
    const logged = this.log?.write(name, chunk);
    if (logged !== undefined) slow.push(logged);
    for (const [client, options] of this.clients) {
      if (!options[name]) continue;
      client.write(frame(FRAME[name], chunk));
      if (client.writableLength > CLIENT_PENDING_MAX_BYTES) slow.push(caughtUp(client));
    }
    if (slow.length === 0) return;
    source.pause();
    this.blocked++;
    void Promise.all(slow).then(() => {
      this.blocked--;
      source.resume();
    });
  }
}

function caughtUp(client: Socket): Promise<void> {
  return new Promise((resolve) => {
    client.once('drain', resolve);
    client.once('close', () => resolve());
  });
}
