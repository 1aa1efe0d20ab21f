import type { Store } from '../../store/store.ts';
import { Entry } from '../log/entry.ts';
import { openLog, type Position } from '../log/log.ts';
import { serializeState } from '../view/state-walk.ts';
import { FieldWriter, ROLLBACK } from '../view/entries.ts';
import { openStateAt } from './state-at.ts';

/**
 * Makes the files of the log in `dir`, which nobody has open for writing, what they were when it had `size` bytes (a commit's end). The log goes on: what is
 * undone stays in its history as long as that is kept, and can be gone back to in turn. Durable, with a checkpoint behind it, on return: where the log ends then.
 * PgError as `openLog` has them.
 */
export function rollBackLog(store: Store, treeRoot: Uint8Array | null, dir: string, size: number): Position {
  const log = openLog(dir, treeRoot === null ? {} : { base: treeRoot });
  try {
    const now = openStateAt(store, treeRoot, dir);
    const before = openStateAt(store, treeRoot, dir, size);
    try {
      log.append(rollbackEntry(size), undefined, true);
      log.sync();
      const { state } = before;
      state.nextIno = Math.max(state.nextIno, now.state.nextIno);
      // Both generations: to replay this entry takes a state that need not be kept.
      for (let generation = 0; generation < 2; generation++) log.writeCheckpoint(serializeState(state));
      return log.position();
    } finally {
      now.close();
      before.close();
    }
  } finally {
    log.close();
  }
}

function rollbackEntry(size: number): Entry {
  const fields = new FieldWriter();
  fields.u64(size);
  const now = Date.now();
  return Object.assign(new Entry(), {
    type: ROLLBACK,
    bytes: fields.bytes,
    view: fields.view,
    fieldsStart: 0,
    fieldsEnd: fields.at,
    sec: Math.floor(now / 1000),
    nsec: (now % 1000) * 1e6,
  });
}
