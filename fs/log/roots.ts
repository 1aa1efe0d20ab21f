import { closeSync, constants, fdatasyncSync, openSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import { Accumulator } from '../../mdm/accumulator.ts';
import { ROOT_BYTES, SECTOR_BYTES } from '../../mdm/merkle.ts';
import { readFully, replaceFile, syncDirectory, writeFully } from './disk.ts';
import { putU64 } from './entry.ts';
import { newer } from './sidecar.ts';

/** The file `roots` beside a log: docs/formats/log.md. */
const MAGIC = 'pgroots\0';
const VERSION = 1;
export const ROOTS_HEADER_BYTES = 64;
export const ROOTS_RECORD_BYTES = 40;
const STATE = { there: 0, gone: 1 } as const;

/** What is kept of a full sector of a log. */
export interface SectorRoot {
  root: Uint8Array;
  /** Its bytes were given back to the disk: only the root is left of it. */
  isGone: boolean;
}

/**
 * The Merkle roots of a log's full sectors. Several threads and processes may have it open: records are written once and never changed but from there to
 * gone, which the log's one writer does.
 */
export class RootsFile {
  readonly #path: string;
  readonly #salt: number;
  #fd = -1;
  #mayWrite = false;

  /** Of the log in `dir` with this salt. */
  constructor(dir: string, salt: number) {
    this.#path = join(dir, 'roots');
    this.#salt = salt;
  }

  /** What is kept of a sector, undefined when nothing is (yet, or any more). PgError LOG_VERSION. */
  get(sector: number): SectorRoot | undefined {
    if (!this.#open(false)) return undefined;
    const bytes = Buffer.alloc(ROOTS_RECORD_BYTES);
    const got = readFully(this.#fd, bytes, 0, ROOTS_RECORD_BYTES, ROOTS_HEADER_BYTES + sector * ROOTS_RECORD_BYTES);
    return got < ROOTS_RECORD_BYTES ? undefined : this.#decode(bytes, sector);
  }

  /** The sectors from the first on of which something is kept, up to the first of which nothing is. */
  all(): SectorRoot[] {
    if (!this.#open(false)) return [];
    const bytes = readFileSync(this.#path);
    const found: SectorRoot[] = [];
    for (let at = ROOTS_HEADER_BYTES; at + ROOTS_RECORD_BYTES <= bytes.length; at += ROOTS_RECORD_BYTES) {
      const record = this.#decode(bytes.subarray(at, at + ROOTS_RECORD_BYTES), found.length);
      if (record === undefined) break;
      found.push(record);
    }
    return found;
  }

  /** Keeps the roots of sectors that are full and durable in the log. Not durable itself until `sync`. */
  put(sector: number, record: SectorRoot): void {
    this.#open(true);
    const bytes = this.#encode(sector, record);
    writeFully(this.#fd, bytes, 0, ROOTS_RECORD_BYTES, ROOTS_HEADER_BYTES + sector * ROOTS_RECORD_BYTES);
  }

  /** fdatasync. */
  sync(): void {
    if (this.#fd >= 0) fdatasyncSync(this.#fd);
  }

  close(): void {
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Opens the file, for writing makes it if there is none or one of another log; false when there is nothing to read. */
  #open(write: boolean): boolean {
    if (this.#fd >= 0 && (this.#mayWrite || !write)) return true;
    this.close();
    const isThere = this.#isThere();
    if (!isThere && !write) return false;
    if (!isThere) {
      replaceFile(this.#path, [this.#header()]);
      syncDirectory(dirname(this.#path));
    }
    this.#fd = openSync(this.#path, write ? constants.O_RDWR : constants.O_RDONLY);
    this.#mayWrite = write;
    return true;
  }

  #isThere(): boolean {
    let fd: number;
    try {
      fd = openSync(this.#path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw error;
    }
    try {
      const header = Buffer.alloc(ROOTS_HEADER_BYTES);
      readFully(fd, header, 0, ROOTS_HEADER_BYTES, 0);
      if (header.toString('latin1', 0, 8) !== MAGIC || crc32(header.subarray(0, 60)) !== header.readUInt32LE(60))
        return false;
      if (header.readUInt16LE(8) > VERSION) throw newer(this.#path);
      return header.readUInt32LE(12) === this.#salt;
    } finally {
      closeSync(fd);
    }
  }

  #header(): Buffer {
    const header = Buffer.alloc(ROOTS_HEADER_BYTES);
    header.write(MAGIC, 0, 'latin1');
    header.writeUInt16LE(VERSION, 8);
    header.writeUInt32LE(this.#salt, 12);
    header.writeUInt32LE(crc32(header.subarray(0, 60)), 60);
    return header;
  }

  #encode(sector: number, { root, isGone }: SectorRoot): Buffer {
    const bytes = Buffer.alloc(ROOTS_RECORD_BYTES);
    bytes.set(root);
    bytes.writeUInt32LE(isGone ? STATE.gone : STATE.there, ROOT_BYTES);
    bytes.writeUInt32LE(this.#check(bytes, sector), ROOT_BYTES + 4);
    return bytes;
  }

  #decode(bytes: Buffer, sector: number): SectorRoot | undefined {
    if (bytes.readUInt32LE(ROOT_BYTES + 4) !== this.#check(bytes, sector)) return undefined;
    return { root: Uint8Array.from(bytes.subarray(0, ROOT_BYTES)), isGone: bytes[ROOT_BYTES] === STATE.gone };
  }

  /** A record in another's place is none. */
  #check(bytes: Buffer, sector: number): number {
    const place = Buffer.alloc(8);
    putU64(new DataView(place.buffer, place.byteOffset, 8), 0, sector);
    return crc32(bytes.subarray(0, ROOT_BYTES + 4), crc32(place, this.#salt));
  }
}

/** An accumulator of the first `sectors` sectors, from what is kept of them; undefined when that is not enough. */
export function accumulatorOf(kept: readonly SectorRoot[], sectors: number): Accumulator | undefined {
  if (kept.length < sectors) return undefined;
  const accumulator = new Accumulator();
  for (let i = 0; i < sectors; i++) accumulator.appendSector(kept[i]!.root);
  return accumulator;
}

const CHUNK_BYTES = 256 << 10;

/**
 * The root of the first `size` bytes of the log open as `fd`, from what is kept of its full sectors and the bytes behind them: at most a sector is hashed.
 * Undefined when too little is kept, or those bytes were given back.
 */
export function rootFromKept(fd: number, roots: RootsFile, size: number): Uint8Array | undefined {
  const accumulator = accumulatorAt(fd, roots.all(), size);
  return accumulator?.root();
}

/** An accumulator of the first `size` bytes, as `rootFromKept`. */
export function accumulatorAt(fd: number, kept: readonly SectorRoot[], size: number): Accumulator | undefined {
  const sectors = sectorOf(size);
  const accumulator = accumulatorOf(kept, sectors);
  if (accumulator === undefined || kept[sectors]?.isGone === true) return undefined;
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - accumulator.size));
  while (accumulator.size < size) {
    const got = readFully(fd, chunk, 0, Math.min(chunk.length, size - accumulator.size), accumulator.size);
    if (got === 0) return undefined;
    accumulator.append(chunk.subarray(0, got));
  }
  return accumulator;
}

/**
 * An accumulator of the first `size` bytes, from the bytes that are there; only of sectors that were given back what is kept counts. Undefined when the bytes behind
 * the last full sector are gone, or too few.
 */
export function accumulatorOfBytes(fd: number, kept: readonly SectorRoot[], size: number): Accumulator | undefined {
  const accumulator = new Accumulator();
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  while (accumulator.size < size) {
    const sector = sectorOf(accumulator.size);
    const end = (sector + 1) * SECTOR_BYTES;
    if (kept[sector]?.isGone === true) {
      if (end > size) return undefined;
      accumulator.appendSector(kept[sector].root);
      continue;
    }
    const got = readFully(
      fd,
      chunk,
      0,
      Math.min(chunk.length, Math.min(end, size) - accumulator.size),
      accumulator.size,
    );
    if (got === 0) return undefined;
    accumulator.append(chunk.subarray(0, got));
  }
  return accumulator;
}

/** Number of the sector that a byte lies in. */
export const sectorOf = (offset: number): number => Math.floor(offset / SECTOR_BYTES);
