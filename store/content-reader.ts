import type { ContentRef, Extent } from './content.ts';

/** A content ready to be read by this thread: its extents resolved. Holds no descriptor of its own: there is nothing to close. */
export interface OpenContent {
  readonly ref: ContentRef;
  readonly size: number;
  readonly extents: readonly Extent[];
  /**
   * Fills `into` from `offset`; the number of bytes is less than asked only at the end of the content. Every byte has been checked against the
   * CRC of its 4 KiB block since it came off the disk. Throws CORRUPT_SECTOR (naming sector, block and file) or MISSING_SECTOR.
   */
  readAt(into: Uint8Array, offset: number): number;
}
