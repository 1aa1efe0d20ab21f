import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { PgError } from '../mdm/error.ts';
import { diskError } from '../store/sector.ts';
import { type Check, isMap, shaped } from '../store/shape.ts';

/** No file of ours has as much; one that does is not read. */
const MOST_BYTES = 64 << 20;

/**
 * The object in a JSON file, or undefined when there is no such file. PgError('BAD_RECORD') when it cannot be read as JSON, does not have its checksum, or is not what `shape` says.
 */
export function readJson<T>(path: string, shape: Check = shaped({})): T | undefined {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MOST_BYTES) throw damaged(path, `it has ${size} bytes`);
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw code === 'EISDIR' ? damaged(path, 'it is a directory') : error;
  }
  let value: Checked;
  try {
    value = JSON.parse(text) as Checked;
  } catch {
    // Not the words of the parser: they quote the text, in which there may be secrets, and what is no text.
    throw damaged(path, 'it is not JSON');
  }
  if (!isMap(value)) throw damaged(path, 'it is no JSON object');
  const { crc32: check, ...rest } = value;
  if (check !== undefined && check !== checkOf(rest)) throw damaged(path, 'it does not have its checksum');
  const wrong = shape(rest);
  if (wrong !== undefined) throw damaged(path, `${wrong.slice(1)} is not what it must be`);
  return rest as T;
}

/** What is in a file: the object, and the CRC-32 of its compact JSON text in hex. */
interface Checked {
  crc32?: string;
}

const checkOf = (value: unknown): string => crc32(JSON.stringify(value)).toString(16).padStart(8, '0');

function damaged(path: string, why: string): PgError {
  return new PgError('BAD_RECORD', `${path} is damaged: ${why}`, {
    hint: 'take it from a backup; pg rm -f ID removes a container all the same',
  });
}

/**
 * Replaces a JSON file wholly or not at all: a reader sees the old or the new object, also after a power cut when `durable`.
 * Any number of processes may write; the last one wins. DISK_FULL, DISK_ERROR: then the old one stands.
 */
export function writeJsonAtomic(path: string, value: object, durable = false): void {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    const fd = openSync(temporary, 'wx', 0o600);
    try {
      // Not write(2) by itself: a disk that becomes full takes a part of it and says nothing.
      writeFileSync(fd, `${JSON.stringify({ ...value, crc32: checkOf(value) }, null, 1)}\n`);
      if (durable) fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? error : diskError(error, `cannot write ${path}`);
  }
  if (durable) syncDirectory(dirname(path));
}

/** Makes names that were made or removed in a directory durable. */
export function syncDirectory(path: string): void {
  const dir = openSync(path, 'r');
  try {
    fsyncSync(dir);
  } finally {
    closeSync(dir);
  }
}
