import { COMMIT_BYTES, type Entry, entryBytes, isOfRequest, peekFields, putLengths, putRequest } from './entry.ts';
import { viewOf } from './scanner.ts';

/** Bytes of a room for entries: they are in memory only until the next flush, or until this is full and written. */
export const BUFFER_BYTES = 4 << 20;
/** What may follow the last entry of a batch: the log's own, and the COMMIT. */
export const TAIL_BYTES = COMMIT_BYTES + 256;
/** A WRITE still in memory may grow by what follows it, up to this payload. */
export const GROW_LIMIT = 1 << 20;
/** What is before the rooms in the memory. */
const HEADER_SPACE = 4096;
/** 'pgab' and a version: memory that holds anything else holds nothing. */
const MAGIC = 0x62616770;
const VERSION = 2;
/** Words of the header: magic, version, and which of the two states counts (0: none yet). */
const WORD = { magic: 0, version: 1, selected: 2 } as const;
/** Where the two states lie, and what each has, as f64. */
const STATES_AT = 64;
const FIELD = {
  salt: 0,
  start: 1,
  used: 2,
  openAt: 3,
  openPayload: 4,
  sequence: 5,
  lastCommit: 6,
  requestLow: 7,
  requestHigh: 8,
  result: 9,
  failed: 10,
  room: 11,
  flightStart: 12,
  flightUsed: 13,
} as const;
const FIELDS = 14;

/** The request whose entry was appended last: the kernel's number for it (two halves), and what its answer cannot be made without. */
export interface LastRequest {
  low: number;
  high: number;
  /** The inode that it made, or the bytes that it copied. */
  result: number;
}

/** Entries of one room, which begin at `start` of the log's file. */
export interface Flight {
  start: number;
  used: number;
}

/** A part of the memory: entries from its beginning on. */
export interface Room {
  readonly bytes: Buffer;
  readonly view: DataView;
}

/** What whoever wrote last said of the buffer. */
export interface Gathered {
  /** The room that entries are put into, 0 or 1. */
  room: number;
  /** Where the room's first byte belongs in the log's file; everything before is written, but for what is in flight. */
  start: number;
  used: number;
  /** What the other room has and another thread is writing, just before `start`; undefined when there is none. */
  flight: Flight | undefined;
  /** Place in the room of the entry that has no checksum yet, -1 if none, and its payload's bytes. */
  openAt: number;
  openPayload: number;
  /** Number of the next entry. */
  sequence: number;
  /** Where the last commit entry ends. */
  lastCommit: number;
}

/**
 * The memory that a log's entries gather in until they are written. It can be memory that outlives the process (`fs/shared-memory.ts`): then
 * whoever takes the log over finds in it everything that was acknowledged. So what of it counts is said by a state which is replaced as a whole, by
 * one store: killed at any instruction, the process leaves the state before an append or the state after it.
 *
 * There are two rooms: while one is filled another thread may write what the other has.
 * Layout, in the machine's byte order: u32 'pgab', u32 version, u32 which state counts (1 or 2); two states of 14 f64 at 64 and 176;
 * the rooms from 4,096 on.
 */
export class AppendBuffer {
  static readonly BYTES = HEADER_SPACE + 2 * BUFFER_BYTES;
  readonly rooms: readonly [Room, Room];
  /** Goes out with the next state. */
  readonly request: LastRequest = { low: 0, high: 0, result: 0 };
  failed = false;
  readonly #words: Int32Array;
  readonly #states: readonly [Float64Array, Float64Array];

  /** `memory` has BYTES, zeros when nobody has used it; the default is of this process alone. */
  constructor(memory: ArrayBuffer = new ArrayBuffer(AppendBuffer.BYTES)) {
    this.rooms = [roomOf(memory, 0), roomOf(memory, 1)];
    this.#words = new Int32Array(memory, 0, 16);
    this.#states = [0, 1].map((i) => new Float64Array(memory, STATES_AT + i * FIELDS * 8, FIELDS)) as [
      Float64Array,
      Float64Array,
    ];
  }

  /** The request that an entry does goes out with the next state; one that does none leaves it as it is. */
  noteRequest({ requestLow, requestHigh, result }: Entry): void {
    if (requestLow === 0 && requestHigh === 0) return;
    const { request } = this;
    request.low = requestLow;
    request.high = requestHigh;
    request.result = result;
  }

  /** Everything up to here counts, from this instant on; `gathered` is of the log with this salt. */
  publish(salt: number, gathered: Gathered): void {
    const words = this.#words;
    const next = words[WORD.selected] === 1 ? 1 : 0;
    const state = this.#states[next]!;
    state[FIELD.salt] = salt;
    state[FIELD.start] = gathered.start;
    state[FIELD.used] = gathered.used;
    state[FIELD.openAt] = gathered.openAt;
    state[FIELD.openPayload] = gathered.openPayload;
    state[FIELD.sequence] = gathered.sequence;
    state[FIELD.lastCommit] = gathered.lastCommit;
    state[FIELD.requestLow] = this.request.low;
    state[FIELD.requestHigh] = this.request.high;
    state[FIELD.result] = this.request.result;
    state[FIELD.failed] = this.failed ? 1 : 0;
    state[FIELD.room] = gathered.room;
    state[FIELD.flightStart] = gathered.flight?.start ?? 0;
    state[FIELD.flightUsed] = gathered.flight?.used ?? 0;
    words[WORD.magic] = MAGIC;
    words[WORD.version] = VERSION;
    Atomics.store(words, WORD.selected, next + 1);
  }

  /**
   * What another process left here of the log with this salt: undefined when nobody did. Then `request` and `failed` are as it left them, and the entries in the rooms
   * are whole but for their checksums.
   */
  takeOver(salt: number): Gathered | undefined {
    const words = this.#words;
    const selected = words[WORD.selected]!;
    if (words[WORD.magic] !== MAGIC || words[WORD.version] !== VERSION || (selected !== 1 && selected !== 2))
      return undefined;
    const state = this.#states[selected - 1]!;
    if (state[FIELD.salt] !== salt) return undefined;
    this.request.low = state[FIELD.requestLow]!;
    this.request.high = state[FIELD.requestHigh]!;
    this.request.result = state[FIELD.result]!;
    this.failed = state[FIELD.failed] !== 0;
    const openAt = state[FIELD.openAt]!;
    const openPayload = state[FIELD.openPayload]!;
    const room = state[FIELD.room] === 1 ? 1 : 0;
    if (openAt >= 0) this.#closeUp(this.rooms[room].view, openAt, openPayload);
    const flight = { start: state[FIELD.flightStart]!, used: state[FIELD.flightUsed]! };
    return {
      room,
      start: state[FIELD.start]!,
      used: state[FIELD.used]!,
      flight: flight.used > 0 ? flight : undefined,
      openAt,
      openPayload,
      sequence: state[FIELD.sequence]!,
      lastCommit: state[FIELD.lastCommit]!,
    };
  }

  /** The entry that could still grow may have been half grown: it gets the lengths that the state says, and the request that it grew by. */
  #closeUp(view: DataView, at: number, payloadBytes: number): void {
    putLengths(view, at, entryBytes(peekFields(view, at), payloadBytes), payloadBytes);
    if (isOfRequest(view, at)) putRequest(view, at, this.request.low, this.request.high);
  }
}

function roomOf(memory: ArrayBuffer, index: number): Room {
  const bytes = Buffer.from(memory, HEADER_SPACE + index * BUFFER_BYTES, BUFFER_BYTES);
  return { bytes, view: viewOf(bytes) };
}
