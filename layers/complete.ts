import type { Store } from '../store/store.ts';
import { ADDRESS_HEAD, addressOf } from './address.ts';
import { listImages } from './images.ts';
import { familiarReference, parseImageName } from './reference.ts';
import { type Found, isDirectoryMode, joinPath } from './tree-path.ts';
import type { Tree } from './tree.ts';

/** Every completion is a scan of what lies under the prefix: what does not begin so is not read. */

/** Names of images that begin so, as they are shown, in order. */
export function completeNames(store: Store, prefix: string): string[] {
  const table = store.table('names');
  const found = new Set<string>();
  // A name is kept in full: what was typed may leave out the registry, and the account.
  for (const head of ['', 'docker.io/', 'docker.io/library/']) {
    const start = `${head}${prefix}`;
    for (const key of table.keys(start === '' ? {} : { prefix: start })) {
      const full = key.toString();
      const shown = familiarReference(parseImageName(full));
      if (shown.startsWith(prefix)) found.add(shown);
      else if (full.startsWith(prefix)) found.add(full);
    }
  }
  return [...found].toSorted();
}

/** Ids of images that begin so, with `sha256:` if that was typed. */
export function completeIds(store: Store, prefix: string): string[] {
  const typed = prefix.startsWith('sha256:');
  const start = typed ? prefix : `sha256:${prefix}`;
  return [...store.table('images').keys({ prefix: start })].map((key) => key.toString().slice(typed ? 0 : 7));
}

/** Addresses of images that begin so. */
export function completeAddresses(store: Store, prefix: string): string[] {
  if (!prefix.startsWith(ADDRESS_HEAD) && !ADDRESS_HEAD.startsWith(prefix)) return [];
  const images = listImages(store, () => undefined);
  return [...new Set(images.map(({ treeRoot }) => addressOf(treeRoot)))].filter((a) => a.startsWith(prefix)).toSorted();
}

/** Roots of contents and nodes of the store that begin with these hex digits, at most `limit`, in order. */
export function completeRoots(store: Store, digits: string, limit: number): string[] {
  const start = Buffer.from(digits.slice(0, digits.length & ~1), 'hex');
  const found = new Set<string>();
  for (const table of ['contents', 'nodes']) {
    let taken = 0;
    for (const key of store.table(table).keys(start.length === 0 ? {} : { prefix: start })) {
      const root = key.toString('hex', 0, 32);
      if (!root.startsWith(digits)) continue;
      found.add(root);
      if (++taken === limit) break;
    }
  }
  return [...found].toSorted().slice(0, limit);
}

/** The entries of a directory whose names begin so (latin1), in byte order: found by halving, then read on. */
export function* completeEntries(tree: Tree, directory: Found, prefix: string): Generator<Found & { name: string }> {
  if (!isDirectoryMode(directory.inode.mode)) return;
  let low = 0;
  let high = directory.inode.children ?? 0;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (tree.entryAt(directory.ino, middle)!.name < prefix) low = middle + 1;
    else high = middle;
  }
  for (;;) {
    const entry = tree.entryAt(directory.ino, low++);
    if (entry === undefined || !entry.name.startsWith(prefix)) return;
    const { name, ino } = entry;
    yield { name, path: joinPath(directory.path, name), ino, inode: tree.get(ino)! };
  }
}
