import { open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { StringDecoder } from 'node:string_decoder';

/** A line longer than this is written in pieces (as docker's json-file driver does). */
const PIECE_BYTES = 16 * 1024;
/** More than this waiting for the disk, and the container's output is not read on. */
const PENDING_MAX_BYTES = 1 << 20;

type StreamName = 'stdout' | 'stderr';

/**
 * What the container writes, kept for `pg logs` in the form of docker's json-file driver: a line of JSON
 * `{"log": "text\n", "stream": "stdout", "time": "2026-01-02T03:04:05.678901234Z"}` for each line.
 * The file is put aside as `.1`, `.2`, ... when it has grown to its limit.
 */
export class OutputLog {
  private readonly path: string;
  private readonly limits: { maxSizeBytes: number; maxFiles: number };
  private file: FileHandle | undefined;
  private size = 0;
  private partial: Record<StreamName, string> = { stdout: '', stderr: '' };
  private readonly decoders = { stdout: new StringDecoder('utf8'), stderr: new StringDecoder('utf8') };
  private queue: string[] = [];
  private queuedBytes = 0;
  private working: Promise<void> | undefined;

  constructor(path: string, limits: { maxSizeBytes: number; maxFiles: number }) {
    this.path = path;
    this.limits = limits;
  }

  /** Takes a chunk. Resolves at once, or when enough of what waits has been written. Never rejects: a full disk must not stop the container. */
  write(stream: StreamName, chunk: Buffer): Promise<void> | undefined {
    const text = this.partial[stream] + this.decoders[stream].write(chunk);
    const time = timestamp();
    let start = 0;
    for (;;) {
      const end = text.indexOf('\n', start);
      const stop = end < 0 ? text.length : end + 1;
      while (stop - start > PIECE_BYTES) {
        this.record(stream, text.slice(start, start + PIECE_BYTES), time);
        start += PIECE_BYTES;
      }
      if (end < 0) break;
      this.record(stream, text.slice(start, stop), time);
      start = stop;
    }
    this.partial[stream] = text.slice(start);
    const working = this.work();
    return this.queuedBytes > PENDING_MAX_BYTES ? working : undefined;
  }

  /** Writes what has no line end yet, and closes the file. */
  async close(): Promise<void> {
    for (const stream of ['stdout', 'stderr'] as const) {
      const rest = this.partial[stream] + this.decoders[stream].end();
      if (rest !== '') this.record(stream, rest, timestamp());
      this.partial[stream] = '';
    }
    while (this.work() !== undefined) await this.working;
    await this.file?.close();
    this.file = undefined;
  }

  private record(stream: StreamName, text: string, time: string): void {
    const line = `{"log":${JSON.stringify(text)},"stream":"${stream}","time":"${time}"}\n`;
    this.queue.push(line);
    this.queuedBytes += line.length;
  }

  /** Has the queue written if it is not being written; undefined when there is nothing to write. */
  private work(): Promise<void> | undefined {
    if (this.working === undefined && this.queue.length > 0) {
      this.working = this.writeQueue().finally(() => (this.working = undefined));
    }
    return this.working;
  }

  private async writeQueue(): Promise<void> {
    try {
      while (this.queue.length > 0) {
        const bytes = Buffer.from(this.queue.join(''));
        this.queue = [];
        this.queuedBytes = 0;
        await this.rotate(bytes.length);
        await this.file!.write(bytes);
        this.size += bytes.length;
      }
    } catch (error) {
      process.stderr.write(`${this.path}: ${(error as Error).message}\n`);
      this.queue = [];
      this.queuedBytes = 0;
    }
  }

  /** Opens the file, after putting it aside when `more` bytes would carry it over the limit. */
  private async rotate(more: number): Promise<void> {
    if (this.file === undefined) {
      this.file = await open(this.path, 'a', 0o640);
      this.size = (await stat(this.path)).size;
    }
    if (this.size === 0 || this.size + more <= this.limits.maxSizeBytes) return;
    await this.file.close();
    this.file = undefined;
    for (let i = this.limits.maxFiles - 1; i > 1; i--) {
      await rename(`${this.path}.${i - 1}`, `${this.path}.${i}`).catch(() => {});
    }
    if (this.limits.maxFiles > 1) await rename(this.path, `${this.path}.1`);
    else await rm(this.path);
    this.file = await open(this.path, 'a', 0o640);
    this.size = 0;
  }
}

const startedMs = Date.now();
const startedNs = process.hrtime.bigint();

/** Now, in RFC 3339 with nanoseconds. */
export function timestamp(): string {
  const sinceStart = process.hrtime.bigint() - startedNs;
  const drift = BigInt(Date.now() - startedMs) * 1_000_000n - sinceStart;
  // The clock may have been set since: then the monotonic one only tells the part below a millisecond.
  const ns = sinceStart + (drift > 20_000_000n || drift < -20_000_000n ? drift : 0n);
  const ms = startedMs + Number(ns / 1_000_000n);
  return `${new Date(ms).toISOString().slice(0, -1)}${String(ns % 1_000_000n).padStart(6, '0')}Z`;
}
