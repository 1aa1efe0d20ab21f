import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { Hasher } from './hasher.ts';
import { readHeader } from './header.ts';
import { commitBefore } from './recover.ts';

/**
 * Refuses the log in `dir` when it lacks a position that was recorded after it was durable: PgError LOG_CORRUPT, for something was lost or exchanged. That
 * a commit ends there is looked at, and the root where it is known without hashing. Takes a fraction of a millisecond.
 */
export function requirePosition(dir: string, { size, root }: { size: number; root: Uint8Array }): void {
  if (size === 0) return;
  const path = join(dir, 'log');
  const lost = (what: string): PgError =>
    new PgError('LOG_CORRUPT', `${path} ${what}, as was recorded when it was safe on disk`, {
      hint: 'something was lost: take the log from a replica or a backup',
    });
  const fd = openLogOf(path, lost);
  try {
    const { salt } = readHeader(fd, path);
    if (commitBefore(fd, salt, size) === undefined) throw lost(`has no commit that ends at byte ${size}`);
    const hasher = new Hasher(dir, fd, salt);
    if (hasher.size === size && Buffer.compare(hasher.rootAt(size), root) !== 0)
      throw lost(`does not have root ${Buffer.from(root).toString('hex')} at byte ${size}`);
  } finally {
    closeSync(fd);
  }
}

function openLogOf(path: string, lost: (what: string) => PgError): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw lost('is gone; it is not empty');
    throw error;
  }
}
