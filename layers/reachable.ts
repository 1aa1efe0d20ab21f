import type { Reachable } from '../store/collect.ts';
import type { Store } from '../store/store.ts';
import { loadBlob } from './blobs/record.ts';
import { type ImageRecord, listImages, loadLayer } from './images.ts';
import { indexesReachable } from './indexes.ts';
import { recipeSteps } from './recipe.ts';
import { readNode } from './tree.ts';
import { decodeRoot, DirectoryNode } from './trie.ts';

/**
 * Everything that the images reach: nodes, contents and recipes. For `store.collect`, together with `treeReachable` for every tree that a
 * container stands on (its image may have been removed) and whatever else lives in the store.
 */
export function* imagesReachable(store: Store): Generator<Reachable> {
  const seen = new Set<string>();
  const layers = new Set<string>();
  yield* indexesReachable(store);
  for (const image of listImages(store)) yield* imageReachable(store, image, seen, layers);
}

/** The same of one image; `seen` and `layers` have the nodes and DiffIDs that were told already, and take these. */
export function* imageReachable(
  store: Store,
  image: ImageRecord,
  seen: Set<string> = new Set(),
  layers: Set<string> = new Set(),
): Generator<Reachable> {
  yield* treeReachable(store, image.treeRoot, seen);
  for (const { diffId, digest } of image.layers) {
    const packing = digest === undefined ? undefined : loadBlob(store, digest)?.packing;
    if (packing?.kind === 'kept') yield { kind: 'content', ref: packing.ref };
    if (layers.has(diffId)) continue;
    layers.add(diffId);
    yield* layerReachable(store, diffId);
  }
}

/** The nodes and contents of one image tree; `seen` has the nodes that were told already (hashes as latin1), and takes these. */
export function* treeReachable(
  store: Store,
  treeRoot: Uint8Array,
  seen: Set<string> = new Set(),
): Generator<Reachable> {
  const hash = Buffer.from(treeRoot);
  if (seen.has(hash.toString('latin1'))) return;
  seen.add(hash.toString('latin1'));
  yield { kind: 'node', hash };
  const { links, root } = decodeRoot(readNode(store, hash));
  if (links !== undefined) yield { kind: 'node', hash: links.hash };
  const todo = [root.child!.hash];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const name = Buffer.from(next).toString('latin1');
    if (seen.has(name)) continue;
    seen.add(name);
    yield { kind: 'node', hash: next };
    const node = new DirectoryNode(readNode(store, next));
    for (let i = 0; i < node.count; i++) {
      const entry = node.entry(i);
      if (entry.child !== undefined) todo.push(entry.child.hash);
      else if (entry.root !== undefined) yield { kind: 'content', ref: { root: entry.root, size: entry.size } };
    }
  }
}

/** What a layer's tar is made of; files that a later layer hides are in no tree, only here. */
function* layerReachable(store: Store, diffId: string): Generator<Reachable> {
  const layer = loadLayer(store, diffId);
  if (layer === undefined) return;
  for (const ref of layer.recipe) yield { kind: 'content', ref };
  for (const step of recipeSteps(store, layer.recipe))
    if (step.kind === 'content') yield { kind: 'content', ref: step.ref };
}
