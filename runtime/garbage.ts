import { mountedTrees } from '../fs/detached.ts';
import { findVolume, volumeNames } from '../fs/volumes.ts';
import { imagesReachable, treeReachable } from '../layers/reachable.ts';
import { isPgError } from '../mdm/error.ts';
import type { CollectResult, Reachable } from '../store/collect.ts';
import type { Roots } from '../store/paths.ts';
import type { Store } from '../store/store.ts';
import { containerIds } from './names.ts';
import { readRecord } from './record.ts';

/**
 * Removes from the store what no image, container, volume or mount reaches. A record that cannot be read stops it:
 * nothing is removed then.
 */
export async function collectGarbage(roots: Roots, store: Store): Promise<CollectResult> {
  return await store.collect(() => everythingReachable(roots, store));
}

/** All that must stay. Containers, volumes and mounts stand on trees whose images may have been removed. */
function* everythingReachable(roots: Roots, store: Store): Generator<Reachable> {
  const trees = [
    ...containerIds(roots).map((id) => treeOfContainer(roots, id)),
    ...volumeNames(roots).map((name) => findVolume(roots, name)?.treeRoot ?? null),
    ...mountedTrees(roots),
  ];
  yield* imagesReachable(store);
  const seen = new Set<string>();
  for (const tree of trees) if (tree !== null) yield* treeReachable(store, Buffer.from(tree, 'hex'), seen);
}

function treeOfContainer(roots: Roots, id: string): string | null {
  try {
    return readRecord(roots, id).treeRoot;
  } catch (error) {
    // Removed meanwhile, or not made yet.
    if (isPgError(error, 'NO_SUCH_CONTAINER')) return null;
    throw error;
  }
}
