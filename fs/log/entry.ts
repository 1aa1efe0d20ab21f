import { crc32 } from 'node:zlib';

/** Layout of a log entry (docs/formats/log.md). Entries start on a leaf of the Merkle tree, and so do their payloads. */
export const ENTRY_ALIGN = 64;
/** Bytes of the fixed part; the fields of the type follow. */
export const HEADER_BYTES = 40;
/** Payload bytes that one checksum covers, counted from the payload's start. */
export const CHECK_BYTES = 4096;
/** Largest payload of one entry. */
export const MAX_PAYLOAD = (1 << 24) - 1;
/** Largest fields of one entry: two names of 255 bytes and some numbers fit. */
export const MAX_FIELDS = 1024;

/** Types below 16 are the log's own; what the others mean is the business of whoever appends them. */
export const TYPE_HEADER = 1;
export const TYPE_COMMIT = 2;
/** What the files were at some size of the log, as one hash (claim.ts). Replay passes over it. */
export const TYPE_NAMESPACE = 3;
/** What the root of the log's first sectors was (root-entry.ts). */
export const TYPE_ROOT = 4;
/** What the checkpoint at some size is (checkpoint-entry.ts). */
export const TYPE_CHECKPOINT = 5;
export const FIRST_USER_TYPE = 16;
export const COMMIT_BYTES = 64;
export const LOG_HEADER_BYTES = 128;
export const LOG_VERSION = 1;
/** 'pglog', NUL, then the version: the first fields of the header entry. */
export const LOG_MAGIC = Buffer.from('pglog\0', 'latin1');

/** Flag: the payload stays in the log and is read from there later; replay needs not to see it. */
export const FLAG_DATA = 0x80;

const OFFSET = {
  crc: 0,
  units: 4,
  payload: 8,
  head: 12,
  type: 14,
  flags: 15,
  sequence: 16,
  sec: 22,
  nsec: 28,
  request: 32,
} as const;

export const align64 = (n: number): number => Math.ceil(n / 64) * 64;

/** How many checksums a payload has. */
export const checksOf = (payloadBytes: number): number => Math.ceil(payloadBytes / CHECK_BYTES);

/** Bytes from the entry's start to its payload: header, fields, the payload's first checksum, padding. */
export function headBytes(fieldBytes: number, payloadBytes: number): number {
  return align64(HEADER_BYTES + fieldBytes + (payloadBytes > 0 ? 4 : 0));
}

/** Where the second and later checksums of a payload start, counted from the payload's start. */
export const tableOffset = (payloadBytes: number): number => Math.ceil(payloadBytes / 4) * 4;

/** Bytes of the table of second and later checksums. */
export const tableBytes = (payloadBytes: number): number =>
  payloadBytes > CHECK_BYTES ? 4 * (checksOf(payloadBytes) - 1) : 0;

/** Bytes of a whole entry, a multiple of 64. */
export function entryBytes(fieldBytes: number, payloadBytes: number): number {
  return align64(headBytes(fieldBytes, payloadBytes) + tableOffset(payloadBytes) + tableBytes(payloadBytes));
}

/**
 * An entry as `append` takes it and as replay gives it: one object is used again and again, valid until the next one.
 * `bytes` holds the entry's head; the payload is in it only when `payloadStart` >= 0.
 */
export class Entry {
  type = 0;
  flags = 0;
  sequence = 0;
  /** Wall clock at append: seconds since 1970, and nanoseconds. */
  sec = 0;
  nsec = 0;
  bytes: Buffer = EMPTY;
  view: DataView = EMPTY_VIEW;
  /** Where the fields start and end in `bytes`. */
  fieldsStart = 0;
  fieldsEnd = 0;
  /** Where the payload starts in `bytes`, -1 when it was not read. */
  payloadStart = -1;
  payloadBytes = 0;
  /** Where the entry and its payload start in the log. */
  at = 0;
  payloadAt = 0;
  /** Bytes of the whole entry. */
  length = 0;
  /** Of an entry to append: the request that it does, as the kernel numbers it (two halves; 0: none), and what its answer cannot be made without. */
  requestLow = 0;
  requestHigh = 0;
  result = 0;
}

