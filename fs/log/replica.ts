import type { Position } from './log.ts';

/** Read side of a move, for any process: the committed bytes of a log that may be mounted elsewhere at the same time. */
export interface LogReader {
  /** Up to `into.length` bytes from `offset`, none past `limit` (a size that `flush` or a position told). Returns the bytes read. */
  readCommitted(offset: number, into: Uint8Array, limit: number): number;
  close(): void;
}

/**
 * Receiving side of a move: a log that is not mounted here and grows by what the owner sends.
 * Bytes are taken in any portions; they count (in `size` and `root`) once they are whole up to a commit entry, checked entry by entry (CRC, sequence, commit).
 */
export interface Replica {
  /** Durable epoch of this copy. */
  readonly epoch: number;
  /** Size up to the last whole commit taken: what the owner should send from. */
  readonly size: number;
  /** Takes the bytes that follow those taken so far. PgError LOG_CORRUPT when they are no continuation of this log. */
  append(bytes: Uint8Array): void;
  /** fdatasync, then the position; bytes after the last commit are cut off. */
  sync(): Position;
  /** The position so far, hashed, without a sync. */
  position(): Position;
  /** Raises the epoch, durably. PgError LOG_EPOCH_OLD when it would fall. */
  setEpoch(epoch: number): void;
  close(): void;
}
