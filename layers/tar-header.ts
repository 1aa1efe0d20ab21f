import { PgError } from '../mdm/error.ts';

/**
 * Blocks of a tar archive and what they say. Formats: POSIX.1-2001 ustar and pax Interchange Format (pax(1), "EXTENDED DESCRIPTION"),
 * GNU tar ("Basic Tar Format" in its manual), star. Where they contradict each other we read as Go's archive/tar does, because that is
 * what docker, podman and containerd read images with.
 *
 * Names are latin1 strings: one character is one byte, whatever encoding the writer thought it used.
 */
export const BLOCK_BYTES = 512;
/** The most that one PAX header, long name or sparse map may take (Go's archive/tar has the same bound). */
export const SPECIAL_BYTES_MAX = 1 << 20;
/** Headers about another header that may stand before it: writers need three (`x`, `L`, `K`). */
export const SPECIALS_MAX = 64;

export type HeaderFormat = 'v7' | 'ustar' | 'star' | 'gnu';

/** The fields of one 512-byte header block. */
export interface RawHeader {
  format: HeaderFormat;
  name: string;
  linkName: string;
  /** The type flag's character; `\0` is an old regular file. */
  type: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtimeSec: number;
  devMajor: number;
  devMinor: number;
}

/** What a PAX extended header of an entry overrides (values in bytes, as latin1). */
export interface PaxRecords {
  /** The last value of each keyword. */
  values: Map<string, string>;
  /** GNU sparse 0.0: offset, length, offset, length... in the order they came (its keywords repeat). */
  sparsePairs: string[];
}

/** PgError `TAR_BAD_HEADER` at a byte offset of the tar. */
export function badHeader(offset: number, what: string): PgError {
  return new PgError('TAR_BAD_HEADER', `tar header at byte ${offset}: ${what}`, {
    hint: 'the archive is damaged, or not a tar: make or fetch it again',
  });
}

/** Whether every byte of the block is 0: half of an end marker. */
export function isZeroBlock(block: Buffer): boolean {
  for (let i = 0; i < BLOCK_BYTES; i++) if (block[i] !== 0) return false;
  return true;
}

/**
 * Reads a header block at byte `offset` of the tar. PgError `TAR_BAD_HEADER` when its checksum does not fit (both the unsigned sum
 * of POSIX and the signed one of old implementations are accepted) or a number is none.
 */
export function decodeHeader(block: Buffer, offset: number): RawHeader {
  checkSum(block, offset);
  const format = formatOf(block);
  const number = (start: number, length: number, what: string): number =>
    decodeNumber(block, start, length, offset, what);
  const header: RawHeader = {
    format,
    name: cString(block, 0, 100),
    linkName: cString(block, 157, 100),
    type: String.fromCharCode(block[156]!),
    mode: number(100, 8, 'mode'),
    uid: number(108, 8, 'uid'),
    gid: number(116, 8, 'gid'),
    size: number(124, 12, 'size'),
    mtimeSec: number(136, 12, 'mtime'),
    devMajor: 0,
    devMinor: 0,
  };
  if (format !== 'v7') {
    header.devMajor = number(329, 8, 'device number');
    header.devMinor = number(337, 8, 'device number');
  }
  const prefix = prefixOf(block, format, offset);
  if (prefix !== '') header.name = `${prefix}/${header.name}`;
  return header;
}

/** What stands before the name. Go's writer before 1.8 put it into GNU headers too, over the times there: Go's reader takes that back. */
function prefixOf(block: Buffer, format: HeaderFormat, offset: number): string {
  if (format === 'ustar') return cString(block, 345, 155);
  if (format === 'star') return cString(block, 345, 131);
  if (format === 'v7' || (isTime(block, 345, offset) && isTime(block, 357, offset))) return '';
  const prefix = cString(block, 345, 155);
  return /^[^\x80-\xff]*$/.test(prefix) ? prefix : '';
}

/** Whether GNU's atime (at 345) or ctime (at 357) is left out or a number. */
function isTime(block: Buffer, at: number, offset: number): boolean {
  if (block[at] === 0) return true;
  try {
    decodeNumber(block, at, 12, offset, 'time');
    return true;
  } catch {
    return false;
  }
}

function checkSum(block: Buffer, offset: number): void {
  const stored = decodeNumber(block, 148, 8, offset, 'checksum');
  let unsigned = 8 * 0x20; // the field itself counts as spaces
  for (let i = 0; i < 148; i++) unsigned += block[i]!;
  for (let i = 156; i < BLOCK_BYTES; i++) unsigned += block[i]!;
  if (stored !== unsigned && stored !== signedSum(block)) {
    throw badHeader(offset, `checksum is ${unsigned}, the header says ${stored}`);
  }
}

