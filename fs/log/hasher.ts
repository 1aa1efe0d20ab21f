import { join } from 'node:path';
import { Accumulator } from '../../mdm/accumulator.ts';
import { appendBatch, executeAppend } from '../../mdm/append-batch.ts';
import type { State } from '../../mdm/instruction.ts';
import { PgError } from '../../mdm/error.ts';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { closeLog, openToRead } from './bases.ts';
import { CHECKPOINT, OLDER_CHECKPOINT } from './checkpoints.ts';
import { readFully, unlessFull } from './disk.ts';
import { readHeader } from './header.ts';
import { isMarkOf, makeMark } from './recover.ts';
import { type RecordedRoot, recordedRoots } from './root-entry.ts';
import { accumulatorOf, RootsFile, sectorOf } from './roots.ts';
import { behind, SCAN_START } from './scanner.ts';
import { CHECKPOINT_MAGIC, HASH_MAGIC, readMark, readMarkHeader, writeMark } from './sidecar.ts';

const CHUNK_BYTES = 256 << 10;

/**
 * The Merkle root of a log, computed behind its writer from the bytes of the file. It reads only what it is told is committed, so it may live in any
 * thread or process; its state is saved in the file `hash`, and the roots of full sectors are kept in `roots`, so that a mount need not hash everything
 * again. What it hashes is compared with what is kept, and with the roots that the log records. Every call may throw LOG_CORRUPT.
 */
export class Hasher {
  /** What is kept of full sectors. */
  readonly roots: RootsFile;
  readonly #fd: number;
  readonly #path: string;
  readonly #logPath: string;
  readonly #salt: number;
  #accumulator: Accumulator;
  /** Of the sectors that are full. */
  #sectors = new Accumulator();
  /** Roots of the first so many bytes, for every sector that became full here. */
  readonly #rootsAt = new Map<number, Uint8Array>();
  /** Roots of sectors that are not kept yet. */
  readonly #pending = new Map<number, Uint8Array>();
  /** What the root at sizes to come must be. */
  readonly #expected: RecordedRoot[] = [];
  #begun = false;
  #damage: PgError | undefined;
  #passesRot = false;
  #chunk: Buffer | undefined;
  /** The place that the saved state trusts, 0 when there is none: everything before had been checked and was durable. */
  restored: { size: number; sequence: number };

