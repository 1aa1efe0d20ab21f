import { resolveTreePath, walkTree } from '../../layers/tree-path.ts';
import type { Store } from '../../store/store.ts';
import { entriesAfter } from '../log/entries-after.ts';
import { openLog } from '../log/log.ts';
import { apply } from '../view/apply.ts';
import { effectsOf } from '../view/effects.ts';
import { FieldReader } from '../view/entries.ts';
import { openStateAt } from './state-at.ts';

/** What a log has changed since some size: numbers of inodes that were there then, and names in such directories. */
interface Changes {
  inodes: Set<number>;
  reads: Set<number>;
  /** Key: directory, slash, name. */
  names: Set<string>;
  /** Directories in which names changed. */
  dirs: Set<number>;
  gone: Set<number>;
  moved: Set<number>;
}

/**
 * Whether a log and a clone of it, both as they are on disk, have changed the same since `from` bytes, so that one cannot simply be done after the other: a file's contents or attributes,
 * a name in a directory, a directory that is gone; or copied from what the other changed, or both moved directories. Says what, for messages ("both have changed ..."): undefined when nothing.
 */
export function findConflict(
  store: Store,
  treeRoot: Uint8Array | null,
  logDir: string,
  cloneDir: string,
  from: number,
): string | undefined {
  const ours = changesSince(store, treeRoot, logDir, from);
  const theirs = changesSince(store, treeRoot, cloneDir, from);
  const name = common(ours.names, theirs.names);
  if (name !== undefined) return `the name ${shown(name.slice(name.indexOf('/') + 1))} in one directory`;
  const pairs: [ReadonlySet<number>, ReadonlySet<number>, string][] = [
    [ours.inodes, theirs.inodes, ''],
    [ours.inodes, theirs.reads, ', which one has copied from'],
    [ours.gone, theirs.dirs, ', which one has removed'],
    [ours.dirs, theirs.gone, ', which one has removed'],
  ];
  for (const [a, b, what] of pairs) {
    const ino = common(a, b);
    if (ino !== undefined) return `${pathThen(store, treeRoot, logDir, from, ino)}${what}`;
  }
  return ours.moved.size > 0 && theirs.moved.size > 0 ? 'the places of directories' : undefined;
}

/** The first path, in byte order, of an inode as it was at that size. */
function pathThen(store: Store, treeRoot: Uint8Array | null, dir: string, size: number, ino: number): string {
  const at = openStateAt(store, treeRoot, dir, size);
  try {
    for (const { path, ino: found } of walkTree(at.tree, resolveTreePath(at.tree, '/')))
      if (found === ino) return shown(path);
    return `inode ${ino}`;
  } finally {
    at.close();
  }
}

/** Latin1, as a message has it. */
const shown = (path: string): string => JSON.stringify(Buffer.from(path, 'latin1').toString());

function common<T>(a: ReadonlySet<T>, b: ReadonlySet<T>): T | undefined {
  for (const one of a) if (b.has(one)) return one;
  return undefined;
}

function changesSince(store: Store, treeRoot: Uint8Array | null, dir: string, from: number): Changes {
  const changes: Changes = {
    inodes: new Set(),
    reads: new Set(),
    names: new Set(),
    dirs: new Set(),
    gone: new Set(),
    moved: new Set(),
  };
  const at = openStateAt(store, treeRoot, dir, from);
  const log = openLog(dir, { readOnly: true });
  try {
    const { state } = at;
    const firstNew = state.nextIno;
    const fields = new FieldReader();
    // What either has made the other does not know.
    const note = (set: Set<number>, inos: readonly number[]): void => {
      for (const ino of inos) if (ino < firstNew) set.add(ino);
    };
    for (const entry of entriesAfter(log, from)) {
      const { inodes, names, reads, gone, moved } = effectsOf(state, entry, fields);
      note(changes.inodes, inodes);
      note(changes.reads, reads);
      note(changes.gone, gone);
      note(changes.moved, moved);
      for (const { dir: holder, name } of names) {
        if (holder >= firstNew) continue;
        changes.dirs.add(holder);
        changes.names.add(`${holder}/${name}`);
      }
      apply(state, entry, fields);
    }
    return changes;
  } finally {
    log.close();
    at.close();
  }
}
