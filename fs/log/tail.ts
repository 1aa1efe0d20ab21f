import assert from 'node:assert';
import { type AppendBuffer, BUFFER_BYTES, type Flight, GROW_LIMIT, type Room, TAIL_BYTES } from './append-buffer.ts';
import { writeFully } from './disk.ts';
import {
  align64,
  closeEntry,
  COMMIT_BYTES,
  decodeHeader,
  Entry,
  entryBytes,
  headBytes,
  peekHead,
  peekPayload,
  putHeader,
  putLengths,
  putRequest,
  putTime,
  sealEntries,
  timeNow,
  TYPE_COMMIT,
} from './entry.ts';
import { putCommit } from './header.ts';
import type { RoomWriter } from './room-writer.ts';
import { viewOf } from './scanner.ts';

const NO_BYTES = Buffer.alloc(0);
const NO_ROOM: Room = { bytes: NO_BYTES, view: viewOf(NO_BYTES) };

/**
 * What of a log is not in its file yet: the entries that gather in one room of the buffer, and those of the other room while another thread writes them. Knows nothing of space
 * and budgets. Checksums are computed when a room is written.
 */
export class Tail {
  /** Where the room's first byte belongs in the file: everything before is written, or in flight. */
  start: number;
  used = 0;
  /** Number of the next entry. */
  sequence: number;
  /** Where the last commit entry ends, be it written or not. */
  lastCommit: number;
  /** What is appended belongs to one batch, although the room may be written before its commit. */
  inBatch = false;
  readonly #buffer: AppendBuffer | undefined;
  readonly #fd: number;
  readonly #salt: number;
  readonly #writer: RoomWriter | undefined;
  #index = 0;
  #room: Room;
  /** Place in the room of the entry that may still grow, -1 if none. */
  #openAt = -1;
  #flight: Flight | undefined;
  readonly #commit = new Entry();

  /** Of the log open as `fd`, whose file ends at `size` before entry `sequence`; without a buffer nothing is appended. */
  constructor(
    buffer: AppendBuffer | undefined,
    writer: RoomWriter | undefined,
    fd: number,
    salt: number,
    size: number,
    sequence: number,
  ) {
    this.#buffer = buffer;
    this.#writer = writer;
    this.#fd = fd;
    this.#salt = salt;
    this.#room = buffer?.rooms[0] ?? NO_ROOM;
    this.start = this.lastCommit = size;
    this.sequence = sequence;
  }

  /** Bytes of the log, those in memory included. */
  get size(): number {
    return this.start + this.used;
  }

  /** Bytes that are in the file. */
  get written(): number {
    this.#noteLanded();
    return this.#flight?.start ?? this.start;
  }

  /** Whether something is not in the file. */
  get dirty(): boolean {
    return this.used > 0 || this.#flight !== undefined;
  }

  /** Whether so many bytes more do not fit before what may follow the last entry of a batch. */
  isFull(length: number): boolean {
    return this.used + length + TAIL_BYTES > BUFFER_BYTES;
  }

  /** Puts an entry of `length` bytes, for which there is room. */
  put(entry: Entry, payload: Uint8Array | undefined, length: number): void {
    this.#close();
    const at = this.used;
    const { bytes, view } = this.#room;
    const fieldBytes = entry.fieldsEnd - entry.fieldsStart;
    const payloadBytes = payload === undefined ? 0 : payload.length;
    const head = headBytes(fieldBytes, payloadBytes);
    entry.sequence = this.sequence++;
    entry.payloadBytes = payloadBytes;
    putHeader(view, at, entry, length);
    bytes.set(entry.bytes.subarray(entry.fieldsStart, entry.fieldsEnd), at + 40);
    bytes.fill(0, at + 40 + fieldBytes, at + head);
    if (payload !== undefined) bytes.set(payload, at + head);
    this.#openAt = at;
    this.used = at + length;
    this.#buffer!.noteRequest(entry);
    this.publish();
    decodeHeader(entry, bytes, view, at, this.start + at);
  }

