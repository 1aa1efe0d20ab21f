import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Accumulator } from '../../mdm/accumulator.ts';
import { appendBatch, executeAppend } from '../../mdm/append-batch.ts';
import type { State } from '../../mdm/instruction.ts';
import { PgError } from '../../mdm/error.ts';
import { readFully } from './disk.ts';
import { LOG_HEADER_BYTES } from './entry.ts';
import { readHeader } from './header.ts';
import { isMarkOf, makeMark } from './recover.ts';
import { HASH_MAGIC, readMark, writeMark } from './sidecar.ts';

const CHUNK_BYTES = 256 << 10;

/**
 * The Merkle root of a log, computed behind its writer from the bytes of the file. It reads only what it is told is committed, so it may live in any
 * thread or process; its state is saved in the file `hash` so that a mount need not hash everything again.
 */
export class Hasher {
  readonly #fd: number;
  readonly #path: string;
  readonly #salt: number;
  #accumulator: Accumulator;
  #chunk: Buffer | undefined;
  /** The place that the saved state trusts, 0 when there is none: everything before had been checked and was durable. */
  restored: { size: number; sequence: number };

  /** Of the log in `dir`, open as `fd`. */
  constructor(dir: string, fd: number, salt: number) {
    this.#fd = fd;
    this.#path = join(dir, 'hash');
    this.#salt = salt;
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

  /** Hashes on to `size`, at most `budget` bytes; true when it is there. */
  advance(size: number, budget = Infinity): boolean {
    this.#chunk ??= Buffer.allocUnsafeSlow(CHUNK_BYTES);
    let left = budget;
    while (this.size < size && left > 0) {
      const want = Math.min(CHUNK_BYTES, size - this.size, left);
      const got = readFully(this.#fd, this.#chunk, 0, want, this.size);
      if (got < want)
        throw new PgError('LOG_CORRUPT', `${this.#path}: the log ends at ${this.size + got}, before ${size}`);
      this.#accumulator.append(this.#chunk.subarray(0, got));
      left -= got;
    }
    return this.size >= size;
  }

  /** Root of the first `size` bytes, which must not be less than what is hashed already. */
  rootAt(size: number): Uint8Array {
    if (size < this.size)
      throw new PgError('LOG_CORRUPT', `the root at ${size} is gone: ${this.size} bytes are hashed`);
    this.advance(size);
    return this.#accumulator.root();
  }

  /**
   * Saves the state. The log's first `size` bytes, up to the commit entry of this sequence number, must have been checked and be durable: a later mount
   * trusts them. What is hashed may lie behind.
   */
  save(size: number, sequence: number): void {
    if (this.size > size) return;
    writeMark(this.#path, HASH_MAGIC, makeMark(this.#fd, this.#salt, size, sequence), [this.#accumulator.serialize()]);
    this.restored = { size, sequence };
  }

  /** Executes the MDM batch that appends these bytes, one commit's, which the caller has just written at `size`. Returns the state after it. */
  feed(bytes: Uint8Array): State {
    return executeAppend(this.#accumulator, appendBatch(this.size, bytes.length), bytes);
  }
}

function restore(bytes: Uint8Array): Accumulator | undefined {
  try {
    return Accumulator.restore(bytes);
  } catch {
    return undefined;
  }
}

/** A hasher for the log in `dir` with a descriptor of its own, for another thread or process than the writer's. */
export function openHasher(dir: string): { hasher: Hasher; close(): void } {
  const fd = openSync(join(dir, 'log'), 'r');
  try {
    const hasher = new Hasher(dir, fd, readHeader(fd, join(dir, 'log')).salt);
    return { hasher, close: () => closeSync(fd) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Where the entries start that a log without any mark is scanned from. */
export const SCAN_START = { size: LOG_HEADER_BYTES, sequence: 1 } as const;
