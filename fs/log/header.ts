import assert from 'node:assert';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { readFully, replaceFile, syncDirectory } from './disk.ts';
import {
  COMMIT_BYTES,
  decodeHeader,
  Entry,
  entryBytes,
  headIsWhole,
  HEADER_BYTES,
  LOG_HEADER_BYTES,
  LOG_MAGIC,
  LOG_VERSION,
  peekLength,
  putHeader,
  putU64,
  sealEntry,
  timeNow,
  TYPE_COMMIT,
  TYPE_HEADER,
} from './entry.ts';
import { viewOf } from './scanner.ts';
import { newer } from './sidecar.ts';

/** What the first entry of a log says. */
export interface LogHeader {
  /** Root of the image tree that the log's entries change, 32 bytes; all zero for the empty image. */
  base: Buffer;
  /** Where every checksum of this log starts from: a random number that a container never sees, so that no file content can pass for an entry. */
  salt: number;
}

const FIELD = { magic: 0, version: 6, salt: 8, base: 12 } as const;
const FIELD_BYTES = 44;

/** Makes an empty log in `dir` (made too) unless one is there: the header entry and a commit. Durable on return. */
export function createLog(dir: string, base: Uint8Array | undefined, salt = randomBytes(4).readUInt32LE()): void {
  const path = join(dir, 'log');
  if (existsSync(path)) return;
  if (mkdirSync(dir, { recursive: true, mode: 0o700 }) !== undefined) syncDirectory(dirname(dir));
  replaceFile(path, [firstBytes(base ?? new Uint8Array(32), salt, timeNow())]);
}

/** The first 192 bytes of a log: header entry and first commit. */
export function firstBytes(base: Uint8Array, salt: number, time: { sec: number; nsec: number }): Buffer {
  assert.equal(base.length, 32, 'a tree root has 32 bytes');
  const bytes = Buffer.alloc(LOG_HEADER_BYTES + COMMIT_BYTES);
  const view = viewOf(bytes);
  const entry = Object.assign(new Entry(), { type: TYPE_HEADER, fieldsEnd: FIELD_BYTES, ...time });
  assert.equal(entryBytes(FIELD_BYTES, 0), LOG_HEADER_BYTES);
  putHeader(view, 0, entry, LOG_HEADER_BYTES);
  LOG_MAGIC.copy(bytes, HEADER_BYTES + FIELD.magic);
  view.setUint16(HEADER_BYTES + FIELD.version, LOG_VERSION, true);
  view.setUint32(HEADER_BYTES + FIELD.salt, salt, true);
  bytes.set(base, HEADER_BYTES + FIELD.base);
  sealEntry(bytes, view, 0, 0);
  Object.assign(entry, { type: TYPE_COMMIT, sequence: 1 });
  putCommit(bytes, view, LOG_HEADER_BYTES, entry, 0, bytes.length, 0, salt);
  return bytes;
}

/** Writes and seals a commit entry at `at`; `entry` gives type, sequence and time. */
export function putCommit(
  bytes: Buffer,
  view: DataView,
  at: number,
  entry: Entry,
  batchStart: number,
  batchEnd: number,
  durable: number,
  salt: number,
): void {
  entry.payloadBytes = 0;
  entry.fieldsStart = 0;
  entry.fieldsEnd = 24;
  putHeader(view, at, entry, COMMIT_BYTES);
  putU64(view, at + HEADER_BYTES, batchStart);
  putU64(view, at + HEADER_BYTES + 8, batchEnd);
  putU64(view, at + HEADER_BYTES + 16, durable);
  sealEntry(bytes, view, at, salt);
}

/** Reads and checks the header of the log open as `fd`. PgError LOG_CORRUPT, LOG_VERSION. */
export function readHeader(fd: number, path: string): LogHeader {
  const bytes = Buffer.alloc(LOG_HEADER_BYTES);
  readFully(fd, bytes, 0, LOG_HEADER_BYTES, 0);
  return parseHeader(bytes, path);
}

/** The header that these 128 bytes are. PgError LOG_CORRUPT, LOG_VERSION. */
export function parseHeader(bytes: Buffer, path: string): LogHeader {
  const view = viewOf(bytes);
  const fields = HEADER_BYTES;
  if (!bytes.subarray(fields, fields + LOG_MAGIC.length).equals(LOG_MAGIC))
    throw corrupt(path, 'does not start like a log');
  if (view.getUint16(fields + FIELD.version, true) > LOG_VERSION) throw newer(path);
  if (peekLength(view, 0) !== LOG_HEADER_BYTES || !headIsWhole(bytes, view, 0, 0))
    throw corrupt(path, 'has a damaged header');
  const entry = new Entry();
  decodeHeader(entry, bytes, view, 0, 0);
  return {
    base: Buffer.from(bytes.subarray(fields + FIELD.base, fields + FIELD_BYTES)),
    salt: view.getUint32(fields + FIELD.salt, true),
  };
}

function corrupt(path: string, what: string): PgError {
  return new PgError('LOG_CORRUPT', `${path} ${what}`, { hint: 'take the log from a replica' });
}
