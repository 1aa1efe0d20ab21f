import assert from 'node:assert/strict';
import { PgError } from '../mdm/error.ts';
import { SECTOR_BYTES } from '../mdm/merkle.ts';

/**
 * A byte sequence, identified by its Merkle root (RFC 6962 shape over 64-byte leaves, BLAKE2b-256) and its size
 * together.
 */
export interface ContentRef {
  /** 32 bytes; of the empty content 32 zero bytes. */
  readonly root: Uint8Array;
  readonly size: number;
}

/**
 * A piece of a content: `length` bytes at `offset` of a sector. The extents of a content, one after another, are its
 * bytes. An extent of the all-zero sector (`isZeroSector`) is a hole: it has no file, its offset is 0 and it may be
 * longer than a sector.
 */
export interface Extent {
  /** Root of the sector, 32 bytes. */
  readonly sector: Uint8Array;
  readonly offset: number;
  readonly length: number;
}

/** Root of 4 MiB of zeros: the one sector that is known without being stored. */
export const ZERO_SECTOR_ROOT: Uint8Array = Buffer.from(
  '50ed59cecd5ed3ca9e65cec0797202091dbba45272dafa3faa4e27064eedd52c',
  'hex',
);

/** Whether `root` is that of 4 MiB of zeros. */
export function isZeroSector(root: Uint8Array): boolean {
  return root[0] === 0x50 && root[1] === 0xed && Buffer.compare(root, ZERO_SECTOR_ROOT) === 0;
}

/** Root, then size as u64 big-endian. */
export const CONTENT_KEY_BYTES = 40;

/** Key of a content in the tables. */
export function contentKey(ref: ContentRef): Buffer {
  assert.equal(ref.root.length, 32, 'a content root has 32 bytes');
  assert.ok(Number.isSafeInteger(ref.size) && ref.size >= 0, `content size ${ref.size}`);
  const key = Buffer.allocUnsafe(40);
  key.set(ref.root, 0);
  key.writeUInt32BE(Math.floor(ref.size / 2 ** 32), 32);
  key.writeUInt32BE(ref.size >>> 0, 36);
  return key;
}

/** The content that `contentKey` made `key` from. */
export function contentOfKey(key: Uint8Array): ContentRef {
  assert.equal(key.length, 40, 'a content key has 40 bytes');
  const view = new DataView(key.buffer, key.byteOffset, 40);
  return { root: key.slice(0, 32), size: view.getUint32(32) * 2 ** 32 + view.getUint32(36) };
}

/** Words for a content in messages: the first 12 hex digits of its root and its size. */
export function describeContent(ref: ContentRef): string {
  return `content ${Buffer.from(ref.root).toString('hex', 0, 6)} (${ref.size} bytes)`;
}

/** Bytes of one encoded extent: sector root (32), offset u32, length u64, both little-endian. */
const EXTENT_BYTES = 44;

/** The value of the contents table (docs/formats/store.md). */
export function encodeExtents(extents: readonly Extent[]): Buffer {
  const value = Buffer.allocUnsafe(extents.length * EXTENT_BYTES);
  let at = 0;
  for (const extent of extents) {
    value.set(extent.sector, at);
    value.writeUInt32LE(extent.offset, at + 32);
    value.writeUInt32LE(extent.length >>> 0, at + 36);
    value.writeUInt32LE(Math.floor(extent.length / 2 ** 32), at + 40);
    at += EXTENT_BYTES;
  }
  return value;
}

/** What `encodeExtents` encoded; throws CORRUPT_INDEX for a value that cannot be one. */
export function decodeExtents(value: Uint8Array): Extent[] {
  if (value.length % EXTENT_BYTES !== 0)
    throw new PgError('CORRUPT_INDEX', `an extent list of ${value.length} bytes is in the index`);
  const view = new DataView(value.buffer, value.byteOffset, value.length);
  const extents: Extent[] = [];
  for (let at = 0; at < value.length; at += EXTENT_BYTES) {
    extents.push({
      sector: value.slice(at, at + 32),
      offset: view.getUint32(at + 32, true),
      length: view.getUint32(at + 36, true) + view.getUint32(at + 40, true) * 2 ** 32,
    });
  }
  return extents;
}

/** The same bytes with neighbouring holes made one. */
export function mergeHoles(extents: readonly Extent[]): Extent[] {
  const merged: Extent[] = [];
  for (const extent of extents) {
    const last = merged.at(-1);
    if (last && isZeroSector(last.sector) && isZeroSector(extent.sector)) {
      merged[merged.length - 1] = { ...last, length: last.length + extent.length };
    } else merged.push(extent);
  }
  return merged;
}

/**
 * The pieces of 4 MiB that a content's root is folded from, the last one shorter: for each the extents that make it up. Throws BAD_CONTENT if an extent reaches out of its
 * sector, or they do not add up to the content's size.
 */
export function piecesOf(ref: ContentRef, extents: readonly Extent[]): Extent[][] {
  const bad = (why: string): PgError => new PgError('BAD_CONTENT', `the extents of ${describeContent(ref)} ${why}`);
  const pieces: Extent[][] = [];
  let piece: Extent[] = [];
  let room = SECTOR_BYTES;
  let left = ref.size;
  for (const { sector, offset, length } of extents) {
    const hole = isZeroSector(sector);
    if (!(length > 0) || length > left || (!hole && offset + length > SECTOR_BYTES) || (hole && offset !== 0))
      throw bad('do not fit');
    for (let rest = length; rest > 0;) {
      const size = Math.min(rest, room);
      piece.push({ sector, offset: hole ? 0 : offset + length - rest, length: size });
      rest -= size;
      room -= size;
      left -= size;
      if (room > 0 && left > 0) continue;
      pieces.push(piece);
      piece = [];
      room = SECTOR_BYTES;
    }
  }
  if (left !== 0) throw bad('do not add up to its size');
  return pieces;
}

/** The root of the sector that a piece is all of, if it is one. */
export function wholeSector(piece: readonly Extent[]): Uint8Array | undefined {
  const [first] = piece;
  return piece.length === 1 && first!.length === SECTOR_BYTES ? first!.sector : undefined;
}
