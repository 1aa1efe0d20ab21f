import assert from 'node:assert/strict';
import type { ContentRef } from './content.ts';

/** A content on its way into the store. */
export interface ContentSink {
  readonly size: number;
  /**
   * Takes the next bytes (copied before it returns: the caller may reuse the buffer). When the writer has enough in hand it
   * returns a promise: wait for it before writing more. More bytes than `size` are an assertion failure.
   */
  write(chunk: Uint8Array): Promise<void> | undefined;
  /**
   * The content's name, once all `size` bytes are written and hashed: at the latest when `flush` or `finish` of the writer has
   * resolved (small contents wait for others to fill a sector: do not await `ref` before writing the next content).
   */
  readonly ref: Promise<ContentRef>;
}

/**
 * Brings contents into the store: streaming, in bounded memory, hashed and written by a pool of threads. Nothing is visible to others
 * before `finish`. Several contents may be open at once. Exactly one of `finish` and `abort` ends it.
 */
export interface ContentWriter {
  /** Begins a content of exactly `size` bytes. */
  add(size: number): ContentSink;
  /** A whole content in one go; resolves when its bytes are taken (not yet hashed: see `ref`). TRUNCATED if there are not `size` bytes. */
  put(
    size: number,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<{ readonly ref: Promise<ContentRef> }>;
  /** A whole sector (4 MiB, or less: zeros follow) that must have this root: BAD_SECTOR if not. Hashed in the pool. */
  putSector(root: Uint8Array, data: Uint8Array): Promise<void>;
  /** Resolves when every content written so far has its `ref`. */
  flush(): Promise<void>;
  /**
   * Seals the last sector, syncs, and makes all contents visible in one durable transaction; `also` runs in the same transaction,
   * for records that refer to the contents (all or nothing). DISK_FULL and everything else that went wrong is thrown here.
   */
  finish(also?: () => void): Promise<void>;
  /** Forgets everything since the writer began. Never throws. */
  abort(): Promise<void>;
  /** What happened so far. */
  readonly stats: WriterStats;
}

export interface WriterStats {
  contents: number;
  bytes: number;
  /** Contents, and their bytes, that were in the store already (or came twice). */
  knownContents: number;
  knownBytes: number;
  /** Sector files written. */
  sectors: number;
}

/** Opens a writer. */
export function openWriter(): ContentWriter {
  assert.fail('the writer is being built');
}
