import { constants } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { closeLog, openWithBases } from './bases.ts';
import { type Entry, FIRST_USER_TYPE } from './entry.ts';
import { Checkpoints } from './checkpoints.ts';
import { readHeader } from './header.ts';
import { behind, entriesBetween, type Place, SCAN_START } from './scanner.ts';
import type { Mark } from './sidecar.ts';

/**
 * A copy of a log that another thread appends to (`Replica`), read entry by entry behind it, so that a checkpoint is at hand when the copy is mounted.
 * It reads only what it is told is checked and durable.
 */
export class LogFollower {
  /** The checkpoint that was found, until the caller has taken it. */
  checkpoint: Mark | undefined;
  readonly #path: string;
  readonly #checkpoints: Checkpoints;
  readonly #fd: number;
  readonly #salt: number;
  #at: Place;
  #checkpointSize: number;

  /** Of the log in `dir`, which must be one of this image tree (32 bytes; undefined: of any). PgError LOG_CORRUPT, LOG_VERSION, LOG_BASE. */
  constructor(dir: string, base: Uint8Array | undefined) {
    this.#path = join(dir, 'log');
    this.#fd = openWithBases(this.#path, constants.O_RDONLY);
    try {
      const header = readHeader(this.#fd, this.#path);
      if (base !== undefined && !header.base.equals(base))
        throw new PgError('LOG_BASE', `${this.#path} belongs to another image tree`);
      this.#salt = header.salt;
      this.#checkpoints = new Checkpoints(dir, this.#fd, header.salt);
      this.checkpoint = this.#checkpoints.trusted(Infinity);
    } catch (error) {
      closeLog(this.#fd);
      throw error;
    }
    const { checkpoint } = this;
    this.#at = checkpoint === undefined ? SCAN_START : behind(checkpoint);
    this.#checkpointSize = checkpoint?.size ?? 0;
  }

  /** Log bytes that were read since the last checkpoint. */
  get sinceCheckpoint(): number {
    return this.#at.size - this.#checkpointSize;
  }

  /** Calls `apply` with every entry up to `size`, a durable commit's end, the log's own left out. PgError LOG_CORRUPT. */
  advance(size: number, apply: (entry: Entry) => void): void {
    if (size <= this.#at.size) return;
    let { sequence } = this.#at;
    for (const entry of entriesBetween(this.#fd, this.#salt, this.#at, size, this.#path)) {
      sequence = entry.sequence + 1;
      if (entry.type >= FIRST_USER_TYPE) apply(entry);
    }
    this.#at = { size, sequence };
  }

  /** Writes the state after what has been read as the log's checkpoint; durable on return. Throws as `node:fs` does (ENOSPC). */
  writeCheckpoint(pieces: readonly Uint8Array[]): void {
    const { size, sequence } = this.#at;
    this.#checkpoints.write(this.#checkpoints.markAt(size, sequence - 1), pieces);
    this.#checkpointSize = size;
  }

  close(): void {
    closeLog(this.#fd);
  }
}
