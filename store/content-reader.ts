import assert from 'node:assert/strict';
import { isPgError } from '../mdm/error.ts';
import { type ContentRef, type Extent, isZeroSector } from './content.ts';
import { UnitCache } from './packed.ts';
import { SectorFile } from './sector.ts';

/**
 * Sectors of a large content that are read ahead of a reader who has gone from one to the next: the kernel itself stops
 * at the end of a file.
 */
const AHEAD = 4;
/** A read that starts this near to where the last one ended goes on with it: the kernel asks for pieces of a run a little out of order. */
const SEQUENTIAL_BYTES = 1 << 20;
/** Sector files kept open by one thread: each costs a descriptor and 4 KiB. */
const OPEN_SECTORS = 256;
/** Unpacked blocks of 64 KiB kept by one thread: 4 MiB. Small files lie in them as they lay in the layer, and are read in such an order. */
const KEPT_UNITS = 64;

/** Sector files open for reading, the least recently used closed first. One for each store of a thread. */
export class SectorCache {
  private readonly files = new Map<string, SectorFile>();
  private latest = '';
  private latestFile: SectorFile | undefined;
  private readonly pathOf: (root: Uint8Array) => string;
  private readonly units = new UnitCache(KEPT_UNITS);

  constructor(pathOf: (root: Uint8Array) => string) {
    this.pathOf = pathOf;
  }

  /**
   * The file of the sector `root`, whose bytes as latin1 are `key`. Good until the next call. MISSING_SECTOR,
   * CORRUPT_SECTOR.
   */
  get(key: string, root: Uint8Array): SectorFile {
    if (key === this.latest && this.latestFile) return this.latestFile;
    let file = this.files.get(key);
    if (file) {
      this.files.delete(key);
    } else {
      file = new SectorFile(this.pathOf(root), root, this.units);
      if (this.files.size >= OPEN_SECTORS) {
        const [oldest, oldestFile] = this.files.entries().next().value!;
        this.files.delete(oldest);
        oldestFile.close();
      }
    }
    this.files.set(key, file);
    this.latest = key;
    this.latestFile = file;
    return file;
  }

  /**
   * Puts bytes [offset, offset + length) of the sector at `into[at]`, as `SectorFile.read` does. What fails is tried once more if another file has taken the place of the open one: it may
   * have been mended.
   */
  read(key: string, root: Uint8Array, into: Uint8Array, at: number, offset: number, length: number): void {
    const file = this.get(key, root);
    try {
      file.read(into, at, offset, length);
    } catch (error) {
      if (!isPgError(error, 'CORRUPT_SECTOR') || !file.isReplaced()) throw error;
      this.files.delete(key);
      this.latestFile = undefined;
      file.close();
      this.get(key, root).read(into, at, offset, length);
    }
  }

  close(): void {
    this.latestFile = undefined;
    for (const file of this.files.values()) file.close();
    this.files.clear();
  }
}

/** A sector's root as a key of maps. */
export const sectorKey = (root: Uint8Array): string =>
  Buffer.from(root.buffer, root.byteOffset, root.byteLength).toString('latin1');

interface Piece {
  /** Key in the sector cache; empty for a hole. */
  readonly key: string;
  readonly sector: Uint8Array;
  readonly offset: number;
  /** First byte and end of the piece within the content. */
  readonly start: number;
  readonly end: number;
}

/**
 * A content ready to be read by this thread: its extents resolved. It holds no descriptor: there is nothing to close.
 */
export class OpenContent {
  readonly ref: ContentRef;
  readonly size: number;
  private pieces: readonly Piece[];
  private readonly cache: SectorCache;
  private lastPiece = 0;
  private lastEnd = 0;
  private readAheadTo = 0;

  private readonly whereNow: () => readonly Extent[] | undefined;

  /** `whereNow`: looks the content up again. */
  constructor(
    ref: ContentRef,
    extents: readonly Extent[],
    cache: SectorCache,
    whereNow: () => readonly Extent[] | undefined,
  ) {
    this.ref = ref;
    this.size = ref.size;
    this.cache = cache;
    this.whereNow = whereNow;
    this.pieces = this.piecesOf(extents);
  }

  private piecesOf(extents: readonly Extent[]): Piece[] {
    let start = 0;
    const pieces = extents.map(({ sector, offset, length }) => {
      const piece = { key: isZeroSector(sector) ? '' : sectorKey(sector), sector, offset, start, end: start + length };
      start += length;
      return piece;
    });
    assert.equal(start, this.size, 'extents cover the content');
    return pieces;
  }

  /**
   * Fills `into` with the content from `offset` on; the count returned is less than `into.length` only at the content's
   * end. Every byte has been checked against the CRC of its 4 KiB block since it came off the disk. Bytes of `into`
   * after the count may be overwritten. Throws CORRUPT_SECTOR (naming sector, block and file) or MISSING_SECTOR; then
   * `into` holds nothing to be used.
   */
  readAt(into: Uint8Array, offset: number): number {
    try {
      return this.readPieces(into, offset);
    } catch (error) {
      if (!isPgError(error, 'MISSING_SECTOR')) throw error;
      // The sectors may have been repacked since the content was opened: it lies elsewhere then.
      const now = this.whereNow();
      if (!now) throw error;
      this.pieces = this.piecesOf(now);
      this.lastPiece = 0;
      this.readAheadTo = 0;
      return this.readPieces(into, offset);
    }
  }

  private readPieces(into: Uint8Array, offset: number): number {
    const end = Math.min(this.size, offset + into.length);
    if (offset >= end) return 0;
    let at = 0;
    const isSequential = Math.abs(offset - this.lastEnd) <= SEQUENTIAL_BYTES;
    this.lastEnd = end;
    for (let i = this.pieceAt(offset); offset < end; i++) {
      const piece = this.pieces[i]!;
      const length = Math.min(piece.end, end) - offset;
      if (i !== this.lastPiece) this.enter(i, isSequential);
      if (piece.key === '') into.fill(0, at, at + length);
      else this.cache.read(piece.key, piece.sector, into, at, piece.offset + (offset - piece.start), length);
      at += length;
      offset += length;
    }
    return at;
  }

  /** The reader comes to piece `i`. One who jumps about gets nothing read ahead: it would only be in his way. */
  private enter(i: number, isSequential: boolean): void {
    if (isSequential && i === this.lastPiece + 1) {
      const to = Math.min(i + AHEAD, this.pieces.length - 1);
      for (let next = Math.max(i, this.readAheadTo) + 1; next <= to; next++) {
        const { key, sector } = this.pieces[next]!;
        try {
          if (key !== '') this.cache.get(key, sector).readAhead();
        } catch {
          break; // a sector that is missing is the business of the read that needs it
        }
      }
      this.readAheadTo = to;
    }
    this.lastPiece = i;
  }

  /** Whether all of [offset, offset + length) is hole: bytes that are zero without being stored. */
  isHole(offset: number, length: number): boolean {
    const end = Math.min(this.size, offset + length);
    for (let i = this.pieceAt(offset); i < this.pieces.length && this.pieces[i]!.start < end; i++) {
      if (this.pieces[i]!.key !== '') return false;
    }
    return true;
  }

  private pieceAt(offset: number): number {
    let low = 0;
    let high = this.pieces.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.pieces[middle]!.end > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