const EMPTY = Buffer.alloc(0);
const EMPTY_VIEW = new DataView(new ArrayBuffer(0));

/** The time of an entry of the log's own. */
export function timeNow(): { sec: number; nsec: number } {
  const now = Date.now();
  return { sec: Math.floor(now / 1000), nsec: (now % 1000) * 1e6 };
}

/** Writes the fixed part except its checksum; the head's padding must be zero already. */
export function putHeader(view: DataView, at: number, entry: Entry, length: number): void {
  view.setUint32(at + OFFSET.units, length / ENTRY_ALIGN, true);
  view.setUint32(at + OFFSET.payload, entry.payloadBytes, true);
  view.setUint16(at + OFFSET.head, HEADER_BYTES + entry.fieldsEnd - entry.fieldsStart, true);
  view.setUint8(at + OFFSET.type, entry.type);
  view.setUint8(at + OFFSET.flags, entry.flags);
  putU48(view, at + OFFSET.sequence, entry.sequence);
  putTime(view, at, entry.sec, entry.nsec);
  putRequest(view, at, entry.requestLow, entry.requestHigh);
}

/** Writes only which request the entry does. */
export function putRequest(view: DataView, at: number, low: number, high: number): void {
  view.setUint32(at + OFFSET.request, low, true);
  view.setUint32(at + OFFSET.request + 4, high, true);
}

/** Writes only the time: of a WRITE that grows while it is still in memory. */
export function putTime(view: DataView, at: number, sec: number, nsec: number): void {
  putU48(view, at + OFFSET.sec, sec);
  view.setUint32(at + OFFSET.nsec, nsec, true);
}

export function putLengths(view: DataView, at: number, length: number, payloadBytes: number): void {
  view.setUint32(at + OFFSET.units, length / ENTRY_ALIGN, true);
  view.setUint32(at + OFFSET.payload, payloadBytes, true);
}

function putU48(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint16(at + 4, Math.floor(value / 2 ** 32), true);
}

function getU48(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32;
}

/** A u64 below 2^53, little-endian. */
export function putU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
}

export function getU64(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
}

/** Length of the entry that seems to start at `at`, 0 if none can: only what the first 16 bytes say, nothing is checked. */
export function peekLength(view: DataView, at: number): number {
  const length = view.getUint32(at + OFFSET.units, true) * ENTRY_ALIGN;
  if (length === 0) return 0;
  const payload = view.getUint32(at + OFFSET.payload, true);
  const head = view.getUint16(at + OFFSET.head, true);
  if (head < HEADER_BYTES || head > HEADER_BYTES + MAX_FIELDS || payload > MAX_PAYLOAD) return 0;
  return entryBytes(head - HEADER_BYTES, payload) === length ? length : 0;
}

/** Bytes from entry start to payload, of an entry whose `peekLength` is not 0. */
export function peekHead(view: DataView, at: number): number {
  return headBytes(view.getUint16(at + OFFSET.head, true) - HEADER_BYTES, view.getUint32(at + OFFSET.payload, true));
}

export function peekPayload(view: DataView, at: number): number {
  return view.getUint32(at + OFFSET.payload, true);
}

/** Whether the entry does a request of the kernel's. */
export const isOfRequest = (view: DataView, at: number): boolean =>
  view.getUint32(at + OFFSET.request, true) !== 0 || view.getUint32(at + OFFSET.request + 4, true) !== 0;

/** Bytes of an entry's fields. */
export const peekFields = (view: DataView, at: number): number => view.getUint16(at + OFFSET.head, true) - HEADER_BYTES;
export const peekType = (view: DataView, at: number): number => view.getUint8(at + OFFSET.type);
export const peekFlags = (view: DataView, at: number): number => view.getUint8(at + OFFSET.flags);
export const peekSequence = (view: DataView, at: number): number => getU48(view, at + OFFSET.sequence);

