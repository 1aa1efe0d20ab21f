import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { diskError } from '../store/sector.ts';

/** The object in a JSON file, or undefined when there is no such file. PgError('BAD_RECORD') when it cannot be read as JSON. */
export function readJson<T>(path: string): T | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  }
  try {
    return JSON.parse(text) as T;
  } catch {
    throw new PgError('BAD_RECORD', `${path} is damaged: it is not JSON`, {
      // Not the words of the parser: they quote the text, in which there may be secrets, and what is no text.
      hint: 'take it from a backup; pg rm -f ID removes a container all the same',
    });
  }
}

/**
 * Replaces a JSON file wholly or not at all: a reader sees the old or the new object, also after a power cut when `durable`.
 * Any number of processes may write; the last one wins. DISK_FULL, DISK_ERROR: then the old one stands.
 */
export function writeJsonAtomic(path: string, value: unknown, durable = false): void {
  const temporary = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`;
  try {
    const fd = openSync(temporary, 'wx', 0o600);
    try {
      // Not write(2) by itself: a disk that becomes full takes a part of it and says nothing.
      writeFileSync(fd, `${JSON.stringify(value, null, 1)}\n`);
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
