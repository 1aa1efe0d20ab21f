import { constants } from 'node:fs';
import { join } from 'node:path';
import { Accumulator } from '../../mdm/accumulator.ts';
import { appendBatch } from '../../mdm/append-batch.ts';
import { costOf } from '../../mdm/batch.ts';
import type { Cost } from '../../mdm/cost.ts';
import { PgError } from '../../mdm/error.ts';
import { closeLog, openWithBases } from './bases.ts';
import type { Instruction } from '../../mdm/instruction.ts';
import { readFully } from './disk.ts';
import { Entry, getU64, LOG_HEADER_BYTES, TYPE_COMMIT, TYPE_HEADER } from './entry.ts';
import { readHeader } from './header.ts';
import { oldestMark } from './oldest.ts';
import { accumulatorAt, accumulatorOfBytes, RootsFile, type SectorRoot, sectorOf } from './roots.ts';
import { behind, Scanner } from './scanner.ts';

/** A commit of a log: an MDM batch, and the state that it led to. */
export interface Commit {
  /** The log's size before and after it. */
  start: number;
  end: number;
  /** Root of the first `end` bytes. */
  root: Uint8Array;
  /** When it was written: seconds since 1970, and nanoseconds. */
  sec: number;
  nsec: number;
  /** How many entries of each type it has, the COMMIT left out. */
  entries: Map<number, number>;
}

/** The batch that a commit is, and its cost (docs/formats/mdm.md). */
export function batchOf({ start, end }: Pick<Commit, 'start' | 'end'>): { instructions: Instruction[]; cost: Cost } {
  const instructions = appendBatch(start, end - start);
  return { instructions, cost: costOf(instructions, start).cost };
}

/** Commits are listed backwards in stretches of about so many bytes: one stretch's commits are in memory at a time. */
const STRETCH_BYTES = 16 << 20;
const CHUNK_BYTES = 1 << 20;

/** Where a scan can start: behind a commit. */
interface Place {
  size: number;
  sequence: number;
  /** Of everything before; undefined where what is kept of the sectors gives it. */
  accumulator: Uint8Array | undefined;
}

const START: Place = { size: 0, sequence: 0, accumulator: new Accumulator().serialize() };

/** Roots of full sectors: as they were kept when they were written, or computed from the bytes that are there now. */
export type RootsFrom = 'kept' | 'bytes';

/**
 * The commits of a log, for any process, also while the log is written. With roots from 'bytes' the list says what is there and not what was said of it, and
 * everything is hashed; with 'kept' ones only what is listed and at most a sector before it is. Memory does not grow with the log but for 1 KiB in each 16 MiB.
 */
export class CommitList {
  readonly #fd: number;
  readonly #path: string;
  readonly #salt: number;
  readonly #limit: number;
  readonly #kept: readonly SectorRoot[];
  readonly #roots: RootsFrom;
  /** The first place that is still there. */
  readonly #start: Place;

