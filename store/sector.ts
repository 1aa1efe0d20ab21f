import assert from 'node:assert/strict';
import {
  closeSync,
  fdatasyncSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readSync,
  readvSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { endianness } from 'node:os';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { PgError } from '../mdm/error.ts';
import { BLOCK_BYTES, SECTOR_BYTES } from '../mdm/merkle.ts';
import {
  PACKED_HEAD_BYTES,
  type PackedUnit,
  packSector,
  readPackedHead,
  UNIT_BYTES,
  type UnitCache,
  unpackSector,
  unpackUnit,
} from './packed.ts';
import { adviseWillNeed } from './read-ahead.ts';

/** Blocks of a sector: each has a CRC of its own. */
const BLOCKS = SECTOR_BYTES / BLOCK_BYTES;
/** The table that follows the data: one little-endian CRC32 for each block. */
const TABLE_BYTES = BLOCKS * 4;
/** Size of every sector file that is not packed (docs/formats/sector.md). */
export const SECTOR_FILE_BYTES = SECTOR_BYTES + TABLE_BYTES;

/**
 * Bytes of one write. A larger one has Linux 6.18's ext4 look for as large a piece of free memory for the page cache,
 * at ten times the cost once memory is in use.
 */
const WRITE_BYTES = 256 * 1024;

const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);
const ZERO_BLOCK_CRC = crc32(ZERO_BLOCK);

assert.equal(endianness(), 'LE', 'tables of sectors are read as they lie on disk');

/**
 * Writes a sector file: the first `used` bytes of `data`, which must be zero after that up to the end of their block.
 * Blocks of zeros become holes. Not synced: that is the caller's. File-system errors are thrown as they are (see
 * `diskError`).
 */
