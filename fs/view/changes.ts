import { WHITEOUT } from './directory.ts';
import { FIRST_NEW_INO, isDirectory, Node } from './node.ts';
import type { State } from './state.ts';
import type { Change } from './view.ts';

/** What differs from the image, as `docker diff` has it: a directory before its contents, names in byte order. */
export function* changesOf(state: State): Generator<Change> {
  const above = changedDirectories(state);
  if (above.has(1)) yield* inDirectory(state, 1, '', above);
}

/** Directories in which, or somewhere below which, something differs. */
function changedDirectories(state: State): Set<number> {
  const above = new Set<number>();
  for (const node of state.nodes()) {
    if (node.nlink === 0) continue;
    const isDir = isDirectory(node.mode);
    if (!isDir && node.ino >= FIRST_NEW_INO) continue;
    let at = isDir ? node.ino : (state.tree.parentOf(node.ino) ?? 1);
    while (!above.has(at)) {
      above.add(at);
      at = state.parentOf(at);
    }
  }
  return above;
}

function* inDirectory(state: State, ino: number, path: string, above: ReadonlySet<number>): Generator<Change> {
  const dir = state.node(ino)?.dir;
  const found: { name: string; kind: Change['kind']; ino: number }[] = [];
  const below = dir === undefined ? ino : dir.lower;
  for (const { name, ino: now } of dir?.changed?.entries() ?? [])
    found.push({ name, kind: now === WHITEOUT ? 'D' : 'C', ino: now });
  for (const { name, ino: now } of dir?.addedNames() ?? []) found.push({ name, kind: 'A', ino: now });
  if (below !== 0) {
    for (let index = 0; ; index++) {
      const entry = state.tree.entryAt(below, index);
      if (entry === undefined) break;
      if (dir?.changed?.has(entry.name)) continue;
      if (state.node(entry.ino) !== undefined || above.has(entry.ino))
        found.push({ name: entry.name, kind: 'C', ino: entry.ino });
    }
  }
  found.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name, kind, ino: now } of found) {
    const here = `${path}/${name}`;
    yield { path: here, kind };
    if (kind === 'D') continue;
    const isOwnPlace = kind === 'C' && now < FIRST_NEW_INO && !dir?.changed?.has(name);
    if (isOwnPlace) {
      if (above.has(now)) yield* inDirectory(state, now, here, above);
    } else {
      yield* everything(state, now, here);
    }
  }
}

/** All that is below a directory which is new in its place. */
function* everything(state: State, ino: number, path: string): Generator<Change> {
  if (!isDirectory(state.peek(ino).mode)) return;
  const node = state.node(ino);
  const names: { name: string; ino: number }[] = [];
  const list = (name: string, child: number): boolean => {
    if (name !== '.' && name !== '..') names.push({ name, ino: child });
    return true;
  };
  if (node instanceof Node) state.directory(node).list(state.tree, ino, ino, 0, list);
  else for (let i = 0, entry; (entry = state.tree.entryAt(ino, i)) !== undefined; i++) list(entry.name, entry.ino);
  names.sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const child of names) {
    yield { path: `${path}/${child.name}`, kind: 'A' };
    yield* everything(state, child.ino, `${path}/${child.name}`);
  }
}
