import { openTree } from '../../layers/tree.ts';
import type { Store } from '../../store/store.ts';
import { openLog } from '../log/log.ts';
import { Files } from '../view/files.ts';
import { Journal } from '../view/journal.ts';
import { restoreState } from '../view/checkpoint.ts';
import { StateTree } from '../view/state-tree.ts';
import { State } from '../view/state.ts';

/** What a container's files were when its log had `size` bytes; they can be read until it is closed. */
export interface StateAt {
  readonly tree: StateTree;
  readonly state: State;
  readonly size: number;
  /** As `View.read`: fills `into` from `offset` of a regular file; the bytes read. FsError EIO when a checksum is wrong. */
  read(ino: number, offset: number, into: Uint8Array): number;
  close(): void;
}

/**
 * Replays the log in `dir` up to `limit`, a commit's end, or to its own end; it may be written meanwhile. `treeRoot` is the image's. Errors as
 * `openLog` has them.
 */
export function openStateAt(store: Store, treeRoot: Uint8Array | null, dir: string, limit?: number): StateAt {
  const log = openLog(dir, {
    readOnly: true,
    ...(limit === undefined ? {} : { limit }),
    ...(treeRoot === null ? {} : { base: treeRoot }),
  });
  try {
    const state = new State(openTree(store, treeRoot));
    if (log.checkpoint !== undefined) restoreState(state, log.checkpoint.payload);
    const journal = new Journal(state, log);
    journal.replay();
    log.checkpoint = undefined;
    for (const ino of state.orphans) state.drop(ino);
    const files = new Files(state, journal, store);
    return {
      tree: new StateTree(state),
      state,
      size: log.written,
      read: (ino, offset, into) => files.read(ino, offset, into),
      close: () => log.close(),
    };
  } catch (error) {
    log.close();
    throw error;
  }
}

/** The files of an image that nothing was written over: a container that has never run. */
export function openImageState(store: Store, treeRoot: Uint8Array | null): StateAt {
  const state = new State(openTree(store, treeRoot));
  const files = new Files(state, new Journal(state, null), store);
  return {
    tree: new StateTree(state),
    state,
    size: 0,
    read: (ino, offset, into) => files.read(ino, offset, into),
    close: () => {},
  };
}
