import { constants } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { closeLog, openWithBases } from './bases.ts';
import { Entry, FIRST_USER_TYPE } from './entry.ts';
import { SCAN_START } from './hasher.ts';
import { readHeader } from './header.ts';
import { isMarkOf, makeMark } from './recover.ts';
import { Scanner } from './scanner.ts';
import { CHECKPOINT_MAGIC, type Mark, readMark, writeMark } from './sidecar.ts';

/**
 * A copy of a log that another thread appends to (`Replica`), read entry by entry behind it, so that a checkpoint is at hand when the copy is mounted.
 * It reads only what it is told is checked and durable.
 */
export class LogFollower {
  /** The checkpoint that was found, until the caller has taken it. */
  checkpoint: Mark | undefined;
  readonly #path: string;
  readonly #dir: string;
  readonly #fd: number;
  readonly #salt: number;
  #at: { size: number; sequence: number };
  #checkpointSize: number;

  /** Of the log in `dir`, which must be one of this image tree (32 bytes; undefined: of any). PgError LOG_CORRUPT, LOG_VERSION, LOG_BASE. */
  constructor(dir: string, base: Uint8Array | undefined) {
    this.#dir = dir;
    this.#path = join(dir, 'log');
    this.#fd = openWithBases(this.#path, constants.O_RDONLY);
    try {
      const header = readHeader(this.#fd, this.#path);
      if (base !== undefined && !header.base.equals(base))
        throw new PgError('LOG_BASE', `${this.#path} belongs to another image tree`);
      this.#salt = header.salt;
      const mark = readMark(join(dir, 'checkpoint'), CHECKPOINT_MAGIC, header.salt);
      this.checkpoint = mark !== undefined && isMarkOf(this.#fd, mark) ? mark : undefined;
    } catch (error) {
      closeLog(this.#fd);
      throw error;
    }
    const { checkpoint } = this;
    this.#at =
      checkpoint === undefined ? { ...SCAN_START } : { size: checkpoint.size, sequence: checkpoint.sequence + 1 };
    this.#checkpointSize = checkpoint?.size ?? 0;
  }

  /** Log bytes that were read since the last checkpoint. */
  get sinceCheckpoint(): number {
    return this.#at.size - this.#checkpointSize;
  }

  /** Calls `apply` with every entry up to `size`, a durable commit's end, the log's own left out. PgError LOG_CORRUPT. */
  advance(size: number, apply: (entry: Entry) => void): void {
    if (size <= this.#at.size) return;
    const scanner = new Scanner(this.#fd, this.#salt, this.#at.size, this.#at.sequence, size, 'skip data');
    const entry = new Entry();
    while (scanner.at < size) {
      if (scanner.next(entry) !== 'entry')
        throw new PgError('LOG_CORRUPT', `${this.#path} is damaged at byte ${scanner.at}`);
      if (entry.type >= FIRST_USER_TYPE) apply(entry);
    }
    this.#at = { size: scanner.at, sequence: scanner.sequence };
  }

  /** Writes the state after what has been read as the log's checkpoint; durable on return. Throws as `node:fs` does (ENOSPC). */
  writeCheckpoint(pieces: readonly Uint8Array[]): void {
    const { size, sequence } = this.#at;
    const mark = makeMark(this.#fd, this.#salt, size, sequence - 1);
    writeMark(join(this.#dir, 'checkpoint'), CHECKPOINT_MAGIC, mark, pieces);
    this.#checkpointSize = size;
  }

  close(): void {
    closeLog(this.#fd);
  }
}
