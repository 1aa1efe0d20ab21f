import { rollBackLog } from '../fs/history/rollback.ts';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { lockStopped } from './containers.ts';
import { locate } from './history.ts';
import { requireOwner } from './migrate-state.ts';
import { readState, writeState } from './record.ts';
import { withStore } from './subject.ts';

/** What a rollback came to: where the log of the container ends now, and where it ended before. */
export interface RolledBack {
  name: string;
  size: number;
  root: string;
  /** Bytes: as a position it takes the rollback back. */
  before: number;
}

/**
 * Makes the files of a container that does not run what they were at a position. PgError CONTAINER_RUNNING, and as `locate`; CONTAINER_MOVED for one that is
 * another node's; LOG_BUSY for a mount that is written.
 */
export async function rollBack(roots: Roots, ref: string, position: string): Promise<RolledBack> {
  const { subject, size, running } = await locate(roots, ref, position);
  const { id, name, dir, treeRoot } = subject;
  if (running) {
    throw new PgError('CONTAINER_RUNNING', `container ${name} is running: its files cannot be exchanged under it`, {
      hint: `pg stop ${name} first; or take its past beside it: pg clone ${name}@${position} NAME`,
    });
  }
  if (size === 0) return { name, size, root: '0'.repeat(64), before: 0 };
  const lock = id === undefined ? undefined : await lockStopped(roots, id);
  try {
    if (id !== undefined) requireOwner(roots, id, name);
    const before = (await locate(roots, ref, undefined)).size;
    const at = await withStore(roots, (store) => rollBackLog(store, treeRoot, dir, size));
    const root = Buffer.from(at.root).toString('hex');
    if (id !== undefined)
      writeState(roots, id, { ...readState(roots, id), position: { epoch: at.epoch, size: at.size, root } });
    return { name, size: at.size, root, before };
  } finally {
    lock?.release();
  }
}
