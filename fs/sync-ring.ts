import assert from 'node:assert/strict';
import { wakeThread } from './fuse/device.ts';
import type { RecordedRoot } from './log/root-entry.ts';

/** FSYNC requests that may wait at once; beyond it the FUSE thread waits itself. A power of two. */
const RING_SLOTS = 4096;

/** How long to wait for the FUSE thread before waking it once more, and how long to go on. */
const NUDGE_MS = 2;
const HEARD_MS = 5000;

/** The `threadId` of a FUSE thread that takes nothing any more. */
export const ENDED = -1;

/** Words of the shared state. */
const WAKE = 0;
const HEAD = 1;
const TAIL = 2;
const LOG_FD = 3;
const FAILED = 4;
const REQUESTS = 5;
const WANTED = 6;
const SYNCS = 7;
const SYNC_REQUESTS = 8;
const STOPPED = 9;
const ROOTS_WANTED = 10;
const THREAD_ID = 11;
const DAMAGED = 14;
/** Odd while the root is being written. */
const ROOT_VERSION = 15;
const ROOT = 16;
const ROOT_WORDS = 8;
/** Whether the disk worker has a checkpoint in the making. */
const SINK = 24;
const HEADER_WORDS = 26;

/** Numbers too large for a word: how far the log is written and durable, and of each the number of the commit entry that ends it. */
const FLUSHED = 0;
const SYNCED = 1;
const FLUSHED_SEQUENCE = 2;
const SYNCED_SEQUENCE = 3;
const ROOT_SIZE = 4;
const WANTED_HASH = 5;
const SIZES = 6;

/** Requests that wait for an fdatasync, and the place in the log that it must cover. */
export interface Waiting {
  count: number;
  size: number;
  sequence: number;
}

/** What is asked of the FUSE thread (bits of `wanted`). */
export const WANT = { FLUSH: 1, ROOTS: 2, DISK: 4 } as const;

/**
 * What the FUSE thread and the syncer thread share: a ring of FSYNC requests that wait for an fdatasync, how far the log is
 * written and how far it is durable, and what is asked of the FUSE thread. One producer (the FUSE thread), one consumer (the syncer).
 * Sizes are written before, and read after, an atomic access to the ring's head, which orders them.
 */
export class SyncRing {
  readonly shared: SharedArrayBuffer;
  private readonly words: Int32Array;
  private readonly sizes: Float64Array;
  private readonly uniques: Uint32Array;

  constructor(shared = new SharedArrayBuffer(HEADER_WORDS * 4 + SIZES * 8 + RING_SLOTS * 8)) {
    this.shared = shared;
    this.words = new Int32Array(shared, 0, HEADER_WORDS);
    this.sizes = new Float64Array(shared, HEADER_WORDS * 4, SIZES);
    this.uniques = new Uint32Array(shared, HEADER_WORDS * 4 + SIZES * 8, RING_SLOTS * 2);
  }

  /** The log's descriptor, once the FUSE thread has opened it. */
  get logFd(): number {
    return Atomics.load(this.words, LOG_FD);
  }

  /** Whether an fdatasync failed: what reached the disk is unknown since then. */
  get failed(): boolean {
    return Atomics.load(this.words, FAILED) !== 0;
  }

  /** Whether the log was found to have another root than was recorded: nothing more may be written. */
  get damaged(): boolean {
    return Atomics.load(this.words, DAMAGED) !== 0;
  }

  /** Syncer: the log is not what it was. */
  damage(): void {
    Atomics.store(this.words, DAMAGED, 1);
    this.want(WANT.FLUSH);
  }

  /** FUSE thread: a checkpoint begins; disk worker: it has ended. */
  set sinkBusy(isBusy: boolean) {
    Atomics.store(this.words, SINK, isBusy ? 1 : 0);
    Atomics.notify(this.words, SINK);
  }

  /** FUSE thread: waits until the disk worker has no checkpoint in the making, but not longer than this; whether that is so. */
  awaitSink(timeoutMs: number): boolean {
    const end = performance.now() + timeoutMs;
    for (let left = timeoutMs; left > 0 && Atomics.load(this.words, SINK) !== 0; left = end - performance.now())
      Atomics.wait(this.words, SINK, 1, left);
    return Atomics.load(this.words, SINK) === 0;
  }

  /** Syncer: the log's first `size` bytes, which are durable, have this root. */
  hashed({ size, root }: RecordedRoot): void {
    Atomics.add(this.words, ROOT_VERSION, 1);
    this.sizes[ROOT_SIZE] = size;
    this.words.set(new Int32Array(Uint8Array.from(root).buffer), ROOT);
    Atomics.add(this.words, ROOT_VERSION, 1);
  }

