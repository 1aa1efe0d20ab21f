import { openTree, type Tree } from '../../layers/tree.ts';
import type { Store } from '../../store/store.ts';
import { closeLog, openToRead } from '../log/bases.ts';
import { readFully } from '../log/disk.ts';
import { COMMIT_BYTES, getU64, HEADER_BYTES, peekLength, peekType, TYPE_NAMESPACE } from '../log/entry.ts';
import { MAX_NAMESPACE_BYTES, type NamespaceClaim, readClaim } from '../log/claim.ts';
import { openLog } from '../log/log.ts';
import { viewOf } from '../log/scanner.ts';
import { restoreState } from '../view/checkpoint.ts';
import { Journal } from '../view/journal.ts';
import { State } from '../view/state.ts';

/** The files of a container as a log's first `size` bytes made them, to be looked at; the log may be written meanwhile. */
export interface Snapshot {
  tree: Tree;
  state: State;
  size: number;
  epoch: number;
}

/** Replays the log in `dir` up to `limit`, a commit's end, or to its own end. PgError as `openLog` has them. */
export function takeSnapshot(store: Store, treeRoot: Uint8Array | null, dir: string, limit?: number): Snapshot {
  const log = openLog(dir, {
    readOnly: true,
    ...(limit === undefined ? {} : { limit }),
    ...(treeRoot === null ? {} : { base: treeRoot }),
  });
  try {
    const tree = openTree(store, treeRoot);
    const state = new State(tree);
    if (log.checkpoint !== undefined) restoreState(state, log.checkpoint.payload);
    new Journal(state, log).replay();
    for (const ino of state.orphans) state.drop(ino);
    return { tree, state, size: log.written, epoch: log.epoch };
  } finally {
    log.close();
  }
}

/** The claim that is the last batch of the log's first `size` bytes, and where it starts; undefined when that batch is something else. */
export function claimAtEnd(dir: string, size: number): { claim: NamespaceClaim; start: number } | undefined {
  const fd = openToRead(dir);
  try {
    const bytes = Buffer.alloc(Math.min(size, MAX_NAMESPACE_BYTES + COMMIT_BYTES));
    readFully(fd, bytes, 0, bytes.length, size - bytes.length);
    const view = viewOf(bytes);
    const end = bytes.length - COMMIT_BYTES;
    const start = getU64(view, end + HEADER_BYTES);
    const at = start - (size - bytes.length);
    if (!(at >= 0 && at < end) || peekType(view, at) !== TYPE_NAMESPACE || peekLength(view, at) !== end - at)
      return undefined;
    const claim = readClaim(bytes, view, at + HEADER_BYTES, at + view.getUint16(at + 12, true));
    return claim === undefined ? undefined : { claim, start };
  } finally {
    closeLog(fd);
  }
}
