import type { AppendBuffer, Flight } from './append-buffer.ts';
import { beginWriteBack, writeFully } from './disk.ts';
import { sealEntries } from './entry.ts';

/** Words of the shared state. */
const STATE = 0;
const ROOM = 1;
const FD = 2;
const SALT = 3;
const WORDS = 4;
/** Numbers too large for a word. */
const START = 0;
const USED = 1;
const SIZES = 2;

/** No thread; one that is being started; nothing to do; something to do; that failed. */
const ABSENT = 0;
const STARTING = 1;
const IDLE = 2;
const ORDERED = 3;
const FAILED = 4;

/** A thread that had nothing to write for so long ends. */
const IDLE_MS = 10_000;
/** The kernel is had to begin with so much at a time: the next room comes first. A multiple of a page. */
const BEHIND_BYTES = 1 << 20;
const PAGE_BYTES = 4096;

/**
 * What the thread that appends to a log shares with one that writes full rooms of its buffer: computes the checksums, writes the entries to the log's file, and has the
 * kernel begin to bring them to the disk. One room at a time; until it is written its entries count from memory.
 */
export class RoomWriter {
  readonly shared: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #sizes: Float64Array;
  readonly #startThread: () => void;
  /** The thread's: up to where it has written whole pages, and up to where the kernel was had to begin to bring them to the disk. */
  #written = 0;
  #begun = 0;

  /** `startThread` starts one that calls `serve` of a RoomWriter with the same `shared`. */
  constructor(startThread: () => void, shared = new SharedArrayBuffer(WORDS * 4 + SIZES * 8)) {
    this.shared = shared;
    this.#words = new Int32Array(shared, 0, WORDS);
    this.#sizes = new Float64Array(shared, WORDS * 4, SIZES);
    this.#startThread = startThread;
  }

  /** Whether it takes a room now or when it has written the last one; where there is no thread one is started, for the next time. */
  get isReady(): boolean {
    const state = Atomics.load(this.#words, STATE);
    if (state !== ABSENT) return state !== STARTING;
    Atomics.store(this.#words, STATE, STARTING);
    this.#startThread();
    return false;
  }

  /** Gives it a room whose entries begin at `start` of the log open as `fd`. It must have nothing to do. */
  begin(room: number, { start, used }: Flight, fd: number, salt: number): boolean {
    const words = this.#words;
    words[ROOM] = room;
    words[FD] = fd;
    words[SALT] = salt;
    this.#sizes[START] = start;
    this.#sizes[USED] = used;
    // It may just have ended.
    if (Atomics.compareExchange(words, STATE, IDLE, ORDERED) !== IDLE) return false;
    Atomics.notify(words, STATE);
    return true;
  }

  /** Whether the room that it was given is in the file; nothing is waited for. */
  get hasWritten(): boolean {
    const state = Atomics.load(this.#words, STATE);
    return state !== ORDERED && state !== FAILED;
  }

  /** Waits until the room that it was given is in the file: then true. False: it could not be written; once it has been written otherwise, that is to be told by `settle`. */
  wait(): boolean {
    const words = this.#words;
    while (Atomics.load(words, STATE) === ORDERED) Atomics.wait(words, STATE, ORDERED);
    return Atomics.load(words, STATE) !== FAILED;
  }

  settle(): void {
    Atomics.compareExchange(this.#words, STATE, FAILED, IDLE);
    Atomics.notify(this.#words, STATE);
  }

  /** The thread's loop: writes rooms of `buffer` until there was none for a while. */
  serve(buffer: AppendBuffer): void {
    const words = this.#words;
    this.ready();
    for (;;) {
      const state = Atomics.load(words, STATE);
      if (state === ORDERED) this.work(buffer);
      else if (this.#begun < this.#written) this.#beginSome();
      else if (
        Atomics.wait(words, STATE, state, IDLE_MS) === 'timed-out' &&
        Atomics.compareExchange(words, STATE, IDLE, ABSENT) === IDLE
      )
        return;
    }
  }

  /** The thread: rooms are taken from now on. */
  ready(): void {
    Atomics.store(this.#words, STATE, IDLE);
  }

  /** The thread: does what was ordered. */
  work({ rooms }: AppendBuffer): void {
    const words = this.#words;
    const { bytes, view } = rooms[words[ROOM] === 1 ? 1 : 0];
    const [start, used] = [this.#sizes[START]!, this.#sizes[USED]!];
    let isDone = true;
    try {
      sealEntries(bytes, view, used, words[SALT]! >>> 0);
      writeFully(words[FD]!, bytes, 0, used, start);
    } catch {
      isDone = false;
    }
    // What others have written since is theirs to begin with; the last page is begun with what follows it.
    if (start >= this.#written + PAGE_BYTES) this.#begun = start - (start % PAGE_BYTES);
    this.#written = start + used - ((start + used) % PAGE_BYTES);
    Atomics.store(words, STATE, isDone ? IDLE : FAILED);
    Atomics.notify(words, STATE);
  }

  /** Has the kernel begin to bring some of what is in the file to the disk: whoever asks for durability then does not wait for all of it. */
  #beginSome(): void {
    const bytes = Math.min(BEHIND_BYTES, this.#written - this.#begun);
    beginWriteBack(this.#words[FD]!, this.#begun, bytes);
    this.#begun += bytes;
  }
}
