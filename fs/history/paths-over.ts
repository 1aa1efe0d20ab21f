import { openStateAt } from './state-at.ts';
import { isLog } from '../view/run-source.ts';
import { isDirectory } from '../view/node.ts';
import type { StateTree } from '../view/state-tree.ts';
import type { Store } from '../../store/store.ts';

/**
 * Paths (latin1) of the files of a container, as it is now, that have bytes in these places of its log; a path for each name. Errors as `openStateAt` has them.
 */
export function pathsOver(
  store: Store,
  treeRoot: Uint8Array | null,
  dir: string,
  places: readonly { at: number; length: number }[],
): string[] {
  const state = openStateAt(store, treeRoot, dir);
  try {
    const wanted = new Set<number>();
    for (const node of state.state.nodes()) {
      node.extents?.visit(0, Infinity, (_, length, place, source) => {
        if (!isLog(source)) return true;
        const hit = places.some(({ at, length: bytes }) => at < place + length && place < at + bytes);
        if (hit) wanted.add(node.ino);
        return !hit;
      });
    }
    return wanted.size === 0 ? [] : [...namesOf(state.tree, 1, '', wanted)];
  } finally {
    state.close();
  }
}

function* namesOf(tree: StateTree, dirIno: number, prefix: string, wanted: ReadonlySet<number>): Generator<string> {
  for (let index = 0, entry; (entry = tree.entryAt(dirIno, index)) !== undefined; index++) {
    const path = `${prefix}/${entry.name}`;
    if (wanted.has(entry.ino)) yield path;
    if (isDirectory(entry.mode)) yield* namesOf(tree, entry.ino, path, wanted);
  }
}
