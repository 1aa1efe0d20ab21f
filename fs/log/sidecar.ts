import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { PgError } from '../../mdm/error.ts';
import { getU64, putU64 } from './entry.ts';
import { readFully, replaceFile } from './disk.ts';

/**
 * The small files beside a log (docs/formats/log.md, docs/formats/checkpoint.md): `epoch`, which must survive, and `hash` and `checkpoint`,
 * which only save time: missing or damaged ones are made anew from the log.
 */
const EPOCH_VERSION = 1;
export const HASH_MAGIC = 'pghash';
export const CHECKPOINT_MAGIC = 'pgckpt';
/** 2: the checksum is over the payload and then the header, so that a payload can be written before its length is known. */
const MARK_VERSION = 2;
export const MARK_HEADER_BYTES = 64;

/** A place in a log at which something was true of everything before it; it ends with the commit entry of this sequence number. */
export interface Mark {
  /** Log bytes before the mark. */
  size: number;
  /** Sequence number of the commit entry that ends there. */
  sequence: number;
  /** Checksum of that entry. */
  check: number;
  /** The log's salt: a mark of another log is no mark of this one. */
  salt: number;
  payload: Buffer;
}

/** Ownership epoch of the log in `dir`; 0 when none was ever set. PgError LOG_CORRUPT, LOG_VERSION. */
export function readEpoch(dir: string): number {
  const bytes = readIfThere(join(dir, 'epoch'));
  if (bytes === undefined) return 0;
  const whole =
    bytes.length === 24 &&
    bytes.toString('latin1', 0, 6) === 'pgepo\0' &&
    crc32(bytes.subarray(0, 20)) === bytes.readUInt32LE(20);
  if (!whole)
    throw new PgError('LOG_CORRUPT', `${join(dir, 'epoch')} is damaged: who owns this container is not known`);
  if (bytes.readUInt16LE(6) > EPOCH_VERSION) throw newer(join(dir, 'epoch'));
  return getU64(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 8);
}

/** Writes the epoch, durably. */
export function writeEpoch(dir: string, epoch: number): void {
  const bytes = Buffer.alloc(24);
  bytes.write('pgepo\0', 0, 'latin1');
  bytes.writeUInt16LE(EPOCH_VERSION, 6);
  putU64(new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 8, epoch);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 20)), 20);
  replaceFile(join(dir, 'epoch'), [bytes]);
}

/** Writes a mark file; `pieces` are its payload. The log must be durable up to `size` already. Durable on return. */
export function writeMark(
  path: string,
  magic: string,
  mark: Omit<Mark, 'payload'>,
  pieces: readonly Uint8Array[],
): void {
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const header = markHeader(magic, mark, bytes);
  let check = 0;
  for (const piece of pieces) check = crc32(piece, check);
  replaceFile(path, [header, ...pieces, markTrailer(header, check)]);
}

/** The header of a mark file with so many bytes of payload, 64 bytes. */
export function markHeader(magic: string, mark: Omit<Mark, 'payload'>, payloadBytes: number): Buffer {
  const header = Buffer.alloc(MARK_HEADER_BYTES);
  const view = new DataView(header.buffer, header.byteOffset, header.length);
  header.write(magic, 0, 'latin1');
  view.setUint16(8, MARK_VERSION, true);
  view.setUint32(12, mark.salt, true);
  putU64(view, 16, mark.size);
  putU64(view, 24, mark.sequence);
  putU64(view, 32, payloadBytes);
  view.setUint32(40, mark.check, true);
  return header;
}

/** What ends a mark file: `check` is the CRC32 of the payload. */
export function markTrailer(header: Uint8Array, check: number): Buffer {
  const trailer = Buffer.alloc(4);
  trailer.writeUInt32LE(crc32(header, check));
  return trailer;
}

/** Reads a mark file; undefined when it is missing, damaged or of another log. PgError LOG_VERSION when it is newer than this program. */
export function readMark(path: string, magic: string, salt: number): Mark | undefined {
  const bytes = readIfThere(path);
  if (bytes === undefined || bytes.length < MARK_HEADER_BYTES + 4) return undefined;
  if (bytes.toString('latin1', 0, 8) !== magic.padEnd(8, '\0')) return undefined;
  if (bytes.readUInt16LE(8) > MARK_VERSION) throw newer(path);
  const check = crc32(bytes.subarray(MARK_HEADER_BYTES, bytes.length - 4));
  if (!markTrailer(bytes.subarray(0, MARK_HEADER_BYTES), check).equals(bytes.subarray(-4))) return undefined;
  if (bytes.readUInt16LE(8) !== MARK_VERSION) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(12, true) !== salt || getU64(view, 32) !== bytes.length - MARK_HEADER_BYTES - 4) return undefined;
  const payload = bytes.subarray(MARK_HEADER_BYTES, bytes.length - 4);
  return { size: getU64(view, 16), sequence: getU64(view, 24), check: view.getUint32(40, true), salt, payload };
}

/** Reads only the header of a mark file: whether the mark is one of this log, `isMarkOf` tells. Undefined when there is none. */
export function readMarkHeader(path: string, magic: string, salt: number): Omit<Mark, 'payload'> | undefined {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const bytes = Buffer.alloc(MARK_HEADER_BYTES);
    if (readFully(fd, bytes, 0, bytes.length, 0) < bytes.length) return undefined;
    if (bytes.toString('latin1', 0, 8) !== magic.padEnd(8, '\0') || bytes.readUInt32LE(12) !== salt) return undefined;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    return { size: getU64(view, 16), sequence: getU64(view, 24), check: view.getUint32(40, true), salt };
  } finally {
    closeSync(fd);
  }
}

export function newer(path: string): PgError {
  return new PgError('LOG_VERSION', `${path} was written by a newer pg`, { hint: 'update pg on this machine' });
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