  /** Of the log in `dir` up to `limit`, a commit's end. PgError LOG_CORRUPT, here and later, LOG_VERSION. */
  constructor(dir: string, limit: number, roots: RootsFrom) {
    this.#path = join(dir, 'log');
    this.#fd = openWithBases(this.#path, constants.O_RDONLY);
    try {
      this.#salt = readHeader(this.#fd, this.#path).salt;
      this.#limit = limit;
      const file = new RootsFile(dir, this.#salt);
      this.#kept = file.all();
      file.close();
      this.#roots = roots;
      const mark = oldestMark(dir, this.#fd, this.#salt, this.#kept);
      this.#start = mark === undefined || mark.size > limit ? START : { ...behind(mark), accumulator: undefined };
    } catch (error) {
      closeLog(this.#fd);
      throw error;
    }
  }

  close(): void {
    closeLog(this.#fd);
  }

  /** Whether the log was cleaned, so that commits up to this size are not listed any more; 0 when it was not. */
  get goneBefore(): number {
    return this.#start.size;
  }

  /** From the first to the last that is there. */
  *oldestFirst(): Generator<Commit> {
    yield* this.#from(this.#start, this.#limit);
  }

  /** From the last to the first. A stretch is hashed when its turn comes. */
  *newestFirst(): Generator<Commit> {
    const places = this.#places();
    for (let i = places.length - 1; i >= 0; i--) {
      const stretch = [...this.#from(places[i]!, places[i + 1]?.size ?? this.#limit)];
      yield* stretch.toReversed();
    }
  }

  /** Where the stretches start. Where the roots of sectors are not kept everything is hashed once to find them. */
  #places(): Place[] {
    const places: Place[] = [this.#start];
    const note = (size: number, place: () => Place): void => {
      if (size - places.at(-1)!.size >= STRETCH_BYTES) places.push(place());
    };
    const isKept = this.#roots === 'kept' && this.#kept.length >= sectorOf(this.#limit);
    if (isKept) this.#scan(this.#start, note);
    else for (const _ of this.#from(this.#start, this.#limit, note)) continue;
    return places;
  }

  /** Reads only the heads. */
  #scan(place: Place, behind: (size: number, place: () => Place) => void): void {
    const scanner = this.#scanner(place, this.#limit);
    const entry = new Entry();
    while (scanner.at < this.#limit) {
      this.#next(scanner, entry);
      const { at: size, sequence } = scanner;
      if (entry.type === TYPE_COMMIT) behind(size, () => ({ size, sequence, accumulator: undefined }));
    }
  }

  #scanner({ size, sequence }: Place, limit: number): Scanner {
    // The header entry is no entry for the scanner.
    const at = size === 0 ? { size: LOG_HEADER_BYTES, sequence: 1 } : { size, sequence };
    return new Scanner(this.#fd, this.#salt, at.size, at.sequence, limit, 'skip data');
  }

  #next(scanner: Scanner, entry: Entry): void {
    if (scanner.next(entry) === 'entry') return;
    throw new PgError('LOG_CORRUPT', `${this.#path} is damaged at byte ${scanner.at}`, {
      hint: 'take the log from a replica',
    });
  }

  #accumulator({ size, accumulator }: Place): Accumulator {
    if (accumulator !== undefined) return Accumulator.restore(accumulator);
    const kept = (this.#roots === 'kept' ? accumulatorAt : accumulatorOfBytes)(this.#fd, this.#kept, size);
    if (kept === undefined) throw new PgError('LOG_CORRUPT', `${this.#path} ends before byte ${size}`);
    return kept;
  }

  /** The commits behind a place; after each of them `behind` may take the place. */
  *#from(place: Place, limit: number, behind?: (size: number, place: () => Place) => void): Generator<Commit> {
    const accumulator = this.#accumulator(place);
    const scanner = this.#scanner(place, limit);
    const entry = new Entry();
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    let entries = new Map<number, number>(place.size === 0 ? [[TYPE_HEADER, 1]] : []);
    while (scanner.at < limit) {
      this.#next(scanner, entry);
      if (entry.type !== TYPE_COMMIT) {
        entries.set(entry.type, (entries.get(entry.type) ?? 0) + 1);
        continue;
      }
      const start = getU64(entry.view, entry.fieldsStart);
      if (start !== accumulator.size || getU64(entry.view, entry.fieldsStart + 8) !== scanner.at)
        throw new PgError('LOG_CORRUPT', `${this.#path}: the commit at byte ${entry.at} is of another place`);
      const { sec, nsec } = entry;
      this.#hash(accumulator, scanner.at, chunk);
      yield { start, end: scanner.at, root: accumulator.root(), sec, nsec, entries };
      behind?.(scanner.at, () => ({
        size: scanner.at,
        sequence: scanner.sequence,
        accumulator: accumulator.serialize(),
      }));
      entries = new Map();
    }
  }

  #hash(accumulator: Accumulator, size: number, chunk: Buffer): void {
    while (accumulator.size < size) {
      const got = readFully(this.#fd, chunk, 0, Math.min(chunk.length, size - accumulator.size), accumulator.size);
      if (got === 0) throw new PgError('LOG_CORRUPT', `${this.#path} ends before byte ${size}`);
      accumulator.append(chunk.subarray(0, got));
    }
  }
}
