import { constants } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { closeLog, openWithBases } from './bases.ts';
import { Hasher } from './hasher.ts';
import { readHeader } from './header.ts';
import { commitBefore } from './recover.ts';
import { rootFromKept } from './roots.ts';
import { rotOf } from './verify.ts';

/**
 * Refuses the log in `dir` when it lacks a position that was recorded after it was durable: PgError LOG_CORRUPT, for something was lost or exchanged. That
 * a commit ends there is looked at, and the root: from what was kept of it, so that at most a sector is hashed, and nothing at all if the log was closed there.
 * Another root is no reason to refuse when checksums tell why: bytes have rotted, and only reading them fails. Returns that in words, undefined when nothing is wrong.
 */
export function requirePosition(dir: string, { size, root }: { size: number; root: Uint8Array }): string | undefined {
  if (size === 0) return undefined;
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
    try {
      const here = hasher.size === size ? hasher.rootAt(size) : rootFromKept(fd, hasher.roots, size);
      if (here === undefined || Buffer.compare(here, root) === 0) return undefined;
      const rot = rotOf(dir, size);
      if (rot === undefined) throw lost(`does not have root ${Buffer.from(root).toString('hex')} at byte ${size}`);
      return rot;
    } finally {
      hasher.close();
    }
  } finally {
    closeLog(fd);
  }
}

function openLogOf(path: string, lost: (what: string) => PgError): number {
  try {
    return openWithBases(path, constants.O_RDONLY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw lost('is gone; it is not empty');
    throw error;
  }
}
