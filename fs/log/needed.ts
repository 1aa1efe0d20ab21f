import { closeSync, openSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { readFully } from './disk.ts';
import { CHECKPOINT_MAGIC, MARK_HEADER_BYTES } from './sidecar.ts';

/** The table of sectors at the beginning of a checkpoint's payload (docs/formats/checkpoint.md), which the cleaner reads without the rest. */
export interface NeededSector {
  sector: number;
  /** Bytes that are needed of it, an upper bound. */
  bytes: number;
}

/** Where the table starts in the payload, and bytes of each sector in it. */
const COUNT_AT = 16;
const TABLE_AT = 20;
const SECTOR_ENTRY_BYTES = 8;
const MAX_BYTES = 2 ** 32 - 1;

/** What a payload begins with: the next inode's number, how many inodes there are, and the table. */
export function encodeHead(nextIno: number, count: number, sectors: readonly NeededSector[]): Buffer {
  const head = Buffer.alloc(TABLE_AT + SECTOR_ENTRY_BYTES * sectors.length + 4);
  head.writeBigUInt64LE(BigInt(nextIno), 0);
  head.writeBigUInt64LE(BigInt(count), 8);
  head.writeUInt32LE(sectors.length, COUNT_AT);
  for (const [i, { sector, bytes }] of sectors.entries()) {
    head.writeUInt32LE(sector, TABLE_AT + SECTOR_ENTRY_BYTES * i);
    head.writeUInt32LE(Math.min(bytes, MAX_BYTES), TABLE_AT + SECTOR_ENTRY_BYTES * i + 4);
  }
  head.writeUInt32LE(crc32(head.subarray(0, -4)), head.length - 4);
  return head;
}

/** Bytes of what a payload with so many sectors begins with. */
export const headBytesOf = (sectors: number): number => TABLE_AT + SECTOR_ENTRY_BYTES * sectors + 4;

/** What the checkpoint in a file needs of the log with this salt; undefined when there is none, or it is damaged. */
export function neededSectors(path: string, salt: number): NeededSector[] | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const start = Buffer.alloc(MARK_HEADER_BYTES + TABLE_AT);
    if (readFully(fd, start, 0, start.length, 0) < start.length) return undefined;
    const isOurs =
      start.toString('latin1', 0, 8) === CHECKPOINT_MAGIC.padEnd(8, '\0') && start.readUInt32LE(12) === salt;
    const count = start.readUInt32LE(MARK_HEADER_BYTES + COUNT_AT);
    if (!isOurs || headBytesOf(count) > Number(start.readBigUInt64LE(32))) return undefined;
    const head = Buffer.alloc(headBytesOf(count));
    if (readFully(fd, head, 0, head.length, MARK_HEADER_BYTES) < head.length) return undefined;
    if (crc32(head.subarray(0, -4)) !== head.readUInt32LE(head.length - 4)) return undefined;
    return Array.from({ length: count }, (_, i) => ({
      sector: head.readUInt32LE(TABLE_AT + SECTOR_ENTRY_BYTES * i),
      bytes: head.readUInt32LE(TABLE_AT + SECTOR_ENTRY_BYTES * i + 4),
    }));
  } finally {
    closeSync(fd);
  }
}
