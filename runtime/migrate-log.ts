import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openLog, type Log } from '../fs/log/log.ts';
import { LogReader } from '../fs/log/replica.ts';
import type { Connection } from '../grid/connection.ts';
import { bytesOf, uintOf, type Body } from '../grid/envelope.ts';
import { isPgError } from '../mdm/error.ts';
import { SECTOR_BYTES } from '../mdm/merkle.ts';
import type { ProgressSink } from '../layers/progress.ts';
import type { Roots } from '../store/paths.ts';
import { logDirOf } from './record.ts';

/** A point in a container's log, as far as a move is concerned. */
export interface LogEnd {
  size: number;
  root: Uint8Array;
}

const CHUNK_BYTES = 1 << 20;
const CHUNKS_IN_FLIGHT = 8;
/** A tail below this is small enough to stop the container for. */
const SMALL_TAIL_BYTES = 1 << 20;
const MAX_ROUNDS = 10;
const LOG_WAIT_MS = 1000;

const hasLog = (roots: Roots, id: string): boolean => existsSync(join(logDirOf(roots, id), 'log'));

/**
 * The end of the log of a container that is not running, made whole and durable; its lock is held. A container that never ran has none.
 * A shim has let go of the log before it gives the lock away; only of one that was killed the kernel closes the log a moment later.
 */
export async function closedLogEnd(roots: Roots, id: string): Promise<LogEnd> {
  if (!hasLog(roots, id)) return { size: 0, root: new Uint8Array(32) };
  const log = await openWhenFree(logDirOf(roots, id));
  try {
    const { size, root } = log.position();
    return { size, root };
  } finally {
    log.close();
  }
}

async function openWhenFree(dir: string): Promise<Log> {
  const deadline = performance.now() + LOG_WAIT_MS;
  for (;;) {
    try {
      return openLog(dir);
    } catch (error) {
      if (!isPgError(error, 'LOG_BUSY') || performance.now() > deadline) throw error;
      await sleep(5);
    }
  }
}

/** Whether bytes that were just read were given back. */
const isHole = (reader: LogReader, offset: number, length: number): boolean =>
  reader.goneRoot(offset) !== undefined || reader.goneRoot(offset + length - 1) !== undefined;

/** Ships one container's log: keeps what the other side has, sends what follows. */
export class LogShipper {
  readonly #connection: Connection;
  readonly #roots: Roots;
  readonly #id: string;
  /** Bytes of our log that the other side has. */
  #shipped = 0;
  #sentBytes = 0;

  /** `replica` is what the other side said of its copy: its size and last commit. If that is no prefix of our log it counts for nothing. */
  constructor(connection: Connection, roots: Roots, id: string, replica: Body) {
    this.#connection = connection;
    this.#roots = roots;
    this.#id = id;
    const size = uintOf(replica, 'size');
    if (size === 0 || !hasLog(roots, id)) return;
    const reader = new LogReader(logDirOf(roots, id));
    if (reader.endsWith(size, bytesOf(replica, 'lastCommit'))) this.#shipped = size;
    reader.close();
  }

  /** Bytes that would have to be sent for a log that ends at `size`. */
  missing(size: number): number {
    return Math.max(0, size - this.#shipped);
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  /**
   * Sends everything up to `size`, a commit's end. Several pieces are under way at once; they arrive in order. With `follow` the other side
   * also replays what has come before this resolves.
   */
  async shipTo(
    size: number,
    progress: ProgressSink,
    label: string,
    signal: AbortSignal,
    follow = false,
  ): Promise<void> {
    if (size <= this.#shipped) return;
    const reader = new LogReader(logDirOf(this.#roots, this.#id));
    progress.start(label, label, size - this.#shipped);
    const underWay: Promise<unknown>[] = [];
    let isFirst = true;
    try {
      while (this.#shipped < size) {
        signal.throwIfAborted();
        const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - this.#shipped));
        const got = reader.readCommitted(this.#shipped, chunk, size);
        // Cleaned, and maybe only just now: what was read may be a hole.
        if (isFirst ? reader.isCleanedBehind(this.#shipped) : isHole(reader, this.#shipped, got)) {
          await Promise.all(underWay.splice(0));
          await this.#shipBase(reader, signal);
          continue;
        }
        isFirst = false;
        const bulk = chunk.subarray(0, got);
        const answer = this.#connection.request('migrate', 'log', { offset: this.#shipped }, bulk);
        answer.then(
          () => progress.advance(label, got),
          () => undefined, // awaited below
        );
        underWay.push(answer);
        this.#shipped += got;
        this.#sentBytes += got;
        if (underWay.length >= CHUNKS_IN_FLIGHT) await underWay.shift();
      }
      await Promise.all(underWay);
    } finally {
      await Promise.allSettled(underWay);
      reader.close();
    }
    await this.#connection.request('migrate', 'sync', { follow });
    progress.done(label);
  }

  /** Of a cleaned log: a checkpoint, and what is there before it of what the other side lacks; of the rest the roots. */
  async #shipBase(reader: LogReader, signal: AbortSignal): Promise<void> {
    const { size, file } = reader.checkpoint();
    const ask = (type: string, body: Body, bulk?: Uint8Array): Promise<unknown> =>
      this.#connection.request('migrate', type, body, bulk);
    // Of what was sent last the other side has kept whole commits alone.
    if (this.#shipped > 0) {
      const { body } = await this.#connection.request('migrate', 'sync', { follow: false });
      this.#shipped = Math.min(this.#shipped, uintOf(body, 'size'));
    }
    await ask('base', { from: this.#shipped, size });
    for (let at = 0; at < file.length; at += CHUNK_BYTES) {
      signal.throwIfAborted();
      await ask('base-checkpoint', {}, file.subarray(at, at + CHUNK_BYTES));
    }
    this.#sentBytes += file.length;
    while (this.#shipped < size) {
      signal.throwIfAborted();
      const end = Math.min(size, (Math.floor(this.#shipped / SECTOR_BYTES) + 1) * SECTOR_BYTES);
      const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, end - this.#shipped));
      const got = reader.readCommitted(this.#shipped, chunk, size);
      const root = reader.goneRoot(this.#shipped);
      if (root !== undefined) {
        await ask('base-gone', { sector: Math.floor(this.#shipped / SECTOR_BYTES), root });
        this.#shipped = end;
        continue;
      }
      await ask('base-bytes', { offset: this.#shipped }, chunk.subarray(0, got));
      this.#shipped += got;
      this.#sentBytes += got;
    }
    await ask('base-done', {});
  }

  /**
   * Ships while the container runs and writes: round after round, until the tail is small or grows as fast as it is shipped.
   * `commit` makes what was written so far durable and says how long the log is. Resolves to the number of rounds.
   */
  async rounds(commit: () => Promise<number>, progress: ProgressSink, signal: AbortSignal): Promise<number> {
    let before = Infinity;
    for (let round = 1; round <= MAX_ROUNDS; round++) {
      const size = await commit();
      const tail = this.missing(size);
      if (tail >= before) return round - 1;
      await this.shipTo(size, progress, `log, round ${round}`, signal, true);
      if (tail < SMALL_TAIL_BYTES) return round;
      before = tail;
    }
    return MAX_ROUNDS;
  }
}
