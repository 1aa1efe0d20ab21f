import { constants, crc32, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { SECTOR_BYTES } from '../mdm/merkle.ts';

/**
 * The compressed form of a sector (docs/formats/sector.md): a head, then its 64 blocks of 64 KiB, each a zstd frame of its own or as it is. The bytes that it stands
 * for are the same 4 MiB, with the same root: one form may take the other's place at any time.
 */

/** What is compressed for itself: a read of one byte costs the decompression of this much. */
export const UNIT_BYTES = 65_536;
const UNITS = SECTOR_BYTES / UNIT_BYTES;
const MAGIC = 0x317a4750; // "PGz1"
const ENTRY_BYTES = 12;
/** Bytes before the first block. */
export const PACKED_HEAD_BYTES = 16 + UNITS * ENTRY_BYTES;
/** A file of which less than an eighth would be saved stays as it is: its reads need no decompression. */
const WORTH = 7 / 8;
const ZERO_UNIT = Buffer.alloc(UNIT_BYTES);
/** Room for a whole block and what zlib adds to know that it is whole: else it would come in two pieces, to be joined. */
const CHUNK_BYTES = UNIT_BYTES + 1024;

/** A block of a packed file. */
export interface PackedUnit {
  /** Where it begins in the file. */
  readonly at: number;
  /** Bytes it takes there: 0 for zeros, UNIT_BYTES if it is not compressed. */
  readonly stored: number;
  /** CRC32 of the stored bytes. */
  readonly crc: number;
}

/**
 * The packed file of a sector of which the first `used` bytes are meant and the rest is zero, or undefined if that would not save enough. `level` is zstd's. 5 to 50 ms.
 */
export function packSector(data: Uint8Array, used: number, level: number): Buffer | undefined {
  const head = Buffer.alloc(PACKED_HEAD_BYTES);
  const parts: Buffer[] = [head];
  let at = PACKED_HEAD_BYTES;
  let plain = 0;
  for (let unit = 0; unit < UNITS; unit++) {
    const start = unit * UNIT_BYTES;
    const bytes = start + UNIT_BYTES <= used ? view(data, start, UNIT_BYTES) : lastUnit(data, start, used);
    const entry = 16 + unit * ENTRY_BYTES;
    head.writeUInt32LE(at, entry);
    if (bytes.equals(ZERO_UNIT)) continue;
    plain += Math.min(UNIT_BYTES, used - start);
    const frame = zstdCompressSync(bytes, {
      chunkSize: CHUNK_BYTES,
      params: { [constants.ZSTD_c_compressionLevel]: level },
    });
    const stored = frame.length < UNIT_BYTES * WORTH ? frame : Buffer.from(bytes);
    head.writeUInt32LE(stored.length, entry + 4);
    head.writeUInt32LE(crc32(stored), entry + 8);
    parts.push(stored);
    at += stored.length;
  }
  if (at > plain * WORTH) return undefined;
  head.writeUInt32LE(MAGIC, 0);
  head.writeUInt32LE(at, 8);
  head.writeUInt32LE(crc32(head.subarray(8)), 4);
  return Buffer.concat(parts, at);
}

const view = (data: Uint8Array, at: number, length: number): Buffer =>
  Buffer.from(data.buffer, data.byteOffset + at, length);

function lastUnit(data: Uint8Array, start: number, used: number): Buffer {
  if (used <= start) return ZERO_UNIT;
  const bytes = Buffer.alloc(UNIT_BYTES);
  bytes.set(data.subarray(start, used));
  return bytes;
}

/** The blocks that a head tells of, or what is wrong with it, in words. `fileBytes`: how long the file is. */
export function readPackedHead(head: Buffer, fileBytes: number): PackedUnit[] | string {
  if (head.length < PACKED_HEAD_BYTES) return 'is cut off';
  if (head.readUInt32LE(0) !== MAGIC) return 'is cut off, or of a form that this pg does not know';
  if (crc32(head.subarray(8, PACKED_HEAD_BYTES)) !== head.readUInt32LE(4)) return 'does not have its checksum';
  if (head.readUInt32LE(8) !== fileBytes) return 'is cut off';
  return Array.from({ length: UNITS }, (_, unit) => {
    const entry = 16 + unit * ENTRY_BYTES;
    return {
      at: head.readUInt32LE(entry),
      stored: head.readUInt32LE(entry + 4),
      crc: head.readUInt32LE(entry + 8),
    };
  });
}

/** The 64 KiB that `stored` bytes of a packed file stand for; undefined when they do not have their checksum. */
export function unpackUnit(stored: Buffer, crc: number): Buffer | undefined {
  if (stored.length === 0) return ZERO_UNIT;
  if (crc32(stored) !== crc) return undefined;
  if (stored.length === UNIT_BYTES) return stored;
  try {
    const bytes = zstdDecompressSync(stored, { chunkSize: CHUNK_BYTES, maxOutputLength: UNIT_BYTES });
    return bytes.length === UNIT_BYTES ? bytes : undefined;
  } catch {
    return undefined; // no frame, though its checksum is right: made so
  }
}

/** Puts the 4 MiB of a whole packed file at the beginning of `into`; answers with the numbers of the 4 KiB blocks that cannot be had. -1: not even its head. */
export function unpackSector(file: Buffer, into: Uint8Array): number[] {
  const units = readPackedHead(file, file.length);
  if (typeof units === 'string') return [-1];
  const bad: number[] = [];
  const blocks = UNIT_BYTES / 4096;
  units.forEach(({ at, stored, crc }, unit) => {
    const bytes = unpackUnit(file.subarray(at, at + stored), crc);
    if (bytes) into.set(bytes, unit * UNIT_BYTES);
    else for (let block = 0; block < blocks; block++) bad.push(unit * blocks + block);
  });
  return bad;
}

/** Blocks of packed files as they are, the least recently used given up first: what one thread keeps of all its stores' files. */
export class UnitCache {
  private readonly units = new Map<number, Buffer>();
  private readonly limit: number;

  /** `limit` blocks of 64 KiB. */
  constructor(limit: number) {
    this.limit = limit;
  }

  get(key: number): Buffer | undefined {
    const unit = this.units.get(key);
    if (unit) {
      this.units.delete(key);
      this.units.set(key, unit);
    }
    return unit;
  }

  put(key: number, unit: Buffer): void {
    if (this.units.size >= this.limit) this.units.delete(this.units.keys().next().value!);
    this.units.set(key, unit);
  }
}
