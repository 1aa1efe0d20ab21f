import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { openLog } from '../fs/log/log.ts';
import { openView } from '../fs/view/open-view.ts';
import type { CleaningReport } from '../fs/view/view.ts';
import { openTree } from '../layers/tree.ts';
import type { Roots } from '../store/paths.ts';
import { ask, isNotRunning, lockStopped } from './containers.ts';
import { requireOwner } from './migrate-state.ts';
import { readState, writeState } from './record.ts';
import { findSubject, type Subject, withStore } from './subject.ts';

/** What cleaning a log came to. */
export interface Cleaning extends CleaningReport {
  name: string;
}

/**
 * Cleans the log of a container, which may run, or of a named mount that is not mounted, whether it pays or not: what the files need is moved out of sparse sectors,
 * and what neither they, snapshots nor retained history need goes back to the disk. What clones share stays. PgError NO_SUCH_CONTAINER, CONTAINER_MOVED;
 * LOG_BUSY for a mount that is written; BUSY; of the disk.
 */
export async function cleanLog(roots: Roots, ref: string): Promise<Cleaning> {
  const subject = await findSubject(roots, ref);
  const { id, name, dir } = subject;
  if (id !== undefined) requireOwner(roots, id, name);
  const path = join(dir, 'log');
  if (!existsSync(path)) return { name, movedBytes: 0, damaged: 0, givenBackBytes: 0 };
  if (id !== undefined) {
    try {
      return { name, ...((await ask(roots, id, { op: 'clean' })) as CleaningReport) };
    } catch (error) {
      if (!isNotRunning(error)) throw error;
    }
  }
  return { name, ...(await cleanStopped(roots, subject)) };
}

async function cleanStopped(roots: Roots, { id, name, dir, treeRoot }: Subject): Promise<CleaningReport> {
  const lock = id === undefined ? undefined : await lockStopped(roots, id);
  try {
    // It may have been moved while the lock was waited for.
    if (id !== undefined) requireOwner(roots, id, name);
    return await withStore(roots, (store) => {
      const log = openLog(dir, treeRoot === null ? {} : { base: treeRoot });
      const view = openView(openTree(store, treeRoot), store, log);
      try {
        const report = view.clean();
        const { epoch, size, root } = view.position();
        if (id !== undefined) {
          const position = { epoch, size, root: Buffer.from(root).toString('hex') };
          writeState(roots, id, { ...readState(roots, id), position });
        }
        return report;
      } finally {
        view.close();
      }
    });
  } finally {
    lock?.release();
  }
}