  /** Where the log would end, a commit included, if the payload of the entry of this number grew by `more` bytes; -1 when it cannot. */
  grownEnd(sequence: number, more: number): number {
    if (this.#openAt < 0 || sequence !== this.sequence - 1) return -1;
    const { view } = this.#room;
    const payload = peekPayload(view, this.#openAt) + more;
    const end = this.#openAt + peekHead(view, this.#openAt) + payload + payload / 1024 + 64;
    return payload <= GROW_LIMIT && end + TAIL_BYTES <= BUFFER_BYTES ? this.start + align64(end) + COMMIT_BYTES : -1;
  }

  /** Appends to the payload of the last entry (`grownEnd`), whose time and request become those of `entry`. Returns where in the log the bytes are. */
  grow(payload: Uint8Array, entry: Entry): number {
    const { bytes, view } = this.#room;
    const at = this.#openAt;
    const before = peekPayload(view, at);
    const place = at + peekHead(view, at) + before;
    bytes.set(payload, place);
    const fieldBytes = view.getUint16(at + 12, true) - 40;
    const length = entryBytes(fieldBytes, before + payload.length);
    putLengths(view, at, length, before + payload.length);
    putTime(view, at, entry.sec, entry.nsec);
    putRequest(view, at, entry.requestLow, entry.requestHigh);
    this.used = at + length;
    this.#buffer!.noteRequest(entry);
    this.publish();
    return this.start + place;
  }

  /** Ends the batch; returns how many bytes it has. */
  appendCommit(durable: number): number {
    this.#close();
    const { bytes, view } = this.#room;
    const at = this.used;
    assert(at + COMMIT_BYTES <= BUFFER_BYTES);
    Object.assign(this.#commit, { type: TYPE_COMMIT, sequence: this.sequence++ }, timeNow());
    const end = this.size + COMMIT_BYTES;
    const batch = end - this.lastCommit;
    putCommit(bytes, view, at, this.#commit, this.lastCommit, end, durable, this.#salt);
    this.used = at + COMMIT_BYTES;
    this.lastCommit = end;
    return batch;
  }

  /** Copies [from, from + length) of the payload at `payloadAt` of the log to `into` at `at`, if it is in memory; else false. */
  read(payloadAt: number, from: number, into: Uint8Array, at: number, length: number): boolean {
    if (payloadAt < this.written) return false;
    const [start, { bytes }] =
      payloadAt >= this.start ? [this.start, this.#room] : [this.#flight!.start, this.#buffer!.rooms[1 - this.#index]!];
    const place = payloadAt - start + from;
    into.set(bytes.subarray(place, place + length), at);
    return true;
  }

  /** Writes all that is in memory to the file. Throws as `node:fs` does: then nothing is lost, and it can be tried again. */
  write(): void {
    this.#close();
    this.#land();
    const { bytes, view } = this.#room;
    sealEntries(bytes, view, this.used, this.#salt);
    writeFully(this.#fd, bytes, 0, this.used, this.start);
    this.start += this.used;
    this.used = 0;
    this.publish();
  }

  /** Has another thread write the room, which ends with a commit, and goes on in the other one. False: there is none. Throws as `write`. */
  handOver(): boolean {
    if (this.#writer?.isReady !== true) return false;
    this.#close();
    this.#land();
    const flight = { start: this.start, used: this.used };
    const room = this.#index;
    this.#flight = flight;
    this.#enter(1 - room, flight.start + flight.used);
    this.publish();
    if (this.#writer.begin(room, flight, this.#fd, this.#salt)) return true;
    // Its thread has just ended.
    this.#flight = undefined;
    this.#enter(room, flight.start);
    this.used = flight.used;
    this.publish();
    return false;
  }

  /** Whoever takes over from here finds everything that is in memory now. */
  publish(failed = false): void {
    const buffer = this.#buffer;
    if (buffer === undefined) return;
    if (failed) buffer.failed = true;
    // Of a batch that may become longer nothing is to be taken over.
    if (this.inBatch) return;
    const openAt = this.#openAt;
    buffer.publish(this.#salt, {
      room: this.#index,
      start: this.start,
      used: this.used,
      flight: this.#flight,
      openAt,
      openPayload: openAt < 0 ? 0 : peekPayload(this.#room.view, openAt),
      sequence: this.sequence,
      lastCommit: this.lastCommit,
    });
  }

  #enter(index: number, start: number): void {
    this.#index = index;
    this.#room = this.#buffer!.rooms[index]!;
    this.start = start;
    this.used = 0;
  }

  /** The last entry grows no more. */
  #close(): void {
    if (this.#openAt >= 0) closeEntry(this.#room.bytes, this.#room.view, this.#openAt);
    this.#openAt = -1;
  }

  /** Waits until what is in flight is in the file. What another thread could not write is tried here, which tells why. */
  #land(): void {
    const flight = this.#flight;
    if (flight === undefined) return;
    if (!this.#writer!.wait()) {
      const { bytes, view } = this.#buffer!.rooms[1 - this.#index]!;
      sealEntries(bytes, view, flight.used, this.#salt);
      writeFully(this.#fd, bytes, 0, flight.used, flight.start);
      this.#writer!.settle();
    }
    this.#flight = undefined;
    this.publish();
  }

  #noteLanded(): void {
    if (this.#flight !== undefined && this.#writer!.hasWritten) this.#land();
  }
}
