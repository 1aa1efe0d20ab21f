import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { closeLog, openToRead } from '../log/bases.ts';
import { readFully } from '../log/disk.ts';
import {
  COMMIT_BYTES,
  Entry,
  decodeHeader,
  getU64,
  headIsWhole,
  peekLength,
  peekType,
  TYPE_COMMIT,
} from '../log/entry.ts';
import { readHeader } from '../log/header.ts';
import { viewOf } from '../log/scanner.ts';

/** Where a commit starts and ends in its log, and when it was written (milliseconds since 1970). */
export interface CommitPlace {
  start: number;
  end: number;
  ms: number;
}

/**
 * The commits of a log from `size` (a commit's end) backwards, each found from the one behind it: 64 bytes are read for each, and nothing is hashed. Ends
 * where a commit is not there any more, or with the first. LOG_CORRUPT when `size` ends none.
 */
export function* commitsBackFrom(dir: string, size: number): Generator<CommitPlace> {
  const path = join(dir, 'log');
  const fd = openToRead(dir);
  try {
    const { salt } = readHeader(fd, path);
    for (let end = size; end > 0;) {
      const commit = commitAt(fd, salt, end);
      if (commit === undefined) {
        if (end === size) throw new PgError('LOG_CORRUPT', `${path} has no commit that ends at byte ${size}`);
        return;
      }
      yield commit;
      end = commit.start;
    }
  } finally {
    closeLog(fd);
  }
}

/** The commit that ends at `size` of the log in `dir`; undefined when none does. */
export function commitEndingAt(dir: string, size: number): CommitPlace | undefined {
  const path = join(dir, 'log');
  const fd = openToRead(dir);
  try {
    return commitAt(fd, readHeader(fd, path).salt, size);
  } finally {
    closeLog(fd);
  }
}

function commitAt(fd: number, salt: number, end: number): CommitPlace | undefined {
  const at = end - COMMIT_BYTES;
  const bytes = Buffer.alloc(COMMIT_BYTES);
  if (at < 0 || at % COMMIT_BYTES !== 0 || readFully(fd, bytes, 0, COMMIT_BYTES, at) < COMMIT_BYTES) return undefined;
  const view = viewOf(bytes);
  if (peekLength(view, 0) !== COMMIT_BYTES || peekType(view, 0) !== TYPE_COMMIT || !headIsWhole(bytes, view, 0, salt))
    return undefined;
  const entry = new Entry();
  decodeHeader(entry, bytes, view, 0, at);
  const start = getU64(view, entry.fieldsStart);
  if (getU64(view, entry.fieldsStart + 8) !== end || start >= end) return undefined;
  return { start, end, ms: entry.sec * 1000 + Math.floor(entry.nsec / 1e6) };
}
