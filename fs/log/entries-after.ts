import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { type Entry, FIRST_USER_TYPE } from './entry.ts';
import { readHeader } from './header.ts';
import type { Log } from './log.ts';
import { commitBefore } from './recover.ts';
import { behind, entriesBetween } from './scanner.ts';

/** The entries of a log behind `size`, a commit's end, up to what is written of it; the log's own left out. One object for all; file data is not read. LOG_CORRUPT. */
export function entriesAfter(log: Log, size: number): Iterable<Entry> {
  const path = join(log.dir, 'log');
  const { salt } = readHeader(log.fd, path);
  const commit = commitBefore(log.fd, salt, size);
  if (commit === undefined) throw new PgError('LOG_CORRUPT', `${path} has no commit that ends at byte ${size}`);
  const from = behind({ size, sequence: commit.sequence });
  return ofFiles(entriesBetween(log.fd, salt, from, log.written, path));
}

function* ofFiles(entries: Iterable<Entry>): Generator<Entry> {
  for (const entry of entries) if (entry.type >= FIRST_USER_TYPE) yield entry;
}