export function writeSectorFile(path: string, data: Uint8Array, used: number): void {
  const table = new Uint32Array(BLOCKS).fill(ZERO_BLOCK_CRC);
  const fd = openSync(path, 'w', 0o600);
  try {
    let runStart = -1;
    const blocks = Math.ceil(used / BLOCK_BYTES);
    for (let block = 0; block <= blocks; block++) {
      const at = block * BLOCK_BYTES;
      let empty = true;
      if (block < blocks) {
        const bytes = data.subarray(at, at + BLOCK_BYTES);
        const crc = crc32(bytes);
        table[block] = crc;
        empty = crc === ZERO_BLOCK_CRC && Buffer.compare(bytes, ZERO_BLOCK) === 0;
      }
      if (!empty && runStart < 0) runStart = at;
      if (runStart < 0 || (!empty && at - runStart < WRITE_BYTES)) continue;
      writeFully(fd, data, runStart, at);
      runStart = empty ? -1 : at;
    }
    const bytes = new Uint8Array(table.buffer);
    writeFully(fd, bytes, 0, TABLE_BYTES, SECTOR_BYTES);
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes the packed form of a sector (packed.ts) if that saves enough; false, and no file, if not. Not synced. File-system errors are thrown as they are.
 */
export function writePackedFile(path: string, data: Uint8Array, used: number, level: number): boolean {
  const packed = packSector(data, used, level);
  if (packed === undefined) return false;
  const fd = openSync(path, 'w', 0o600);
  try {
    for (let at = 0; at < packed.length; at += WRITE_BYTES)
      writeFully(fd, packed, at, Math.min(packed.length, at + WRITE_BYTES));
  } finally {
    closeSync(fd);
  }
  return true;
}

/** Bytes `from` to `to` of `bytes`, at `from + shift` of the file. */
function writeFully(fd: number, bytes: Uint8Array, from: number, to: number, shift = 0): void {
  for (let at = from; at < to;) at += writeSync(fd, bytes, at, to - at, at + shift);
}

/**
 * Writes a sector file at `temporary`, syncs it and names it `path`, durably. `beforeNaming` runs just before it gets
 * its name. DISK_FULL, DISK_ERROR.
 */
export function placeSectorFile(
  temporary: string,
  path: string,
  data: Uint8Array,
  used: number,
  beforeNaming: () => void,
): void {
  try {
    writeSectorFile(temporary, data, used);
    syncPath(temporary, fdatasyncSync);
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    beforeNaming();
    renameSync(temporary, path);
    syncPath(dirname(path), fsyncSync);
    syncPath(dirname(dirname(path)), fsyncSync);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw diskError(cause, `cannot store sector file ${path}`);
  }
}

/** Makes the bytes of a file durable, as fdatasync(2). */
export function syncFile(path: string): void {
  syncPath(path, fdatasyncSync);
}

/** Makes names that were made, replaced or removed in a directory durable. */
export function syncDirectory(path: string): void {
  syncPath(path, fsyncSync);
}

function syncPath(path: string, sync: (fd: number) => void): void {
  const fd = openSync(path, 'r');
  try {
    sync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Puts the 4 MiB of a sector, whose file in either form is `file`, at the beginning of `into`; answers with the numbers of the 4 KiB blocks that do not have their
 * checksum, or [-1] when the file has the wrong size or no head.
 */
export function decodeSectorFile(file: Buffer, into: Uint8Array): number[] {
  if (file.length !== SECTOR_FILE_BYTES) return unpackSector(file, into);
  into.set(file.subarray(0, SECTOR_BYTES));
  const bad: number[] = [];
  for (let block = 0; block < BLOCKS; block++) {
    const crc = crc32(file.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES));
    if (crc !== file.readUInt32LE(SECTOR_BYTES + block * 4)) bad.push(block);
  }
  return bad;
}

/** Whether these are the bytes of a packed file. */
export const isPackedFile = (file: Buffer): boolean => file.length !== SECTOR_FILE_BYTES;

/** Bytes of a sector before its zero tail. */
export function usedBytes(sector: Uint8Array): number {
  let used = SECTOR_BYTES;
  while (used >= BLOCK_BYTES && ZERO_BLOCK.compare(sector, used - BLOCK_BYTES, used) === 0) used -= BLOCK_BYTES;
  while (used > 0 && sector[used - 1] === 0) used--;
  return used;
}

/** Room for a read's first and last block, of which only a part is wanted: of use within one read, by whichever file. */
const EDGES = Buffer.allocUnsafeSlow(2 * BLOCK_BYTES);

/** Sector files opened so far by this thread: their numbers tell their blocks apart in the cache. */
let opened = 0;

/** A sector file opened for checked reads; which form it has is of no concern to whoever reads. */
export class SectorFile {
  readonly path: string;
  private readonly fd: number;
  private readonly root: Uint8Array;
  private readonly fileBytes: number;
  private readonly units: UnitCache;
  private readonly number = opened++;
  /** Read with the first block, not at open: a file that was opened to be read ahead makes nobody wait. */
  private table: Uint32Array | undefined;
  private head: PackedUnit[] | undefined;

  /** `units`: where unpacked blocks are kept. MISSING_SECTOR if the file is not there. */
  constructor(path: string, root: Uint8Array, units: UnitCache) {
    this.path = path;
    this.root = root;
    this.units = units;
    try {
      this.fd = openSync(path, 'r');
      this.fileBytes = fstatSync(this.fd).size;
    } catch (cause) {
      const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
      if (!missing) throw diskError(cause, `cannot open sector file ${path}`);
      throw new PgError('MISSING_SECTOR', `sector ${hex(root)} is not in the store (${path})`, {
        cause,
        hint: "run 'pg verify'",
      });
    }
  }

  close(): void {
    closeSync(this.fd);
  }

  /** Whether another file has its name now. */
  isReplaced(): boolean {
    return statSync(this.path, { throwIfNoEntry: false })?.ino !== fstatSync(this.fd).ino;
  }

  /** Has the kernel begin to read the whole file; returns at once. */
  readAhead(): void {
    adviseWillNeed(this.fd, 0, this.fileBytes);
  }

  /**
   * Puts bytes [offset, offset + length) of the sector at `into[at]`, having checked each block they lie in. When
   * `into` has the room, bytes after them may be overwritten by the rest of the last block. Throws CORRUPT_SECTOR.
   */
  read(into: Uint8Array, at: number, offset: number, length: number): void {
    try {
      if (this.fileBytes === SECTOR_FILE_BYTES) this.readBlocks(into, at, offset, length);
      else this.readUnits(into, at, offset, length);
    } catch (error) {
      into.fill(0, at, at + length); // what did not pass its check does not stay in the caller's buffer
      throw error;
    }
  }

  /** From a packed file: the blocks of 64 KiB that the bytes lie in are unpacked, checked, and kept for the next read. */
  private readUnits(into: Uint8Array, at: number, offset: number, length: number): void {
    for (let done = 0; done < length;) {
      const within = (offset + done) % UNIT_BYTES;
      const part = Math.min(length - done, UNIT_BYTES - within);
      into.set(this.unit((offset + done - within) / UNIT_BYTES).subarray(within, within + part), at + done);
      done += part;
    }
  }

  private unit(unit: number): Buffer {
    const key = this.number * (SECTOR_BYTES / UNIT_BYTES) + unit;
    const kept = this.units.get(key);
    if (kept) return kept;
    const { at, stored, crc } = (this.head ??= this.readHead())[unit]!;
    const packed = Buffer.allocUnsafe(stored);
    const block = unit * (UNIT_BYTES / BLOCK_BYTES);
    this.readFully(packed, 0, stored, at, block);
    const bytes = unpackUnit(packed, crc);
    if (!bytes) throw this.corrupt(block, 'does not have its checksum');
    this.units.put(key, bytes);
    return bytes;
  }

  private readHead(): PackedUnit[] {
    const bytes = Buffer.alloc(PACKED_HEAD_BYTES);
    if (this.fileBytes >= PACKED_HEAD_BYTES) this.readFully(bytes, 0, PACKED_HEAD_BYTES, 0, BLOCKS);
    const head = readPackedHead(bytes, this.fileBytes);
    if (typeof head === 'string') throw this.corrupt(BLOCKS, head);
    return head;
  }

  private readBlocks(into: Uint8Array, at: number, offset: number, length: number): void {
    const first = Math.floor(offset / BLOCK_BYTES);
    const blocks = Math.ceil((offset + length) / BLOCK_BYTES) - first;
    const whole = blocks * BLOCK_BYTES;
    const head = offset - first * BLOCK_BYTES;
    if (head === 0 && at + whole <= into.length) {
      // Blocks of the file are blocks of the request: nothing is copied.
      this.readFully(into, at, whole, offset);
      this.check(into, at, first, blocks);
    } else if (blocks <= 2) {
      this.readFully(EDGES, 0, whole, first * BLOCK_BYTES);
      this.check(EDGES, 0, first, blocks);
      EDGES.copy(into, at, head, head + length);
    } else {
      this.readEdged(into, at, offset, length, first, blocks);
    }
  }

  /**
   * Three or more blocks whose first or last is wanted in part: those go through EDGES, the rest straight to `into`,
   * in one system call.
   */
  private readEdged(into: Uint8Array, at: number, offset: number, length: number, first: number, blocks: number): void {
    const head = offset - first * BLOCK_BYTES;
    const headBytes = head === 0 ? 0 : BLOCK_BYTES - head;
    const tailBytes = (offset + length) % BLOCK_BYTES;
    const headBlock = EDGES.subarray(0, head === 0 ? 0 : BLOCK_BYTES);
    const tailBlock = EDGES.subarray(BLOCK_BYTES, tailBytes === 0 ? BLOCK_BYTES : 2 * BLOCK_BYTES);
    const middle = into.subarray(at + headBytes, at + length - tailBytes);
    const parts = [headBlock, middle, tailBlock].filter((part) => part.length > 0);
    let got: number;
    try {
      got = readvSync(this.fd, parts, first * BLOCK_BYTES);
    } catch (cause) {
      throw this.corrupt(first, `cannot be read: ${(cause as Error).message}`, cause);
    }
    if (got !== blocks * BLOCK_BYTES) throw this.corrupt(first, 'is cut off');
    const headBlocks = headBlock.length / BLOCK_BYTES;
    const middleBlocks = middle.length / BLOCK_BYTES;
    this.check(headBlock, 0, first, headBlocks);
    this.check(middle, 0, first + headBlocks, middleBlocks);
    this.check(tailBlock, 0, first + headBlocks + middleBlocks, tailBlock.length / BLOCK_BYTES);
    into.set(headBlock.subarray(head), at);
    into.set(tailBlock.subarray(0, tailBytes), at + length - tailBytes);
  }

  private readFully(
    into: Uint8Array,
    at: number,
    length: number,
    position: number,
    block = position / BLOCK_BYTES,
  ): void {
    let got: number;
    try {
      got = readSync(this.fd, into, at, length, position);
    } catch (cause) {
      throw this.corrupt(block, `cannot be read: ${(cause as Error).message}`, cause);
    }
    if (got !== length) throw this.corrupt(block, 'is cut off');
  }

  /**
   * One checksum over all of the blocks is compared first: that is a third faster than one for each, which then only
   * says which of them is bad.
   */
  private check(bytes: Uint8Array, at: number, first: number, blocks: number): void {
    if (blocks === 0) return;
    const table = (this.table ??= this.readTable());
    const end = at + blocks * BLOCK_BYTES;
    const all = at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end);
    if (crc32(all) === combinedCrc(table, first, blocks)) return;
    let block = 0;
    while (block < blocks) {
      if (crc32(all.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)) !== table[first + block]) break;
      block++;
    }
    throw this.corrupt(first + block, 'does not have its checksum');
  }

  private readTable(): Uint32Array {
    const table = new Uint32Array(BLOCKS);
    this.readFully(new Uint8Array(table.buffer), 0, TABLE_BYTES, SECTOR_BYTES);
    return table;
  }

  private corrupt(block: number, what: string, cause?: unknown): PgError {
    const where = block === BLOCKS ? 'the table of its blocks' : `block ${block}`;
    return new PgError('CORRUPT_SECTOR', `sector ${hex(this.root)}: ${where} ${what} (${this.path})`, {
      hint: "run 'pg verify'; import or fetch the image again",
      ...(cause === undefined ? {} : { cause }),
    });
  }
}

/**
 * SHIFT[256 i + b] is what byte i of a CRC, being b, becomes when a block of zeros follows: appending is linear over
 * GF(2) (as zlib's crc32_combine), so crc(A || B) = shift(crc(A)) ^ crc(B) for a block B.
 */
const SHIFT = new Uint32Array(4 * 256);
for (let bit = 0; bit < 32; bit++) {
  const shifted = crc32(ZERO_BLOCK, (1 << bit) >>> 0) ^ ZERO_BLOCK_CRC;
  const low = 1 << (bit & 7);
  for (let b = 0; b < 256; b++) if (b & low) SHIFT[256 * (bit >> 3) + b]! ^= shifted;
}

/** CRC of `blocks` blocks, one after another, from the CRC of each. */
function combinedCrc(table: Uint32Array, first: number, blocks: number): number {
  let crc = table[first]!;
  for (let i = first + 1; i < first + blocks; i++) {
    crc =
      SHIFT[crc & 255]! ^
      SHIFT[256 + ((crc >>> 8) & 255)]! ^
      SHIFT[512 + ((crc >>> 16) & 255)]! ^
      SHIFT[768 + (crc >>> 24)]! ^
      table[i]!;
  }
  return crc >>> 0;
}

const hex = (root: Uint8Array): string => Buffer.from(root).toString('hex');

/** Whether a system call, or LMDB (which reports the text of strerror(3)), failed for want of space. */
export function isDiskFull(error: unknown): boolean {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT' || /No space left|quota exceeded/i.test(message);
}

/** The PgError for what a write, sync or rename of the store threw: DISK_FULL or DISK_ERROR; a PgError stays itself. */
export function diskError(cause: unknown, doing: string): PgError {
  if (cause instanceof PgError) return cause;
  if (!isDiskFull(cause)) return new PgError('DISK_ERROR', `${doing}: ${(cause as Error).message}`, { cause });
  return new PgError('DISK_FULL', `${doing}: no space left on the disk`, {
    cause,
    hint: "free some space ('pg gc'), then try again",
  });
}
