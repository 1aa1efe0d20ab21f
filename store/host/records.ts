import assert from 'node:assert/strict';
import type { HashLevel } from '../../mdm/file.ts';
import type { State } from '../../mdm/instruction.ts';
import { BLOCK_BYTES, ROOT_BYTES, SECTOR_BYTES } from '../../mdm/merkle.ts';
import { ZERO_SECTOR_ROOT } from '../content.ts';

/** What the host keeps in the index, byte by byte as in docs/formats/host.md. */

/** Tables of the index that are the host's. */
export const TABLES = {
  files: 'mdm-files',
  sectors: 'mdm-sectors',
  hashes: 'mdm-hashes',
  blocks: 'mdm-blocks',
} as const;

export const BLOCKS_PER_SECTOR = SECTOR_BYTES / BLOCK_BYTES;
const BITMAP_BYTES = BLOCKS_PER_SECTOR / 8;
/** Ids of files and of sectors' belongings: random, so that nothing need count. */
export const ID_BYTES = 8;

/** A file: its id, under which its hashes are, and its state. */
export interface FileRecord {
  id: Buffer;
  state: State;
}

/**
 * A sector of one or more files, by its root: the sector file `base` up to `baseBytes` and zeros after, under the
 * blocks of its own. Never changed but for `refs`.
 */
export interface SectorRecord {
  /** Its blocks and its 1,024 hashes are under this. */
  id: Buffer;
  /** How many places in files have this sector. */
  refs: number;
  /** 1 to 4 MiB; less in the last sector of a file only. */
  bytes: number;
  /** Root of a sector of the store; the all-zero sector's when there is none. */
  base: Uint8Array;
  baseBytes: number;
  /** Bit i: block i is in the table of blocks. */
  own: Uint8Array;
}

const FILE_RECORD_BYTES = ID_BYTES + ROOT_BYTES + 8;
const SECTOR_RECORD_BYTES = ID_BYTES + 12 + ROOT_BYTES + BITMAP_BYTES;

export function encodeFile({ id, state }: FileRecord): Buffer {
  const bytes = Buffer.alloc(FILE_RECORD_BYTES);
  bytes.set(id);
  bytes.set(state.root, ID_BYTES);
  bytes.writeBigUInt64LE(BigInt(state.size), ID_BYTES + ROOT_BYTES);
  return bytes;
}

export function decodeFile(bytes: Buffer): FileRecord {
  assert.equal(bytes.length, FILE_RECORD_BYTES);
  const root = new Uint8Array(bytes.subarray(ID_BYTES, ID_BYTES + ROOT_BYTES));
  const size = Number(bytes.readBigUInt64LE(ID_BYTES + ROOT_BYTES));
  return { id: bytes.subarray(0, ID_BYTES), state: { root, size } };
}

export function encodeSector(record: SectorRecord): Buffer {
  const bytes = Buffer.alloc(SECTOR_RECORD_BYTES);
  bytes.set(record.id);
  bytes.writeUInt32LE(record.refs, ID_BYTES);
  bytes.writeUInt32LE(record.bytes, ID_BYTES + 4);
  bytes.writeUInt32LE(record.baseBytes, ID_BYTES + 8);
  bytes.set(record.base, ID_BYTES + 12);
  bytes.set(record.own, ID_BYTES + 12 + ROOT_BYTES);
  return bytes;
}

export function decodeSector(bytes: Buffer): SectorRecord {
  assert.equal(bytes.length, SECTOR_RECORD_BYTES);
  return {
    id: bytes.subarray(0, ID_BYTES),
    refs: bytes.readUInt32LE(ID_BYTES),
    bytes: bytes.readUInt32LE(ID_BYTES + 4),
    baseBytes: bytes.readUInt32LE(ID_BYTES + 8),
    base: bytes.subarray(ID_BYTES + 12, ID_BYTES + 12 + ROOT_BYTES),
    own: bytes.subarray(ID_BYTES + 12 + ROOT_BYTES),
  };
}

/** Key of a group of hashes: of a file (levels 16, 26, 36), or of a sector (level 6, group 0). */
export function hashKey(id: Uint8Array, level: HashLevel, group: number): Buffer {
  const key = Buffer.alloc(ID_BYTES + 5);
  key.set(id);
  key[ID_BYTES] = level;
  key.writeUInt32BE(group, ID_BYTES + 1);
  return key;
}

/** The group that a key of `hashKey` is of. */
export const groupOfKey = (key: Buffer): number => key.readUInt32BE(ID_BYTES + 1);

/** Key of one of a sector's own blocks. */
export function blockKey(id: Uint8Array, block: number): Buffer {
  const key = Buffer.alloc(ID_BYTES + 2);
  key.set(id);
  key.writeUInt16BE(block, ID_BYTES);
  return key;
}

/** Whether the block is one of the sector's own. */
export const isOwn = (own: Uint8Array, block: number): boolean => (own[block >> 3]! & (1 << (block & 7))) !== 0;

/** A bitmap of these blocks. */
export function bitmapOf(blocks: Iterable<number>): Uint8Array {
  const own = new Uint8Array(BITMAP_BYTES);
  for (const block of blocks) own[block >> 3]! |= 1 << (block & 7);
  return own;
}

/** The blocks of a bitmap, ascending. */
export function* blocksOf(own: Uint8Array): Generator<number> {
  for (let block = 0; block < BLOCKS_PER_SECTOR; block++) if (isOwn(own, block)) yield block;
}

export const NO_BASE = ZERO_SECTOR_ROOT;