  /** Bytes of full sectors that the syncer has hashed and kept the roots of. */
  get hashedSize(): number {
    Atomics.load(this.words, ROOT_VERSION);
    return this.sizes[ROOT_SIZE]!;
  }

  /** Up to here the syncer is to hash though the mount is busy; then it asks the FUSE thread to look. */
  get wantedHash(): number {
    return this.sizes[WANTED_HASH]!;
  }

  set wantedHash(size: number) {
    this.sizes[WANTED_HASH] = size;
    this.wake();
  }

  /** FUSE thread: what the syncer has hashed if that is not what it had at version `seen`; undefined also while it is writing that. */
  hashedSince(seen: number): (RecordedRoot & { version: number }) | undefined {
    const version = Atomics.load(this.words, ROOT_VERSION);
    if (version === seen || version % 2 !== 0) return undefined;
    const size = this.sizes[ROOT_SIZE]!;
    const root = new Uint8Array(this.words.slice(ROOT, ROOT + ROOT_WORDS).buffer);
    return Atomics.load(this.words, ROOT_VERSION) === version ? { size, root, version } : undefined;
  }

  /** Bytes of the log that were written to the file; an fdatasync now makes them durable. */
  get flushedSize(): number {
    return this.sizes[FLUSHED]!;
  }

  /** Bytes of the log that are durable. */
  get syncedSize(): number {
    Atomics.load(this.words, TAIL);
    return this.sizes[SYNCED]!;
  }

  /** Number of the commit entry at `syncedSize`; 0 when that is where the mount began. */
  get syncedSequence(): number {
    return this.sizes[SYNCED_SEQUENCE]!;
  }

  /** fdatasync calls so far, and requests answered by them. */
  get counters(): { syncs: number; requests: number } {
    return { syncs: Atomics.load(this.words, SYNCS), requests: Atomics.load(this.words, SYNC_REQUESTS) };
  }

  /** Requests so far, more or less: it grows when there are some. */
  get requests(): number {
    return Atomics.load(this.words, REQUESTS);
  }

  /** FUSE thread: the number by which it can be woken, or ENDED. */
  set threadId(id: number) {
    Atomics.store(this.words, THREAD_ID, id);
  }

  /** Syncer: asks the FUSE thread for something, and wakes it. It may have been about to block: see `wantHeard`. */
  private want(bits: number): void {
    Atomics.or(this.words, WANTED, bits);
    this.nudge();
  }

  /** Wakes the FUSE thread if it has not yet taken what was asked; returns whether it has (or has ended). */
  private nudge(): boolean {
    const id = Atomics.load(this.words, THREAD_ID);
    if (id === ENDED || Atomics.load(this.words, WANTED) === 0) return true;
    if (id !== 0) wakeThread(id);
    return false;
  }

  /** Anyone else: `want`, and nudges until the FUSE thread has taken it, for a while: it may be in the middle of a long request. */
  wantHeard(bits: number): void {
    const deadline = performance.now() + HEARD_MS;
    this.want(bits);
    while (!this.nudge() && performance.now() < deadline) {
      const left = Atomics.load(this.words, WANTED);
      if (left !== 0) Atomics.wait(this.words, WANTED, left, NUDGE_MS);
    }
  }

  /** FUSE thread, before every request: whether something is asked of it. Counts requests on the way, so that the syncer can tell quiet times. */
  checkIn(): boolean {
    this.words[REQUESTS]!++;
    return this.words[WANTED] !== 0;
  }

  /** FUSE thread: takes what is asked of it. */
  takeWanted(): number {
    const bits = Atomics.exchange(this.words, WANTED, 0);
    Atomics.notify(this.words, WANTED);
    return bits;
  }

  /**
   * FUSE thread: an fdatasync of the first `size` bytes is wanted; `unique` is the request that waits for it (0: none), `sequence` the number
   * of the commit entry they end with. False when the ring is full.
   */
  post(size: number, sequence: number, uniqueLow: number, uniqueHigh: number): boolean {
    const head = Atomics.load(this.words, HEAD);
    if (((head - Atomics.load(this.words, TAIL)) | 0) >= RING_SLOTS) return false;
    const slot = (head & (RING_SLOTS - 1)) * 2;
    this.uniques[slot] = uniqueLow;
    this.uniques[slot + 1] = uniqueHigh;
    this.sizes[FLUSHED_SEQUENCE] = sequence;
    this.sizes[FLUSHED] = size;
    Atomics.store(this.words, HEAD, (head + 1) | 0);
    this.wake();
    return true;
  }

