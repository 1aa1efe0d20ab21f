import type { State } from './instruction.ts';
import type { ProofSource } from './opening.ts';

/**
 * What the machine asks of whoever keeps its file. The tree above 4 KiB is kept in groups of 1,024 hashes: level 6 has
 * the roots of blocks (64 leaves), level 16 those of sectors, levels 26 and 36 those of 1,024 and of 1,048,576 sectors.
 * Entry i of a level is the root over leaves [i 2^level, (i + 1) 2^level) or what of them the file has; group g holds
 * the entries from 1,024 g on.
 */
export const HASH_LEVELS = [6, 16, 26, 36] as const;
export type HashLevel = (typeof HASH_LEVELS)[number];
/** Hashes in a group. */
export const GROUP_HASHES = 1024;

/** A file as it was last committed. */
export interface CommittedFile {
  readonly state: State;
  /** Fills `into` with the bytes at `offset`, all of which lie in the file. */
  readAt(into: Uint8Array, offset: number): void;
  /**
   * The entries of a group that the file has, one after another; undefined when all are roots of full subtrees of
   * zeros.
   */
  hashes(level: HashLevel, group: number): Uint8Array | undefined;
  /** The committed full sector with this root, of any file on this host; good until the batch at hand is committed. */
  sector(root: Uint8Array): ProofSource | undefined;
  /** Makes all of `change` the file's state or, throwing, none of it; durable on return where the host is. */
  commit(change: Change): void;
}

/** A batch's result, staged over the committed file. */
export interface Change {
  readonly final: State;
  /**
   * Committed bytes below this are in the file still where they are not staged; all others are zero where they are not
   * staged.
   */
  readonly keptBytes: number;
  /** Blocks of 4 KiB that were written, whole (the last zero-padded), by number. The arrays are never changed again. */
  readonly blocks: ReadonlyMap<number, Uint8Array>;
  /**
   * Groups of hashes that were changed, whole (entries past the file's end are roots of zeros), by number. The arrays
   * are never changed again.
   */
  changedGroups(level: HashLevel): ReadonlyMap<number, Uint8Array>;
  /**
   * Sectors whose root may have changed, ascending; sectors of zeros that a Truncate added and nothing wrote to are not
   * among them.
   */
  changedSectors(): number[];
  /** The root of the final file's sector with this number. */
  sectorRoot(sector: number): Uint8Array;
  /** Reads the final file. */
  readAt(into: Uint8Array, offset: number): void;
}
