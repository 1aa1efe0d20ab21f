import assert from 'node:assert';
import { fdatasyncSync, fstatSync, ftruncateSync } from 'node:fs';
import { join } from 'node:path';
import type { PgError } from '../../mdm/error.ts';
import type { Meter } from '../../mdm/meter.ts';
import {
  COMMIT_BYTES,
  Entry,
  entryBytes,
  FIRST_USER_TYPE,
  MAX_FIELDS,
  MAX_PAYLOAD,
  timeNow,
  TYPE_COMMIT,
  TYPE_ROOT,
} from './entry.ts';
import { AppendBuffer, type LastRequest, TAIL_BYTES } from './append-buffer.ts';
import { closeLog } from './bases.ts';
import { checkpointEntry, type NamedCheckpoint } from './checkpoint-entry.ts';
import { Checkpoints } from './checkpoints.ts';
import { isDiskFull, openLogFile, unlessFull } from './disk.ts';
import { exhausted, failed, full, oldEpoch, otherBase } from './errors.ts';
import { Hasher } from './hasher.ts';
import { createLog, readHeader } from './header.ts';
import { type NamespaceClaim, namespaceEntry } from './claim.ts';
import type { OpenLogOptions } from './log-options.ts';
import { MeterKeeper } from './meter-file.ts';
import { PayloadReader } from './payload.ts';
import { findEnd, laterMark } from './recover.ts';
import { Reclaimer } from './reclaim.ts';
import { type RecordedRoot, RootRecorder } from './root-entry.ts';
import { SCAN_START, behind, entriesBetween } from './scanner.ts';
import { LogSpace } from './space.ts';
import { Tail } from './tail.ts';
import { takeOver } from './takeover.ts';
import { type Mark, readEpoch, writeEpoch } from './sidecar.ts';

/**
 * The state of a log that can be named, compared and proved: the first `size` bytes of the log have the Merkle root `root` (mdm), and were written under
 * ownership `epoch`. `size` always ends with a commit entry.
 */
export interface Position {
  epoch: number;
  size: number;
  root: Uint8Array;
}

/**
 * Opens the log in `dir`: finds its end, cuts a torn tail, and takes the writer's lock.
 * PgError LOG_MISSING, LOG_CORRUPT, LOG_VERSION (newer than this program), LOG_BASE (of another image), LOG_BUSY (open for writing elsewhere).
 */
export function openLog(dir: string, options: OpenLogOptions = {}): Log {
  const path = join(dir, 'log');
  if (options.create && !options.readOnly) createLog(dir, options.base);
  const fd = openLogFile(path, options.readOnly ?? false);
  try {
    const header = readHeader(fd, path);
    const base = options.base;
    if (base !== undefined && !header.base.equals(base)) throw otherBase(path, header.base, base);
    return new Log(dir, fd, header.salt, header.base, options);
  } catch (error) {
    closeLog(fd);
    throw error;
  }
}

/** A log open for appending (or, read-only, for replay and reads). Synchronous, for one thread; see docs/formats/log.md. */
export class Log {
  readonly dir: string;
  readonly fd: number;
  readonly readOnly: boolean;
  readonly base: Buffer;
  readonly hasher: Hasher;
  /** Gives sectors that nothing needs back to the disk. */
  readonly reclaimer: Reclaimer;
  /** What all that was done here has cost. */
  readonly meter: Meter;
  /** The last checkpoint that is of use, until the view has taken it. */
  checkpoint: Mark | undefined;
  /** Payloads found rotten at open: where their entries start. */
  readonly damaged: readonly number[];
  /** Log bytes known to be safe on disk. */
  durable: number;
  /** The last request that the process before this one did; undefined when none had the log's buffer. */
  readonly inherited: LastRequest | undefined;
  /** Set by a write or sync that failed: nothing more is accepted. */
  failure: unknown = undefined;

  #epoch: number;
  readonly #salt: number;
  readonly #path: string;
  readonly #payloads: PayloadReader;
  /** What is not in the file yet. */
  readonly #tail: Tail;
  readonly #checkpoints: Checkpoints;
  #checkpointSize: number;
  readonly space: LogSpace;
  readonly #keeper: MeterKeeper;
  readonly #recorder = new RootRecorder();

