import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Accumulator } from '../../mdm/accumulator.ts';
import { syncDirectory } from './disk.ts';
import type { NamedCheckpoint } from './checkpoint-entry.ts';
import { isMarkOf, makeMark } from './recover.ts';
import { retainHistory } from './retention.ts';
import { RootsFile, sectorOf } from './roots.ts';
import { CHECKPOINT_MAGIC, type Mark, readMark, readMarkHeader, writeMark } from './sidecar.ts';

/** The checkpoint that a mount starts from, and the one before it. */
export const CHECKPOINT = 'checkpoint';
export const OLDER_CHECKPOINT = 'checkpoint.1';
/** Directory of the states that are kept by name. */
export const KEPT_STATES = 'snapshots';
/** One in the making. */
export const NEW_CHECKPOINT = 'checkpoint.part';

/** The checkpoints of a log (docs/formats/checkpoint.md): states that replay can start from. Two are kept, so that a damaged one costs time and no more. */
export class Checkpoints {
  readonly #dir: string;
  readonly #fd: number;
  readonly #salt: number;
  /** Whether the newer file is whole, so that it may take the older one's place. */
  #isWhole = false;

  /** Of the log in `dir`, open as `fd`. */
  constructor(dir: string, fd: number, salt: number) {
    this.#dir = dir;
    this.#fd = fd;
    this.#salt = salt;
  }

  /** The newest checkpoint that is whole, of this log and of a size up to `limit`; undefined when there is none. PgError LOG_VERSION. */
  trusted(limit: number): Mark | undefined {
    for (const name of [CHECKPOINT, OLDER_CHECKPOINT]) {
      const mark = readMark(join(this.#dir, name), CHECKPOINT_MAGIC, this.#salt);
      if (mark === undefined || !isMarkOf(this.#fd, mark)) continue;
      if (name === CHECKPOINT) this.#isWhole = true;
      if (mark.size <= limit) return mark;
    }
    return this.#kept(limit);
  }

  /** A state that is kept by name (docs/formats/snapshots.md): where replay starts for what is older than the checkpoints. */
  #kept(limit: number): Mark | undefined {
    const sizes = keptStates(this.#dir, this.#salt).filter(({ size }) => size <= limit);
    for (const { path } of sizes.toSorted((a, b) => b.size - a.size)) {
      const mark = readMark(path, CHECKPOINT_MAGIC, this.#salt);
      if (mark !== undefined && (isMarkOf(this.#fd, mark) || this.#isGone(mark.size))) return mark;
    }
    return undefined;
  }

  /** Whether the commit that ends at `size` was given back to the disk. */
  #isGone(size: number): boolean {
    const roots = new RootsFile(this.#dir, this.#salt);
    try {
      return roots.get(sectorOf(size - 1))?.isGone === true;
    } finally {
      roots.close();
    }
  }

  /** The mark for a state at `size`, where the commit of this number ends. */
  markAt(size: number, sequence: number): Omit<Mark, 'payload'> {
    return makeMark(this.#fd, this.#salt, size, sequence);
  }

  /** Whether the newest checkpoint is to be kept as the older one when another is installed. */
  get rotates(): boolean {
    return this.#isWhole;
  }

  /** Another one was installed by `installCheckpoint` or as it does. */
  installed(): void {
    this.#isWhole = true;
    retainHistory(this.#dir, KEPT_STATES, this.#salt, CHECKPOINT, OLDER_CHECKPOINT);
  }

  /**
   * Writes the state at `mark`, up to which the log is durable, and installs it. Durable on return; throws as `node:fs` does (ENOSPC): then those before are
   * as they were.
   */
  write(mark: Omit<Mark, 'payload'>, pieces: readonly Uint8Array[]): NamedCheckpoint {
    writeMark(join(this.#dir, NEW_CHECKPOINT), CHECKPOINT_MAGIC, mark, pieces);
    installCheckpoint(this.#dir, this.#isWhole);
    this.#isWhole = true;
    const accumulator = new Accumulator();
    for (const piece of pieces) accumulator.append(piece);
    return { size: mark.size, bytes: accumulator.size, root: accumulator.root() };
  }
}

/** The states of a log that are kept by name: their files, and the sizes that these claim. */
export function keptStates(dir: string, salt: number): { path: string; size: number }[] {
  let names: string[];
  try {
    names = readdirSync(join(dir, KEPT_STATES));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names.flatMap((name) => {
    const path = join(dir, KEPT_STATES, name);
    const mark = readMarkHeader(path, CHECKPOINT_MAGIC, salt);
    return mark === undefined ? [] : [{ path, size: mark.size }];
  });
}

/** Makes the new checkpoint, which is whole and durable, the one to start from; with `rotates` the one so far becomes the older one. Durable on return. */
export function installCheckpoint(dir: string, rotates: boolean): void {
  if (rotates && existsSync(join(dir, CHECKPOINT))) renameSync(join(dir, CHECKPOINT), join(dir, OLDER_CHECKPOINT));
  renameSync(join(dir, NEW_CHECKPOINT), join(dir, CHECKPOINT));
  syncDirectory(dir);
}

/** Removes what a crash left of one in the making. */
export function removeNewCheckpoint(dir: string): void {
  rmSync(join(dir, NEW_CHECKPOINT), { force: true });
}
