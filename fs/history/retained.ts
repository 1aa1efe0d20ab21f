import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { closeLog, openToRead } from '../log/bases.ts';
import { CHECKPOINT, KEPT_STATES, keptStates, OLDER_CHECKPOINT } from '../log/checkpoints.ts';
import { readHeader } from '../log/header.ts';
import { retainedSizes } from '../log/retention.ts';
import { RootsFile, sectorOf } from '../log/roots.ts';
import { CHECKPOINT_MAGIC, readMarkHeader } from '../log/sidecar.ts';
import type { State } from '../view/state.ts';

/**
 * Whether what the files were when the log in `dir` had `size` bytes is kept: always while nothing of the log was given back to the disk; else from the older
 * checkpoint on, and where there is a snapshot.
 */
export function isRetained(dir: string, size: number): boolean {
  const salt = saltOf(dir);
  if (goneSectors(dir, salt).size === 0) return true;
  const horizon = [CHECKPOINT, OLDER_CHECKPOINT].map(
    (name) => readMarkHeader(join(dir, name), CHECKPOINT_MAGIC, salt)?.size ?? 0,
  );
  return (
    size >= Math.min(...horizon, ...retainedSizes(dir, KEPT_STATES)) ||
    keptStates(dir, salt).some((state) => state.size === size)
  );
}

/** Whether a commit that ended at `size` would be in what was given back to the disk. */
export const isGoneAt = (dir: string, size: number): boolean => goneSectors(dir, saltOf(dir)).has(sectorOf(size - 1));

/** Whether some bytes that the files of this state are made of were given back to the disk. */
export function needsWhatIsGone(dir: string, state: State): boolean {
  const gone = goneSectors(dir, saltOf(dir));
  return gone.size > 0 && state.live.sectors().some(({ sector }) => gone.has(sector));
}

/** The error of a state that was cleaned away. */
export function notRetained(size: number, container?: string): PgError {
  const of = container === undefined ? 'the log' : `container ${container}`;
  return new PgError('NOT_RETAINED', `what ${of} was at ${size} bytes is not kept any more: it was cleaned`, {
    hint: `${container === undefined ? 'pg snapshot ls' : `pg snapshot ls ${container}`} lists what is kept whatever is cleaned; pg update --retain keeps more from now on`,
  });
}

function goneSectors(dir: string, salt: number): Set<number> {
  const roots = new RootsFile(dir, salt);
  try {
    return new Set(roots.all().flatMap(({ isGone }, sector) => (isGone ? [sector] : [])));
  } finally {
    roots.close();
  }
}

function saltOf(dir: string): number {
  const fd = openToRead(dir);
  try {
    return readHeader(fd, join(dir, 'log')).salt;
  } finally {
    closeLog(fd);
  }
}
