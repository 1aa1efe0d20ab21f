import { findImage, getImage, SCRATCH } from '../layers/images.ts';
import { type Found, resolveTreePath } from '../layers/tree-path.ts';
import { type LowerInode, openTree, type Tree } from '../layers/tree.ts';
import { isPgError } from '../mdm/error.ts';
import type { State } from '../fs/view/state.ts';
import { locate, withFilesAt } from '../runtime/history.ts';
import type { OpenContent } from '../store/content-reader.ts';
import type { Roots } from '../store/paths.ts';
import { openStore, type Store } from '../store/store.ts';
import { parsePlace, type Place } from './place.ts';

/** Files that are looked at without being mounted: an image's, or a container's (or named mount's) at some position. */
export interface Files {
  tree: Tree;
  /** 'image' or 'container', for messages. */
  kind: 'image' | 'container';
  /** Fills `into` from `offset` of a regular file; the bytes read, fewer only at its end. Every one has been checked. */
  readAt(inode: LowerInode, offset: number, into: Uint8Array): number;
  /** Of a container: its log and state, by which two of its files may be known to be equal without being read. */
  at?: { dir: string; state: State };
}

/**
 * Opens what a name means, gives it to `use`, and closes it: with a position a container, else an image, else a container as it is now. PgError
 * IMAGE_NOT_FOUND, NO_SUCH_CONTAINER, and those of positions.
 */
export async function withFiles<T>(
  roots: Roots,
  { name, position }: Pick<Place, 'name' | 'position'>,
  use: (files: Files, store: Store) => T | Promise<T>,
): Promise<T> {
  const store = openStore(roots, { readOnly: true });
  try {
    const image = position === undefined ? imageFiles(store, name) : undefined;
    if (image !== undefined) return await use(image, store);
    const located = await locate(roots, name, position).catch((error: unknown) => {
      // Neither: an image is what these commands are about first.
      if (position === undefined && isPgError(error, 'NO_SUCH_CONTAINER')) throw imageNotFound(store, name);
      throw error;
    });
    return await withFilesAt(store, located, ({ tree, state, read }) =>
      use(
        {
          tree,
          kind: 'container',
          readAt: ({ ino }, offset, into) => read(ino, offset, into),
          at: { dir: located.subject.dir, state },
        },
        store,
      ),
    );
  } finally {
    await store.close();
  }
}

function imageNotFound(store: Store, name: string): unknown {
  try {
    return getImage(store, name);
  } catch (error) {
    return error;
  }
}

/** The files of an image, or of the reserved empty one; undefined when there is none of this name. */
function imageFiles(store: Store, name: string): Files | undefined {
  const image = name === SCRATCH ? null : findImage(store, name);
  if (image === undefined) return undefined;
  let last: OpenContent | undefined;
  return {
    tree: openTree(store, image?.treeRoot ?? null),
    kind: 'image',
    readAt: ({ content }, offset, into) => {
      if (content === undefined) return 0;
      if (last?.ref.root !== content.root) last = store.openContent(content);
      return last.readAt(into, offset);
    },
  };
}

/** What `NAME[@POSITION]:/PATH` leads to; without a path it is the root. See `resolveTreePath`. */
export async function withFilePath<T>(
  roots: Roots,
  word: string,
  use: (found: Found, files: Files, store: Store) => T | Promise<T>,
): Promise<T> {
  const place = parsePlace(word);
  return withFiles(roots, place, (files, store) =>
    use(resolveTreePath(files.tree, place.path ?? '/', true, files.kind), files, store),
  );
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