  /** Of the log in `dir`, open as `fd`. */
  constructor(dir: string, fd: number, salt: number) {
    this.#fd = fd;
    this.#path = join(dir, 'hash');
    this.#logPath = join(dir, 'log');
    this.#salt = salt;
    this.roots = new RootsFile(dir, salt);
    const mark = readMark(this.#path, HASH_MAGIC, salt);
    this.restored = { size: 0, sequence: 0 };
    this.#accumulator = new Accumulator();
    if (mark !== undefined && isMarkOf(fd, mark)) {
      const accumulator = restore(mark.payload);
      if (accumulator !== undefined && accumulator.size <= mark.size) {
        this.#accumulator = accumulator;
        this.restored = { size: mark.size, sequence: mark.sequence };
      }
    }
  }

  /** Bytes hashed so far. */
  get size(): number {
    return this.#accumulator.size;
  }

  /** The root of the sectors hashed so far, and their size; 0 is none. */
  get full(): RecordedRoot {
    this.#begin();
    return { size: this.#sectors.size, root: this.#sectors.root() };
  }

  /** Hashes on to `size`, at most `budget` bytes; true when it is there. */
  advance(size: number, budget = Infinity): boolean {
    this.#begin();
    if (this.#damage !== undefined) throw this.#damage;
    this.#chunk ??= Buffer.allocUnsafeSlow(CHUNK_BYTES);
    let left = budget;
    for (let isFirst = true; this.size < size && left > 0; isFirst = false) {
      if ((isFirst || this.size % SECTOR_BYTES === 0) && this.#passGone(size)) continue;
      const want = Math.min(CHUNK_BYTES, size - this.size, left, SECTOR_BYTES - (this.size % SECTOR_BYTES));
      const got = readFully(this.#fd, this.#chunk, 0, want, this.size);
      if (got < want)
        throw new PgError('LOG_CORRUPT', `${this.#logPath}: the log ends at ${this.size + got}, before ${size}`);
      this.#accumulator.append(this.#chunk.subarray(0, got));
      left -= got;
    }
    return this.size >= size;
  }

  /** Root of the first `size` bytes, which must not be less than what is hashed already. */
  rootAt(size: number): Uint8Array {
    this.#begin();
    if (size < this.size)
      throw new PgError('LOG_CORRUPT', `the root at ${size} is gone: ${this.size} bytes are hashed`);
    this.advance(size);
    return this.#accumulator.root();
  }

  /** Begins anew with the sector that byte `offset` lies in: what follows is hashed from its bytes, and compared with what is kept of it. */
  hashFrom(offset: number): void {
    this.#begin();
    const sectors = sectorOf(offset);
    if (sectors * SECTOR_BYTES >= this.size) return;
    const accumulator = accumulatorOf(this.roots.all(), sectors);
    if (accumulator !== undefined) this.#start(accumulator);
  }

  /** The log says that this was its root. PgError LOG_CORRUPT, here or when the hasher comes there, if it was another. */
  expect(recorded: RecordedRoot): void {
    this.#begin();
    const { size, root } = recorded;
    if (size > this.#sectors.size) {
      this.#expected.push(recorded);
      return;
    }
    const known = this.#rootsAt.get(size) ?? accumulatorOf(this.roots.all(), size / SECTOR_BYTES)?.root();
    if (known !== undefined && Buffer.compare(known, root) !== 0 && !this.#passesRot) throw this.#differs(size);
  }

  /** Writes down the roots of the sectors hashed so far that lie in the first `durable` bytes. A full disk keeps them for the next time. */
  keep(durable: number): void {
    unlessFull(() => {
      for (const [sector, root] of this.#pending) {
        if ((sector + 1) * SECTOR_BYTES > durable) return;
        this.roots.put(sector, { root, isGone: false });
        this.#pending.delete(sector);
      }
    });
  }

  /**
   * Saves the state. The log's first `size` bytes, up to the commit entry of this sequence number, must have been checked and be durable: a later mount
   * trusts them. What is hashed may lie behind.
   */
  save(size: number, sequence: number): void {
    if (this.size > size) return;
    this.keep(size);
    this.roots.sync();
    writeMark(this.#path, HASH_MAGIC, makeMark(this.#fd, this.#salt, size, sequence), [this.#accumulator.serialize()]);
    this.restored = { size, sequence };
  }

  /** Executes the MDM batch that appends these bytes, one commit's, which the caller has just written at `size`. Returns the state after it. */
  feed(bytes: Uint8Array): State {
    this.#begin();
    return executeAppend(this.#accumulator, appendBatch(this.size, bytes.length), bytes);
  }

  /** Goes on as if the rest of the sector in hand were hashed, and the sector had this root. */
  passSector(root: Uint8Array): void {
    this.#begin();
    this.#accumulator.appendSector(root);
    this.#sectorDone(root);
  }

  /** Bytes are known to have rotted: hashes on, with the roots that are kept of full sectors and from the bytes elsewhere, and compares no more. */
  passRot(): void {
    this.#passesRot = true;
    this.#damage = undefined;
  }

  /** Lets go of what it has open; not of the log. */
  close(): void {
    this.roots.close();
  }

  /** What was restored must agree with what is kept of the sectors. Where some are not kept, they are hashed again, and must come to the same. */
  #begin(): void {
    if (this.#begun) return;
    this.#begun = true;
    const restored = this.#accumulator;
    const sectors = sectorOf(restored.size);
    const kept = this.roots.all();
    const whole = accumulatorOf(kept, sectors);
    if (whole === undefined) {
      this.#start(accumulatorOf(kept, kept.length)!);
      this.#expected.push({ size: sectors * SECTOR_BYTES, root: restored.rootOfSectors() });
    } else if (Buffer.compare(whole.root(), restored.rootOfSectors()) !== 0) {
      this.#damage = this.#differs(whole.size);
      throw this.#damage;
    } else {
      this.#start(restored);
    }
  }

  #start(accumulator: Accumulator): void {
    this.#accumulator = accumulator;
    this.#sectors = accumulatorOf(this.roots.all(), sectorOf(accumulator.size))!;
    this.#pending.clear();
    accumulator.onSector = (sector, root) => this.#sectorHashed(sector, root);
  }

  /** The root that counts for a sector whose bytes have this one. */
  #sectorHashed(sector: number, hashed: Uint8Array): Uint8Array {
    const kept = this.roots.get(sector);
    const isOther = kept !== undefined && Buffer.compare(kept.root, hashed) !== 0;
    if (isOther && !kept.isGone && !this.#passesRot) this.#damage ??= this.#differs((sector + 1) * SECTOR_BYTES);
    const root = kept?.root ?? hashed;
    if (kept === undefined) this.#pending.set(sector, root);
    this.#sectorDone(root);
    return root;
  }

  /** Notes the root of one sector more, and compares where the log says what it must be. */
  #sectorDone(root: Uint8Array): void {
    this.#sectors.appendSector(root);
    const { size } = this.#sectors;
    const here = this.#sectors.root();
    this.#rootsAt.set(size, here);
    const isOther = this.#expected.some((at) => at.size === size && Buffer.compare(at.root, here) !== 0);
    if (isOther && !this.#passesRot) this.#damage ??= this.#differs(size);
    if (this.#damage !== undefined) throw this.#damage;
  }

  /** Takes the root that is kept of the sector in hand if its bytes were given back. */
  #passGone(limit: number): boolean {
    const sector = sectorOf(this.size);
    if ((sector + 1) * SECTOR_BYTES > limit) return false;
    const kept = this.roots.get(sector);
    if (kept === undefined || !kept.isGone) return false;
    this.#accumulator.appendSector(kept.root);
    this.#sectorDone(kept.root);
    return true;
  }

  #differs(size: number): PgError {
    return new PgError(
      'LOG_CORRUPT',
      `${this.#logPath}: its first ${size} bytes do not have the root that was recorded`,
      {
        hint: 'the disk is failing: take the container from a replica',
      },
    );
  }
}

function restore(bytes: Uint8Array): Accumulator | undefined {
  try {
    return Accumulator.restore(bytes);
  } catch {
    return undefined;
  }
}

/** A hasher of the log in a directory with a descriptor of its own, for another thread or process than the writer's. */
export interface OpenHasher {
  hasher: Hasher;
  /** What a mount of the log has read, behind its checkpoint: hashed again from there, and compared with the roots that are recorded in it. */
  recheck(size: number): Generator<RecordedRoot | undefined>;
  close(): void;
}

/** The hasher for the log in `dir`. PgError LOG_CORRUPT, LOG_VERSION. */
export function openHasher(dir: string): OpenHasher {
  const path = join(dir, 'log');
  const fd = openToRead(dir);
  try {
    const { salt } = readHeader(fd, path);
    const hasher = new Hasher(dir, fd, salt);
    return {
      hasher,
      recheck: (size) => {
        const mark = [CHECKPOINT, OLDER_CHECKPOINT]
          .map((name) => readMarkHeader(join(dir, name), CHECKPOINT_MAGIC, salt))
          .find((found) => found !== undefined && found.size <= size && isMarkOf(fd, found));
        if (mark !== undefined) {
          hasher.hashFrom(mark.size);
          return recordedRoots(fd, salt, behind(mark), size, path);
        }
        // The mount has written both checkpoints since: what it has read lies before them, and may in part be given back.
        const isCleaned = hasher.roots.all().some(({ isGone }) => isGone);
        if (!isCleaned) hasher.hashFrom(0);
        return recordedRoots(fd, salt, isCleaned ? { size, sequence: 0 } : SCAN_START, size, path);
      },
      close: () => {
        hasher.close();
        closeLog(fd);
      },
    };
  } catch (error) {
    closeLog(fd);
    throw error;
  }
}
