import { getImage, SCRATCH } from '../layers/images.ts';
import { type Found, resolveTreePath } from '../layers/tree-path.ts';
import { openTree, type Tree } from '../layers/tree.ts';
import type { Roots } from '../store/paths.ts';
import { openStore, type Store } from '../store/store.ts';
import { pathOfWord } from './paths.ts';

/** `IMAGE:/PATH` as it is typed: the path begins at the first `:/`; without one it is the root. The path's bytes as latin1. */
export function parseImagePath(word: string): { image: string; path: string } {
  const at = word.indexOf(':/');
  if (at < 0) return { image: word, path: '/' };
  return { image: word.slice(0, at), path: pathOfWord(word.slice(at + 1), false) };
}

/** Opens the tree of an image by name or id, gives it to `use`, and closes the store. IMAGE_NOT_FOUND. */
export async function withImageTree<T>(
  roots: Roots,
  image: string,
  use: (tree: Tree, store: Store) => T | Promise<T>,
): Promise<T> {
  const store = openStore(roots, { readOnly: true });
  try {
    return await use(treeOf(store, image), store);
  } finally {
    await store.close();
  }
}

/** The tree of an image, or of the reserved empty one. IMAGE_NOT_FOUND. */
export const treeOf = (store: Store, image: string): Tree =>
  openTree(store, image === SCRATCH ? null : getImage(store, image).treeRoot);

/** What `IMAGE:/PATH` leads to; see `resolveTreePath`. */
export async function withImagePath<T>(
  roots: Roots,
  word: string,
  use: (found: Found, tree: Tree, store: Store) => T | Promise<T>,
): Promise<T> {
  const { image, path } = parseImagePath(word);
  return withImageTree(roots, image, (tree, store) => use(resolveTreePath(tree, path), tree, store));
}

let watched = false;

/** Writes to standard output and waits while its reader is slower. Ends the process quietly when the reader has gone. */
export function writeOut(bytes: Uint8Array): Promise<void> | void {
  if (!watched) {
    watched = true;
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
    });
  }
  if (process.stdout.write(bytes)) return;
  return new Promise((resolve) => process.stdout.once('drain', resolve));
}
