import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { CHECKPOINT, OLDER_CHECKPOINT } from './checkpoints.ts';
import { isMarkOf } from './recover.ts';
import type { SectorRoot } from './roots.ts';
import { behind, type Place, SCAN_START } from './scanner.ts';
import { CHECKPOINT_MAGIC, type Mark, readMarkHeader } from './sidecar.ts';

/**
 * Where the entries of a log start that are all there: at its beginning, or behind the older checkpoint once something was given back. Undefined: at the beginning.
 * PgError LOG_CORRUPT when both checkpoints of a cleaned log are lost.
 */
export function oldestMark(
  dir: string,
  fd: number,
  salt: number,
  kept: readonly SectorRoot[],
): Omit<Mark, 'payload'> | undefined {
  if (!kept.some(({ isGone }) => isGone)) return undefined;
  for (const name of [OLDER_CHECKPOINT, CHECKPOINT]) {
    const mark = readMarkHeader(join(dir, name), CHECKPOINT_MAGIC, salt);
    if (mark !== undefined && isMarkOf(fd, mark)) return mark;
  }
  throw new PgError('LOG_CORRUPT', `${dir}/log was cleaned, and its checkpoints are lost`, {
    hint: 'take the container from a replica',
  });
}

/** Where to scan from. */
export const placeOf = (mark: Omit<Mark, 'payload'> | undefined): Place =>
  mark === undefined ? SCAN_START : behind(mark);
