import {
  constants,
  existsSync,
  fdatasyncSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { BaseCopy, forgetUnvouched, unvouchedSize, vouch } from './base-copy.ts';
import { basesOf, closeLog, openToRead, openWithBases } from './bases.ts';
import { namedCheckpoint } from './checkpoint-entry.ts';
import { CHECKPOINT, Checkpoints, KEPT_STATES } from './checkpoints.ts';
import { isDiskFull, lockFile, readFully, syncDirectory, writeFully } from './disk.ts';
import {
  COMMIT_BYTES,
  decodeHeader,
  Entry,
  getU64,
  HEADER_BYTES,
  headIsWhole,
  LOG_HEADER_BYTES,
  payloadIsWhole,
  peekLength,
  peekSequence,
  peekType,
  TYPE_CHECKPOINT,
  TYPE_COMMIT,
  TYPE_ROOT,
} from './entry.ts';
import { Hasher } from './hasher.ts';
import { parseHeader, readHeader } from './header.ts';
import { oldEpoch } from './errors.ts';
import type { Position } from './log.ts';
import { findEnd, laterMark } from './recover.ts';
import { readRootEntry, type RecordedRoot } from './root-entry.ts';
import { RootsFile, sectorOf } from './roots.ts';
import { viewOf } from './scanner.ts';
import { readEpoch, writeEpoch } from './sidecar.ts';

/** Largest batch that is taken before its commit entry has come. */
const MAX_PENDING = 64 << 20;

/** Read side of a move, for any process: the committed bytes of a log that may be mounted elsewhere at the same time. */
export class LogReader {
  readonly #fd: number;

  readonly #dir: string;
  #roots: RootsFile | undefined;

  constructor(dir: string) {
    this.#dir = dir;
    this.#fd = openToRead(dir);
  }

  /** Whether some of what follows byte `from` was given back: then the other side begins with a checkpoint. */
  isCleanedBehind(from: number): boolean {
    const behind = this.#kept().all().slice(sectorOf(from));
    return behind.some(({ isGone }) => isGone);
  }

  /** The newest checkpoint's file, and the log bytes that it is of. */
  checkpoint(): { size: number; file: Buffer } {
    const file = readFileSync(join(this.#dir, CHECKPOINT));
    return { size: Number(file.readBigUInt64LE(16)), file };
  }

  /** The root of the sector that byte `offset` lies in if its bytes were given back; to be asked after they were read. */
  goneRoot(offset: number): Uint8Array | undefined {
    const kept = this.#kept().get(sectorOf(offset));
    return kept?.isGone === true ? kept.root : undefined;
  }

  #kept(): RootsFile {
    return (this.#roots ??= new RootsFile(this.#dir, readHeader(this.#fd, this.#dir).salt));
  }

  /** Up to `into.length` bytes from `offset`, none past `limit` (the size of a position, so committed). Returns the bytes read. */
  readCommitted(offset: number, into: Uint8Array, limit: number): number {
    return readFully(this.#fd, into, 0, Math.max(0, Math.min(into.length, limit - offset)), offset);
  }

  /** Whether our first `size` bytes end with this commit entry (`Replica.lastCommit`): then a replica of that size is a prefix of this log. */
  endsWith(size: number, commit: Uint8Array): boolean {
    if (size === 0) return true;
    const ours = Buffer.alloc(COMMIT_BYTES);
    return readFully(this.#fd, ours, 0, COMMIT_BYTES, size - COMMIT_BYTES) === COMMIT_BYTES && ours.equals(commit);
  }

  close(): void {
    this.#roots?.close();
    closeLog(this.#fd);
  }
}

/**
 * Opens the copy of a log in `dir` for what its owner sends (`create` makes an empty one). `epoch` is the owner's: PgError LOG_EPOCH_OLD when
 * this copy knows a later one. LOG_MISSING, LOG_BUSY, LOG_CORRUPT, LOG_VERSION.
 */
export function openReplica(dir: string, options: { create?: boolean; epoch: number }): Replica {
  const path = join(dir, 'log');
  if (readEpoch(dir) > options.epoch) throw oldEpoch(dir, options.epoch, readEpoch(dir));
  if (!existsSync(path)) {
    if (!options.create) throw new PgError('LOG_MISSING', `there is no log at ${path}`);
    if (mkdirSync(dir, { recursive: true, mode: 0o700 }) !== undefined) syncDirectory(dirname(dir));
  }
  const fd = openToReceive(path);
  try {
    return new Replica(dir, fd);
  } catch (error) {
    closeLog(fd);
    throw error;
  }
}

/** Opens a log's file, made if there is none, with the writer's lock. */
function openToReceive(path: string): number {
  const fd = openWithBases(path, constants.O_RDWR | constants.O_CREAT);
  if (lockFile(fd)) return fd;
  closeLog(fd);
  throw new PgError('LOG_BUSY', `${path} is open for writing in another process`);
}

/**
 * Receiving side of a move: a log that is not mounted here and grows by what its owner sends. Bytes are taken in any portions; they count once they
 * are whole up to a commit entry, each entry checked (form, sequence, checksums) on the way. Every commit is the MDM batch [Truncate(grow), Write]:
 * `position().root` is the file's root after it.
 */
export class Replica {
  readonly dir: string;
  #fd: number;
  readonly #path: string;
  #epoch: number;
  #size = 0;
  /** Number of the next entry, and of the first one after the last commit. */
  #sequence = 0;
  #committedSequence = 0;
  #salt = 0;
  #hasher: Hasher | undefined;
  /** Bytes after the last commit taken; [0, parsed) are whole, checked entries. */
  #pending = Buffer.allocUnsafe(8 << 20);
  #view = viewOf(this.#pending);
  #have = 0;
  #parsed = 0;
  /** Where the whole batches in `pending` end. */
  #batchEnds: number[] = [];
  #base: BaseCopy | undefined;
  /** Size of the checkpoint that came with the log and that the log has not named yet. */
  #unvouched: number | undefined;
  /** Roots that entries in `pending` record. */
  #recorded: RecordedRoot[] = [];

  constructor(dir: string, fd: number) {
    this.dir = dir;
    this.#fd = fd;
    this.#path = join(dir, 'log');
    this.#epoch = readEpoch(dir);
    this.#unvouched = unvouchedSize(dir);
    const fileBytes = fstatSync(fd).size;
    if (fileBytes < LOG_HEADER_BYTES + COMMIT_BYTES) return;
    this.#salt = readHeader(fd, this.#path).salt;
    this.#hasher = new Hasher(dir, fd, this.#salt);
    const checkpoint = new Checkpoints(dir, fd, this.#salt).trusted(Infinity);
    const from = laterMark(checkpoint, this.#hasher.restored, Infinity);
    const end = findEnd(fd, this.#salt, from.size, from.sequence, fileBytes, this.#path);
    if (end.size < LOG_HEADER_BYTES + COMMIT_BYTES) return;
    ftruncateSync(fd, end.size);
    this.#size = end.size;
    this.#sequence = this.#committedSequence = end.sequence;
  }

  /** Durable epoch of this copy. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Size up to the last whole commit taken: the owner sends from here. */
  get size(): number {
    return this.#size;
  }

  /** The 64 bytes of the last commit entry, empty for an empty copy: the owner tells by them whether this is a prefix of its log. */
  lastCommit(): Uint8Array {
    const bytes = Buffer.alloc(this.#size === 0 ? 0 : COMMIT_BYTES);
    readFully(this.#fd, bytes, 0, bytes.length, this.#size - bytes.length);
    return bytes;
  }

  /** Forgets everything: the owner's log is another one. It gets a file of its own: clones go on from what was in this one, or it was a clone's (bases.ts). PgError LOG_BUSY. */
  reset(): void {
    for (const name of ['log', ...basesOf(this.dir).map((base) => base.name)])
      rmSync(join(this.dir, name), { force: true });
    const fd = openToReceive(this.#path);
    closeLog(this.#fd);
    this.#fd = fd;
    syncDirectory(this.dir);
    this.#size = this.#have = this.#parsed = this.#sequence = this.#committedSequence = 0;
    this.#hasher?.close();
    this.#hasher = undefined;
    forgetUnvouched(this.dir);
    this.#unvouched = undefined;
    for (const name of ['hash', 'roots', 'checkpoint', 'checkpoint.1', 'meter', KEPT_STATES, 'snapshots.json'])
      rmSync(join(this.dir, name), { force: true, recursive: true });
  }

  /** The beginning of a cleaned log comes, up to `size`; `from` is what this copy has, or 0: it begins anew. PgError LOG_CORRUPT. */
  beginBase(from: number, size: number): BaseCopy {
    if (from === 0 && this.#size > 0) this.reset();
    if (from !== this.#size) throw this.#corrupt(`its beginning is sent from byte ${from}`);
    this.#corrupt('');
    this.#base?.abandon();
    this.#base = new BaseCopy(this.dir, this.#fd, this.#hasher, from, size);
    return this.#base;
  }

  /** It has come whole: entries follow. PgError LOG_CORRUPT: this copy is what it was before. */
  finishBase(): void {
    const base = this.#base!;
    const { hasher, mark } = base.finish();
    this.#base = undefined;
    this.#hasher = hasher;
    this.#salt = mark.salt;
    this.#size = mark.size;
    this.#sequence = this.#committedSequence = mark.sequence + 1;
    this.#unvouched = mark.size;
  }

  /** Whether a checkpoint came with this log that the log has not named: then it is not known to be the right one. */
  get isVouched(): boolean {
    return this.#unvouched === undefined;
  }

  /** Takes the bytes that follow those taken so far. PgError LOG_CORRUPT when they do not continue this log, LOG_FULL. */
  append(bytes: Uint8Array): void {
    if (this.#base !== undefined) throw this.#corrupt('its beginning is not here yet');
    this.#take(bytes);
    let committed = 0;
    let sequence = 0;
    for (;;) {
      const length = this.#wholeEntry();
      if (length === 0) break;
      const type = peekType(this.#view, this.#parsed);
      const isCommit = type === TYPE_COMMIT;
      if (isCommit) this.#checkCommit(this.#parsed, committed);
      if (type === TYPE_ROOT) this.#recorded.push(this.#rootAt(this.#parsed));
      if (type === TYPE_CHECKPOINT && this.#unvouched !== undefined) this.#vouch(this.#parsed);
      this.#parsed += length;
      this.#sequence++;
      if (isCommit) {
        committed = this.#parsed;
        sequence = this.#sequence;
        this.#batchEnds.push(committed);
      }
    }
    if (committed > 0) this.#commit(committed, sequence);
  }

  /** fdatasync, then the position; a later mount trusts what is durable here without checking it again. */
  sync(): Position {
    fdatasyncSync(this.#fd);
    syncDirectory(this.dir);
    const position = this.position();
    this.#hasher?.save(this.#size, this.#committedSequence - 1);
    return position;
  }

  /** The position up to the last commit taken, hashed. */
  position(): Position {
    if (this.#size > 0) this.#hasher ??= new Hasher(this.dir, this.#fd, this.#salt);
    return { epoch: this.#epoch, size: this.#size, root: this.#hasher?.rootAt(this.#size) ?? new Uint8Array(32) };
  }

  /** Raises the epoch, durably. PgError LOG_EPOCH_OLD when it would fall. */
  setEpoch(epoch: number): void {
    if (epoch < this.#epoch) throw oldEpoch(this.dir, epoch, this.#epoch);
    if (epoch > this.#epoch) writeEpoch(this.dir, epoch);
    this.#epoch = epoch;
  }

  close(): void {
    this.#base?.abandon();
    this.#hasher?.close();
    closeLog(this.#fd);
  }

  #take(bytes: Uint8Array): void {
    const need = this.#have + bytes.length;
    if (need > MAX_PENDING) throw this.#corrupt('a batch has no end');
    if (need > this.#pending.length) {
      const larger = Buffer.allocUnsafe(Math.min(MAX_PENDING, need * 2));
      larger.set(this.#pending.subarray(0, this.#have));
      this.#pending = larger;
      this.#view = viewOf(larger);
    }
    this.#pending.set(bytes, this.#have);
    this.#have = need;
  }

  /** Length of the checked entry at `parsed`, 0 when it is not all here yet. */
  #wholeEntry(): number {
    const at = this.#parsed;
    if (this.#size === 0 && at === 0) return this.#header();
    if (this.#have - at < 64) return 0;
    const length = peekLength(this.#view, at);
    if (length === 0) throw this.#corrupt('no entry');
    if (this.#have - at < length) return 0;
    const isWhole =
      headIsWhole(this.#pending, this.#view, at, this.#salt) &&
      payloadIsWhole(this.#pending, this.#view, at, this.#salt);
    if (!isWhole) throw this.#corrupt('a checksum is wrong');
    if (peekSequence(this.#view, at) !== this.#sequence) throw this.#corrupt('entries are missing');
    return length;
  }

  #header(): number {
    if (this.#have < LOG_HEADER_BYTES) return 0;
    this.#salt = parseHeader(this.#pending, this.#path).salt;
    return LOG_HEADER_BYTES;
  }

  #checkCommit(at: number, committed: number): void {
    const fields = at + HEADER_BYTES;
    const end = this.#size + at + COMMIT_BYTES;
    if (getU64(this.#view, fields) !== this.#size + committed || getU64(this.#view, fields + 8) !== end) {
      throw this.#corrupt('a commit is of another place');
    }
  }

  /** The log names a checkpoint: maybe the one that came with it. */
  #vouch(at: number): void {
    const entry = new Entry();
    decodeHeader(entry, this.#pending, this.#view, at, this.#size + at);
    const named = namedCheckpoint(entry, this.#path);
    if (named.size !== this.#unvouched) return;
    vouch(this.dir, this.#salt, named);
    this.#unvouched = undefined;
  }

  #rootAt(at: number): RecordedRoot {
    const end = at + this.#view.getUint16(at + 12, true);
    const recorded = readRootEntry(this.#pending, this.#view, at + HEADER_BYTES, end, this.#size + at);
    if (recorded === undefined) throw this.#corrupt('a root is recorded of no size');
    return recorded;
  }

  #commit(bytes: number, sequence: number): void {
    try {
      writeFully(this.#fd, this.#pending, 0, bytes, this.#size);
    } catch (error) {
      if (isDiskFull(error)) throw new PgError('LOG_FULL', `no space on the disk of ${this.#path}`, { cause: error });
      throw error;
    }
    this.#hash();
    this.#size += bytes;
    this.#committedSequence = sequence;
    this.#pending.copyWithin(0, bytes, this.#have);
    this.#have -= bytes;
    this.#parsed -= bytes;
  }

  /** Executes the whole batches in `pending`, and compares the roots that they record. LOG_CORRUPT: this copy is then what it was before them. */
  #hash(): void {
    this.#hasher ??= new Hasher(this.dir, this.#fd, this.#salt);
    try {
      this.#hasher.advance(this.#size);
      let from = 0;
      for (const end of this.#batchEnds.splice(0)) {
        this.#hasher.feed(this.#pending.subarray(from, end));
        from = end;
      }
      for (const recorded of this.#recorded.splice(0)) this.#hasher.expect(recorded);
    } catch (error) {
      ftruncateSync(this.#fd, this.#size);
      this.#hasher.close();
      this.#hasher = undefined;
      this.#corrupt('');
      throw error;
    }
  }

  #corrupt(what: string): PgError {
    this.#have = this.#parsed = 0;
    this.#sequence = this.#committedSequence;
    this.#batchEnds = [];
    this.#recorded = [];
    return new PgError(
      'LOG_CORRUPT',
      `${this.#path}: what was received after byte ${this.#size} does not belong there (${what})`,
    );
  }
}