function signedSum(block: Buffer): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK_BYTES; i++) if (i < 148 || i >= 156) sum += block.readInt8(i);
  return sum;
}

function formatOf(block: Buffer): HeaderFormat {
  const magic = block.toString('latin1', 257, 265);
  if (magic === 'ustar  \0') return 'gnu';
  if (!magic.startsWith('ustar\0')) return 'v7';
  return block.toString('latin1', 508, 512) === 'tar\0' ? 'star' : 'ustar';
}

/** Bytes up to the first NUL. */
export function cString(block: Buffer, start: number, length: number): string {
  const nul = block.indexOf(0, start);
  return block.toString('latin1', start, nul < 0 || nul > start + length ? start + length : nul);
}

/** A number of a header: octal text in spaces or NULs, or (first bit set) big-endian two's complement as GNU and star write it. */
export function decodeNumber(block: Buffer, start: number, length: number, offset: number, what: string): number {
  if (block[start]! & 0x80) return decodeBase256(block, start, length, offset, what);
  let at = start;
  const end = start + length;
  while (at < end && isBlank(block[at]!)) at++;
  let value = 0;
  for (; at < end && !isBlank(block[at]!); at++) {
    const digit = block[at]! - 0x30;
    if (digit < 0 || digit > 7) throw badHeader(offset, `${what} is not an octal number`);
    value = value * 8 + digit;
  }
  // After a NUL there may be anything, after a space only more of them.
  while (at < end && block[at] === 0x20) at++;
  if (at < end && block[at] !== 0) throw badHeader(offset, `${what} is not an octal number`);
  return value;
}

const isBlank = (byte: number): boolean => byte === 0x20 || byte === 0;

function decodeBase256(block: Buffer, start: number, length: number, offset: number, what: string): number {
  const negative = (block[start]! & 0x40) !== 0;
  let value = negative ? -1n : 0n;
  for (let i = 0; i < length; i++) {
    const byte = block[start + i]!;
    value = i === 0 ? (value << 6n) | BigInt(byte & 0x3f) : (value << 8n) | BigInt(byte);
  }
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw badHeader(offset, `${what} is out of range`);
  return number;
}

/**
 * Reads the records of a PAX extended header, `LENGTH KEYWORD=VALUE\n` each. PgError `TAR_BAD_HEADER` for anything else.
 * An empty value takes an earlier one back (pax(1)).
 */
export function decodePax(bytes: Buffer, offset: number): PaxRecords {
  const records: PaxRecords = { values: new Map(), sparsePairs: [] };
  let at = 0;
  while (at < bytes.length) {
    const space = bytes.indexOf(0x20, at);
    const digits = space < 0 || space - at > 9 ? '' : bytes.toString('latin1', at, space);
    const end = at + Number(digits);
    if (!/^[0-9]+$/.test(digits) || end > bytes.length || end <= space + 1 || bytes[end - 1] !== 0x0a) {
      throw badHeader(offset + at, 'a PAX record has a length that cannot be');
    }
    const equals = bytes.indexOf(0x3d, space + 1);
    if (equals < 0 || equals >= end - 1 || equals === space + 1)
      throw badHeader(offset + at, 'a PAX record has no keyword');
    const keyword = bytes.toString('latin1', space + 1, equals);
    const value = bytes.toString('latin1', equals + 1, end - 1);
    if (keyword === 'GNU.sparse.offset' || keyword === 'GNU.sparse.numbytes') records.sparsePairs.push(keyword, value);
    else if (value === '' && !keyword.startsWith('SCHILY.xattr.')) records.values.delete(keyword);
    else records.values.set(keyword, value);
    at = end;
  }
  return records;
}

/** A decimal number of a PAX record, not negative; zeros and a plus before it are as good as none. */
export function paxNumber(text: string, offset: number, keyword: string): number {
  const value = /^\+?0*[0-9]{1,19}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) throw badHeader(offset, `PAX ${keyword} is not a number that can be`);
  return value;
}

/** A time of a PAX record: seconds since 1970, perhaps negative, perhaps with a fraction (cut to nanoseconds, towards the past). */
export function paxTime(text: string, offset: number): { sec: number; nsec: number } {
  const match = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/.exec(text);
  if (match === null) throw badHeader(offset, 'PAX mtime is not a time');
  const whole = Number(match[2]);
  const nsec = Number((match[3] ?? '').slice(0, 9).padEnd(9, '0'));
  if (match[1] === '') return { sec: whole, nsec };
  return nsec === 0 ? { sec: -whole || 0, nsec: 0 } : { sec: -whole - 1, nsec: 1_000_000_000 - nsec };
}