  /** FUSE thread: whether nothing waits for the syncer, so that until the next `post` what is durable is this thread's to say. */
  get idle(): boolean {
    return !this.posted;
  }

  /** FUSE thread, while the ring is idle: it has made the first `size` bytes durable itself, for so many requests. */
  syncedHere(size: number, sequence: number, requests: number): void {
    this.sizes[FLUSHED] = size;
    this.sizes[SYNCED_SEQUENCE] = sequence;
    this.sizes[SYNCED] = size;
    Atomics.add(this.words, SYNC_REQUESTS, requests);
    Atomics.add(this.words, SYNCS, 1);
  }

  /** Anyone: an fdatasync failed. */
  fail(): void {
    Atomics.store(this.words, FAILED, 1);
  }

  /** Wakes the syncer. */
  private wake(): void {
    Atomics.add(this.words, WAKE, 1);
    Atomics.notify(this.words, WAKE);
  }

  /** FUSE thread: the syncer is to post the root of what is durable. */
  wantRoot(): void {
    Atomics.add(this.words, ROOTS_WANTED, 1);
    this.wake();
  }

  /** Requests for a root so far. */
  get rootsWanted(): number {
    return Atomics.load(this.words, ROOTS_WANTED);
  }

  /** FUSE thread, before it serves: where the log begins, which is durable. */
  begin(logFd: number, size: number): void {
    this.sizes[FLUSHED] = size;
    this.sizes[SYNCED] = size;
    Atomics.store(this.words, LOG_FD, logFd);
  }

  /** FUSE thread: the syncer is to end, after what waits. */
  stop(): void {
    Atomics.store(this.words, STOPPED, 1);
    this.wake();
  }

  /** Syncer: what there is to do, waiting up to `timeoutMs` for it. `rootsSeen` is how many requests for a root were served. */
  await(timeoutMs: number, rootsSeen: number): 'posted' | 'root' | 'stopped' | 'timeout' {
    for (;;) {
      const seen = Atomics.load(this.words, WAKE);
      if (this.posted) return 'posted';
      if (Atomics.load(this.words, STOPPED) !== 0) return 'stopped';
      if (Atomics.load(this.words, ROOTS_WANTED) !== rootsSeen) return 'root';
      if (Atomics.wait(this.words, WAKE, seen, timeoutMs) === 'timed-out') return 'timeout';
    }
  }

  /** Syncer: whether there is something to do now. */
  busy(rootsSeen: number): boolean {
    return this.await(0, rootsSeen) !== 'timeout';
  }

  /** Syncer: whether a request waits for an fdatasync. */
  get posted(): boolean {
    return Atomics.load(this.words, HEAD) !== Atomics.load(this.words, TAIL);
  }

  /** Syncer: how many requests wait now, and what has to be durable for all of them. */
  waiting(): Waiting {
    for (;;) {
      const head = Atomics.load(this.words, HEAD);
      const count = (head - Atomics.load(this.words, TAIL)) | 0;
      assert.ok(count >= 0 && count <= RING_SLOTS, `sync ring holds ${count}`);
      const waiting = { count, size: this.sizes[FLUSHED]!, sequence: this.sizes[FLUSHED_SEQUENCE]! };
      // The three belong together if none was posted meanwhile.
      if (Atomics.load(this.words, HEAD) === head) return waiting;
    }
  }

  /** Syncer: the fdatasync for what `waiting` said is done; `answer` is called for each request. */
  complete(done: Waiting, ok: boolean, answer: (uniqueLow: number, uniqueHigh: number) => void): void {
    if (ok && done.size > this.sizes[SYNCED]!) {
      this.sizes[SYNCED_SEQUENCE] = done.sequence;
      this.sizes[SYNCED] = done.size;
    }
    if (!ok) this.fail();
    const tail = Atomics.load(this.words, TAIL);
    for (let i = 0; i < done.count; i++) {
      const slot = ((tail + i) & (RING_SLOTS - 1)) * 2;
      const low = this.uniques[slot]!;
      const high = this.uniques[slot + 1]!;
      if (low === 0 && high === 0) continue;
      Atomics.add(this.words, SYNC_REQUESTS, 1);
      answer(low, high);
    }
    Atomics.add(this.words, SYNCS, 1);
    Atomics.store(this.words, TAIL, (tail + done.count) | 0);
    Atomics.notify(this.words, TAIL);
  }

  /** FUSE thread: waits until everything posted is durable (or failed). */
  drain(): void {
    for (;;) {
      const tail = Atomics.load(this.words, TAIL);
      if (tail === Atomics.load(this.words, HEAD)) return;
      Atomics.wait(this.words, TAIL, tail, 100);
    }
  }
}
