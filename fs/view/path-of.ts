import { Node } from './node.ts';
import type { State } from './state.ts';

/** Directories looked through for a name: enough for any that was changed; what is not found by then is called by its number. */
const DIRECTORIES_MAX = 10_000;

/**
 * A path (latin1) by which an inode is reached now; undefined for one that is not found, or has no name. Takes a look through the names of the
 * directories on the way: for messages, not for serving.
 */
export function pathOf(state: State, ino: number): string | undefined {
  if (ino === 1) return '/';
  const found = holderOf(state, ino);
  if (found === undefined) return undefined;
  const names = [found.name];
  for (let dir = found.dirIno; dir !== 1;) {
    const parent = state.parentOf(dir);
    const name = nameIn(state, parent, dir);
    if (name === undefined || names.length > 4096) return undefined;
    names.unshift(name);
    dir = parent;
  }
  return `/${names.join('/')}`;
}

/** The directory that holds the inode: that of the image, if it is still there, or one of those that were changed. */
function holderOf(state: State, ino: number): { dirIno: number; name: string } | undefined {
  const first = state.node(ino)?.dir === undefined ? state.tree.parentOf(ino) : state.parentOf(ino);
  const name = first === undefined ? undefined : nameIn(state, first, ino);
  if (name !== undefined) return { dirIno: first!, name };
  let looked = 0;
  for (const node of state.nodes()) {
    if (node.dir === undefined || node.nlink === 0) continue;
    if (++looked > DIRECTORIES_MAX) return undefined;
    const here = nameIn(state, node.ino, ino);
    if (here !== undefined) return { dirIno: node.ino, name: here };
  }
  return undefined;
}

function nameIn(state: State, dirIno: number, ino: number): string | undefined {
  const found = state.node(dirIno) ?? state.tree.get(dirIno);
  if (found instanceof Node) {
    let name: string | undefined;
    found.dir?.list(state.tree, dirIno, found.parent, 0, (entry, child) => {
      if (child === ino && entry !== '.' && entry !== '..') name = entry;
      return name === undefined;
    });
    return name;
  }
  for (let index = 0, entry; (entry = state.tree.entryAt(dirIno, index)) !== undefined; index++)
    if (entry.ino === ino) return entry.name;
  return undefined;
}