/** Fills `entry` from the header at `at` of `bytes`; the entry starts at `logAt` of the log. */
export function decodeHeader(entry: Entry, bytes: Buffer, view: DataView, at: number, logAt: number): void {
  entry.bytes = bytes;
  entry.view = view;
  entry.type = view.getUint8(at + OFFSET.type);
  entry.flags = view.getUint8(at + OFFSET.flags);
  entry.sequence = getU48(view, at + OFFSET.sequence);
  entry.sec = getU48(view, at + OFFSET.sec);
  entry.nsec = view.getUint32(at + OFFSET.nsec, true);
  entry.fieldsStart = at + HEADER_BYTES;
  entry.fieldsEnd = at + view.getUint16(at + OFFSET.head, true);
  entry.payloadBytes = view.getUint32(at + OFFSET.payload, true);
  const head = headBytes(entry.fieldsEnd - entry.fieldsStart, entry.payloadBytes);
  entry.length = view.getUint32(at + OFFSET.units, true) * ENTRY_ALIGN;
  entry.at = logAt;
  entry.payloadAt = logAt + head;
  entry.payloadStart = entry.payloadBytes > 0 ? at + head : -1;
}

/** Checksum of an entry's head and of its table; every checksum of a log starts from the log's salt, so that no payload can pass for an entry. */
export function headCheck(head: Uint8Array, table: Uint8Array | undefined, salt: number): number {
  const check = crc32(head, salt);
  return table === undefined ? check : crc32(table, check);
}

/** Computes the checksums of the payload and then the head's, of the whole entry at `at` of `bytes`. */
export function sealEntry(bytes: Buffer, view: DataView, at: number, salt: number): void {
  const payload = view.getUint32(at + OFFSET.payload, true);
  const head = peekHead(view, at);
  let table: Buffer | undefined;
  if (payload > 0) {
    const start = at + head;
    view.setUint32(start - 4, crc32(bytes.subarray(start, start + Math.min(payload, CHECK_BYTES)), salt), true);
    if (payload > CHECK_BYTES) {
      const tableStart = start + tableOffset(payload);
      let slot = tableStart;
      for (let from = CHECK_BYTES; from < payload; from += CHECK_BYTES, slot += 4) {
        const to = Math.min(payload, from + CHECK_BYTES);
        view.setUint32(slot, crc32(bytes.subarray(start + from, start + to), salt), true);
      }
      table = bytes.subarray(tableStart, slot);
    }
  }
  view.setUint32(at, headCheck(bytes.subarray(at + 4, at + head), table, salt), true);
}

/** Computes the checksums of all entries in the first `used` bytes. Done again it comes to the same. */
export function sealEntries(bytes: Buffer, view: DataView, used: number, salt: number): void {
  for (let at = 0; at < used; at += peekLength(view, at)) sealEntry(bytes, view, at, salt);
}

/** Zeros behind the payload of the entry at `at`, whose lengths will not change any more. */
export function closeEntry(bytes: Buffer, view: DataView, at: number): void {
  const payload = peekPayload(view, at);
  if (payload > 0) bytes.fill(0, at + peekHead(view, at) + payload, at + peekLength(view, at));
}

/** Whether the head (and table) of the whole entry at `at` of `bytes` is as it was written. */
export function headIsWhole(bytes: Buffer, view: DataView, at: number, salt: number): boolean {
  const payload = view.getUint32(at + OFFSET.payload, true);
  const head = peekHead(view, at);
  const tableStart = at + head + tableOffset(payload);
  const table = payload > CHECK_BYTES ? bytes.subarray(tableStart, tableStart + tableBytes(payload)) : undefined;
  return view.getUint32(at, true) === headCheck(bytes.subarray(at + 4, at + head), table, salt);
}

/** Whether the payload of the whole entry at `at` of `bytes` is as it was written. */
export function payloadIsWhole(bytes: Buffer, view: DataView, at: number, salt: number): boolean {
  const payload = view.getUint32(at + OFFSET.payload, true);
  const start = at + peekHead(view, at);
  let check = start - 4;
  for (let from = 0; from < payload; from += CHECK_BYTES) {
    const to = Math.min(payload, from + CHECK_BYTES);
    if (crc32(bytes.subarray(start + from, start + to), salt) !== view.getUint32(check, true)) return false;
    check = from === 0 ? start + tableOffset(payload) : check + 4;
  }
  return true;
}