  constructor(dir: string, fd: number, salt: number, base: Buffer, options: OpenLogOptions) {
    this.dir = dir;
    this.fd = fd;
    this.base = base;
    this.readOnly = options.readOnly ?? false;
    this.#salt = salt;
    this.#path = join(dir, 'log');
    this.#epoch = readEpoch(dir);
    this.hasher = new Hasher(dir, fd, salt);
    this.reclaimer = new Reclaimer(dir, fd, salt);
    const limit = this.readOnly ? (options.limit ?? Infinity) : Infinity;
    const buffer = this.readOnly ? undefined : (options.buffer ?? new AppendBuffer());
    if (buffer !== undefined) this.inherited = takeOver(buffer, fd, salt);
    if (buffer?.failed) this.failure = new Error('a write or sync failed before the log changed hands');
    this.#checkpoints = new Checkpoints(dir, fd, salt);
    this.checkpoint = this.#checkpoints.trusted(limit);
    this.#checkpointSize = this.checkpoint?.size ?? 0;
    const fileBytes = Math.min(fstatSync(fd).size, limit);
    const from = laterMark(this.checkpoint, this.hasher.restored, limit);
    const end = findEnd(fd, salt, from.size, from.sequence, fileBytes, this.#path);
    if (end.size < limit && limit < Infinity) this.reclaimer.requireNotGone(end.size, limit);
    this.damaged = end.damaged;
    this.#keeper = new MeterKeeper(dir, end.size);
    this.meter = this.#keeper.meter;
    this.#tail = new Tail(buffer, options.writer, fd, salt, end.size, end.sequence);
    this.space = new LogSpace(fd, end.size, this.reclaimer);
    this.#payloads = new PayloadReader(fd, salt, this.#path);
    this.durable = 0;
    if (!this.readOnly) {
      if (fileBytes > end.size) ftruncateSync(fd, end.size);
      this.reclaimer.finishInterrupted();
      fdatasyncSync(fd);
      this.durable = end.size;
      this.space.reserve(end.size + this.space.headroom(end.size), end.size);
      this.#tail.publish();
    }
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Bytes appended so far, those still in memory included. */
  get size(): number {
    return this.#tail.size;
  }

  /** Bytes in the file, ending with a commit entry. */
  get written(): number {
    return this.#tail.written;
  }

  /** Log bytes behind the last checkpoint. */
  get sinceCheckpoint(): number {
    return this.size - this.#checkpointSize;
  }

  /** The number of the entry last appended or replayed. */
  get lastSequence(): number {
    return this.#tail.sequence - 1;
  }

  /**
   * Appends an entry. In: type, flags, sec, nsec, and the fields at [fieldsStart, fieldsEnd) of `bytes`. Out: everything else of `entry`, which then
   * lies in the log's own buffer. `freeing` entries may use the space kept for them. PgError LOG_FULL: nothing was appended. LOG_FAILED.
   */
  append(entry: Entry, payload: Uint8Array | undefined, freeing: boolean): void {
    const fieldBytes = entry.fieldsEnd - entry.fieldsStart;
    const payloadBytes = payload === undefined ? 0 : payload.length;
    assert(fieldBytes <= MAX_FIELDS && payloadBytes <= MAX_PAYLOAD && entry.type > TYPE_COMMIT);
    const length = entryBytes(fieldBytes, payloadBytes);
    this.#makeRoom(length, freeing, entry.type < FIRST_USER_TYPE);
    this.#tail.put(entry, payload, length);
  }

  /** Whether the entry of this number is still in memory and its payload may grow by `more` bytes. */
  canGrow(sequence: number, more: number): boolean {
    const end = this.failure === undefined ? this.#tail.grownEnd(sequence, more) : -1;
    const kept = TAIL_BYTES - COMMIT_BYTES + this.space.headroom(this.size);
    return end >= 0 && end <= this.meter.limit && end + kept <= this.space.reserved;
  }

  /** Appends to the payload of the last entry (`canGrow`), whose time and request become those of `entry`. Returns where in the log the bytes are. */
  grow(payload: Uint8Array, entry: Entry): number {
    return this.#tail.grow(payload, entry);
  }

  /** Copies [from, from + length) of the payload at `payloadAt` to `into` at `at`, checked. PgError LOG_DAMAGED. */
  readPayload(
    payloadAt: number,
    payloadBytes: number,
    from: number,
    into: Uint8Array,
    at: number,
    length: number,
  ): void {
    if (!this.#tail.read(payloadAt, from, into, at, length))
      this.#payloads.read(payloadAt, payloadBytes, from, into, at, length);
  }

  /** Whether entries were appended since the last flush. */
  get dirty(): boolean {
    return this.#tail.dirty;
  }

  /**
   * Ends the batch with a commit entry and writes all that is in memory. Returns the size that an fdatasync begun after this makes durable.
   * PgError LOG_FULL: nothing is lost, try again when there is space. LOG_FAILED.
   */
  flush(): number {
    const tail = this.#tail;
    if (!tail.dirty && tail.size === tail.lastCommit) return tail.start;
    this.#checkUsable();
    this.#endCommit();
    return this.#write();
  }

  /** What was appended since the last commit entry gets one, unless it belongs to a batch that goes on. */
  #endCommit(): void {
    const tail = this.#tail;
    if (tail.inBatch || tail.size === tail.lastCommit) return;
    const root = this.#recorder.due();
    if (root !== undefined) tail.put(root, undefined, entryBytes(root.fieldsEnd, 0));
    this.#appendCommit();
  }

  /** All that is appended from here to `endBatch`, about so many bytes, is one batch: after a crash all of it is there, or nothing. LOG_FULL, LOG_BUDGET. */
  beginBatch(bytes: number): void {
    this.flush();
    const need = this.#tail.start + bytes + bytes / 32 + 4 * TAIL_BYTES;
    if (need > this.meter.limit) throw exhausted(this.#path);
    const error = this.space.reserve(need + this.space.headroom(this.size), this.#tail.start);
    if (error !== undefined) throw isDiskFull(error) ? full(this.#path, error) : this.fail(error);
    this.#tail.inBatch = true;
  }

  endBatch(): number {
    this.#tail.inBatch = false;
    return this.flush();
  }

  /** Writes all that is in memory. */
  #write(): number {
    this.#writing(() => this.#tail.write());
    return this.#tail.start;
  }

  /** The room in hand is full: it is committed and written, by another thread if there is one. */
  #turn(): void {
    this.#endCommit();
    if (this.#tail.inBatch || !this.#writing(() => this.#tail.handOver())) this.#write();
  }

  #writing<T>(write: () => T): T {
    try {
      const result = write();
      this.space.written(this.#tail.start);
      return result;
    } catch (error) {
      if (isDiskFull(error)) throw full(this.#path, error);
      throw this.fail(error);
    }
  }

  /** Tells the root of the log's first sectors: it is recorded with one of the next commits. They were durable when they were hashed. */
  noteRoot(hashed: RecordedRoot): void {
    this.#recorder.note(hashed);
  }

  /** `flush`, and then this claim as a batch of its own, written as well. Returns the size at its end; throws as `append` does. */
  appendNamespace(claim: NamespaceClaim): number {
    this.flush();
    this.append(Object.assign(namespaceEntry(claim), timeNow()), undefined, true);
    this.#appendCommit();
    return this.#write();
  }

  /** Tells that an fdatasync begun after `flush` returned `size` succeeded. */
  synced(size: number): void {
    this.space.synced(size - this.durable);
    this.durable = Math.max(this.durable, size);
  }

  /** flush and fdatasync. */
  sync(): number {
    const size = this.flush();
    if (size === this.durable) return size;
    try {
      fdatasyncSync(this.fd);
    } catch (error) {
      throw this.fail(error);
    }
    this.synced(size);
    return size;
  }

  /** Remembers that the disk failed us; what is on it is unknown, so nothing more is accepted. Returns the error to throw. */
  fail(error: unknown): PgError {
    this.failure ??= error;
    this.#tail.publish(true);
    return failed(this.#path, this.failure);
  }

  /** flush, fdatasync, and the root of everything. */
  position(): Position {
    const size = this.readOnly ? this.#tail.start : this.sync();
    const root = this.hasher.rootAt(size);
    if (!this.readOnly) this.hasher.keep(this.durable);
    this.noteRoot(this.hasher.full);
    return { epoch: this.#epoch, size, root };
  }

  /** Raises the epoch, durably. PgError LOG_EPOCH_OLD when it would fall. */
  setEpoch(epoch: number): void {
    if (epoch < this.#epoch) throw oldEpoch(this.dir, epoch, this.#epoch);
    if (epoch > this.#epoch) writeEpoch(this.dir, epoch);
    this.#epoch = epoch;
  }

  /** Calls `apply` with every entry behind the trusted checkpoint, the log's own left out. PgError LOG_CORRUPT. */
  replay(apply: (entry: Entry) => void): void {
    const { checkpoint } = this;
    const from = checkpoint === undefined ? SCAN_START : behind(checkpoint);
    for (const entry of entriesBetween(this.fd, this.#salt, from, this.#tail.start, this.#path)) {
      if (entry.type >= FIRST_USER_TYPE) apply(entry);
      else this.#keeper.replay(entry, entry.at + entry.length);
      if (entry.type === TYPE_ROOT) this.#recorder.passed(entry, this.#path);
    }
  }

  /**
   * Makes everything durable, then writes the caller's state as the checkpoint that replay starts from. A full disk leaves the old one: a checkpoint only
   * saves time.
   */
  writeCheckpoint(pieces: readonly Uint8Array[]): void {
    const size = this.sync();
    unlessFull(() => {
      const named = this.#checkpoints.write(this.#checkpoints.markAt(size, this.lastSequence), pieces);
      this.hasher.save(size, this.lastSequence);
      this.checkpointInstalled(named);
    });
    this.#checkpointSize = size;
    this.saveMeter();
  }

  /** flush; what somebody else needs to write the state of now as a checkpoint, as `installCheckpoint` does it. */
  beginCheckpoint(): { mark: Omit<Mark, 'payload'>; rotates: boolean } {
    const size = this.flush();
    return { mark: this.#checkpoints.markAt(size, this.lastSequence), rotates: this.#checkpoints.rotates };
  }

  /** There is a new checkpoint: the log names it, in a batch of its own. */
  checkpointInstalled(named: NamedCheckpoint): void {
    this.#checkpoints.installed();
    this.#checkpointSize = named.size;
    this.flush();
    // On a full disk the log does without: a move then ships a checkpoint that nothing vouches for.
    unlessFull(() => this.append(checkpointEntry(named), undefined, true));
    this.flush();
  }

  /** Writes down what everything has cost, up to the last batch. */
  saveMeter(): void {
    if (!this.readOnly) this.#keeper.save(this.#tail.lastCommit);
  }

  /** flush, fdatasync, gives reserved space back, and closes. A failed log is closed as it is. */
  close(): void {
    try {
      if (!this.readOnly && this.failure === undefined) {
        this.sync();
        ftruncateSync(this.fd, this.#tail.start);
        this.saveMeter();
        if (this.hasher.restored.size !== this.#tail.start) {
          unlessFull(() => this.hasher.save(this.#tail.start, this.lastSequence));
        }
      }
    } finally {
      this.hasher.close();
      this.reclaimer.close();
      closeLog(this.fd);
    }
  }

  #checkUsable(): void {
    if (this.failure !== undefined) throw failed(this.#path, this.failure);
    assert(!this.readOnly, 'a read-only log is not written');
  }

  /** After this, `length` bytes and a commit entry fit into the buffer and into space on disk that is ours. The log's own entries need no budget. */
  #makeRoom(length: number, freeing: boolean, isOwn: boolean): void {
    this.#checkUsable();
    if (this.#tail.isFull(length)) this.#turn();
    const need = this.size + length + TAIL_BYTES;
    if (need > this.meter.limit && !isOwn) throw exhausted(this.#path);
    if (need + this.space.headroom(this.size) <= this.space.reserved) return;
    const error = this.space.reserve(need + this.space.headroom(this.size), this.#tail.start);
    if (error === undefined) return;
    if (freeing && (need <= this.space.reserved || this.space.reserve(need, this.#tail.start) === undefined)) return;
    throw isDiskFull(error) ? full(this.#path, error) : this.fail(error);
  }

  #appendCommit(): void {
    const batch = this.#tail.appendCommit(this.durable);
    this.meter.append(this.#tail.lastCommit - batch, batch);
  }
}
