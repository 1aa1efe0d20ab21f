import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { fromErrorData, type PgErrorData } from '../mdm/error.ts';
import { runSectorJob } from './sector-job.ts';
import type { Match, MatchItem, MatchSector } from './matcher.ts';
import { siblingModule } from './threads.ts';

/** What a thread of the pool can do with a sector. Contents in it are given as pairs (offset, length). */
export type SectorJob =
  | {
      /** Root of the sector whose first `used` bytes lie in `buffer`, and of the contents in it, and the contents' anchors. */
      kind: 'hash';
      buffer: SharedArrayBuffer;
      used: number;
      spans: Uint32Array;
    }
  /** `level` of zstd to pack it at where that pays, or null. */
  | { kind: 'write'; buffer: SharedArrayBuffer; used: number; path: string; level: number | null }
  /** Packs the file at `path` into one at `temporary`, synced, unless it is packed, damaged, or that does not pay. */
  | { kind: 'pack'; path: string; temporary: string; used: number; level: number }
  /** Looks for stretches of contents in `buffer` that sectors have. */
  | { kind: 'match'; buffer: SharedArrayBuffer; items: readonly MatchItem[]; sectors: readonly MatchSector[] }
  /** The root of bytes that lie in several places, at most 4 MiB in all. */
  | { kind: 'assemble'; pieces: readonly PlacedPiece[] }
  /** Root of the 4 MiB at `offset` of any file; none when it is shorter. */
  | { kind: 'root'; path: string; offset: number }
  /** Reads a sector file whole, and names the blocks without their checksum (-1: the file has the wrong size). */
  | { kind: 'check'; path: string; spans: Uint32Array };

/** Bytes of a sector; without a path they are zeros. */
export interface PlacedPiece {
  readonly root: Uint8Array;
  readonly path: string | undefined;
  readonly offset: number;
  readonly length: number;
}

export interface SectorResult {
  root: Uint8Array;
  contentRoots: Uint8Array[];
  /** For each content whether it is all zeros. */
  zero: boolean[];
  bad?: number[];
  /** Of `hash`: for each content its anchors. */
  anchors?: Uint32Array[];
  /** Of `match`: for each content. */
  matches?: Match[][];
  /** Of `check`: bytes before the zero tail. */
  used?: number;
  /** Of `pack`: the packed file is there. */
  packed?: boolean;
}

export type SectorAnswer = { result: SectorResult } | { error: PgErrorData };

interface Task {
  job: SectorJob;
  resolve(result: SectorResult): void;
  reject(error: Error): void;
}

/**
 * Jobs done by the caller's own thread before others are started: they would take 0.1 s of processor time to start,
 * four jobs are two sectors of 10 ms.
 */
const JOBS_BEFORE_THREADS = 4;
/** More would wait for whoever reads and verifies the bytes, and take 40 MiB each. */
const THREADS_MAX = 4;
/** Threads make little garbage: 4 MiB at a time instead of 48. */
const THREAD_YOUNG_MIB = 4;
/** Jobs a thread has in hand: the second one is there when the first is done. */
const JOBS_PER_THREAD = 2;

/** Threads, one for each processor but no more than four, that hash, write and check sectors. They start when there is enough to do for them. */
export class SectorPool {
  private readonly threads: { worker: Worker; tasks: Task[] }[] = [];
  private readonly queue: Task[] = [];
  private readonly size: number;
  private closed = false;
  private done = 0;

  /** `size`: the threads it may have. */
  constructor(size = Math.min(THREADS_MAX, availableParallelism())) {
    this.size = size;
  }

  /** Does `job` in a thread; rejects with what it threw there. */
  run(job: SectorJob): Promise<SectorResult> {
    assert.ok(!this.closed, 'the sector pool is closed');
    return new Promise((resolve, reject) => {
      if (this.done < JOBS_BEFORE_THREADS) {
        this.done++;
        resolve(runSectorJob(job));
        return;
      }
      this.queue.push({ job, resolve, reject });
      this.dispatch();
    });
  }

  /** Ends the threads; jobs in hand are dropped and their promises never settle. */
  async close(): Promise<void> {
    this.closed = true;
    this.queue.length = 0;
    await Promise.all(this.threads.map(({ worker }) => worker.terminate()));
  }

  private dispatch(): void {
    while (this.queue.length > 0) {
      let idlest = this.threads.reduce(
        (best, t) => (best && best.tasks.length <= t.tasks.length ? best : t),
        this.threads[0],
      );
      if ((!idlest || idlest.tasks.length > 0) && this.threads.length < this.size) idlest = this.start();
      if (!idlest || idlest.tasks.length >= JOBS_PER_THREAD) return;
      const task = this.queue.shift()!;
      idlest.tasks.push(task);
      idlest.worker.postMessage(task.job); // oxlint-disable-line unicorn/require-post-message-target-origin
    }
  }

  private start(): { worker: Worker; tasks: Task[] } {
    // Flags of this process (--input-type, --inspect) are not the thread's.
    const worker = new Worker(siblingModule(import.meta.url, './sector-worker'), {
      execArgv: [],
      resourceLimits: { maxYoungGenerationSizeMb: THREAD_YOUNG_MIB },
    });
    const thread = { worker, tasks: [] as Task[] };
    this.threads.push(thread);
    worker.on('message', (answer: SectorAnswer) => {
      const task = thread.tasks.shift()!;
      if ('result' in answer) task.resolve(answer.result);
      else task.reject(fromErrorData(answer.error));
      this.dispatch();
    });
    worker.on('error', (error) => {
      this.threads.splice(this.threads.indexOf(thread), 1);
      for (const task of thread.tasks.splice(0)) task.reject(error);
    });
    return thread;
  }
}
