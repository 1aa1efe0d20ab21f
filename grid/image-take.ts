import { createHash } from 'node:crypto';
import { loadImage, loadLayer, putImage, putLayer, type ImageLayer, type LayerRecord } from '../layers/images.ts';
import { recipeSteps } from '../layers/recipe.ts';
import { formatReference, parseImageName } from '../layers/reference.ts';
import { digestOf, isDigest, splitDigest } from '../layers/transport/digest.ts';
import { parseConfig } from '../layers/transport/manifest.ts';
import { readNode } from '../layers/tree.ts';
import { decodeRoot, DirectoryNode } from '../layers/trie.ts';
import { PgError } from '../mdm/error.ts';
import type { ContentRef } from '../store/content.ts';
import type { Store } from '../store/store.ts';
import type { Answer, Service } from './connection.ts';
import { type ContentsTaker, refOf } from './contents-take.ts';
import { badMessage, bytesOf, mapOf, mapsOf, textOf, uintOf, type Body } from './envelope.ts';

/** Receives images as `image-offer.ts` sends them: an image is recorded only when all that it reaches is here. */
export function imageServices(store: Store, taker: ContentsTaker): Record<string, Service> {
  return {
    'image-known': async ({ body }) => {
      taker.hold();
      const image = loadImage(store, digestIn(body, 'id'));
      return {
        body: { known: image !== undefined && Buffer.compare(image.treeRoot, bytesOf(body, 'treeRoot', 32)) === 0 },
      };
    },
    image: async ({ body }) => takeImage(store, body),
  };
}

function takeImage(store: Store, body: Body): Answer {
  const id = digestIn(body, 'id');
  const configBytes = Buffer.from(bytesOf(body, 'config'));
  if (`sha256:${createHash('sha256').update(configBytes).digest('hex')}` !== id) {
    throw badMessage('an image whose configuration has another digest');
  }
  const treeRoot = bytesOf(body, 'treeRoot', 32);
  const layers = mapsOf(body, 'layers').map(layerOf);
  const recipes = mapsOf(body, 'recipes').map(recipeOf);
  const { diff_ids: diffIds } = parseConfig(configBytes, 'the config of the image').rootfs;
  if (layers.length !== diffIds.length || layers.some(({ diffId }, i) => diffId !== diffIds[i]))
    throw badMessage('an image of other layers than its configuration says');
  checkTree(store, treeRoot);
  for (const { recipe } of recipes) checkRecipe(store, recipe);
  const names = body['names'];
  if (!Array.isArray(names) || !names.every((name) => typeof name === 'string'))
    throw badMessage("'names' is not a list of texts");
  store.transaction(() => {
    // What is here already stays as it is: it was verified when it came, and this is only what a peer says.
    for (const recipe of recipes) if (loadLayer(store, recipe.diffId) === undefined) putLayer(store, recipe);
    if (loadImage(store, id) !== undefined) return;
    putImage(
      store,
      {
        id,
        treeRoot,
        configBytes,
        ...(body['manifest'] === undefined ? {} : { manifest: manifestOf(mapOf(body, 'manifest')) }),
        layers,
        platform: textOf(body, 'platform'),
        importedMs: Date.now(),
        size: uintOf(body, 'size'),
      },
      // A name that stands for another image here goes on to do so.
      names.filter((name) => !store.table('names').has(formatReference(parseImageName(name)))),
    );
  });
  return {};
}

function layerOf(body: Body): ImageLayer {
  return {
    diffId: digestIn(body, 'diffId'),
    ...(body['digest'] === undefined ? {} : { digest: digestIn(body, 'digest') }),
    mediaType: textOf(body, 'mediaType'),
    blobBytes: uintOf(body, 'blobBytes'),
  };
}

function recipeOf(body: Body): LayerRecord {
  const keys = bytesOf(body, 'recipe');
  if (keys.length % 40 !== 0) throw badMessage('a recipe of broken names');
  return {
    diffId: digestIn(body, 'diffId'),
    recipe: Array.from({ length: keys.length / 40 }, (_, i) => refOf(keys.subarray(i * 40, (i + 1) * 40))),
    tarBytes: uintOf(body, 'tarBytes'),
    contentBytes: uintOf(body, 'contentBytes'),
    entries: uintOf(body, 'entries'),
  };
}

function manifestOf(body: Body): { bytes: Buffer; digest: string; mediaType: string } {
  const bytes = Buffer.from(bytesOf(body, 'bytes'));
  const digest = digestIn(body, 'digest');
  if (digestOf(bytes, splitDigest(digest, 'a manifest').algorithm) !== digest)
    throw badMessage('a manifest that has another digest');
  return { bytes, digest, mediaType: textOf(body, 'mediaType') };
}

/** A digest: it becomes part of paths when the image is exported. */
function digestIn(body: Body, name: string): string {
  const digest = textOf(body, name);
  if (!isDigest(digest)) throw badMessage(`'${name}' is no digest`);
  return digest;
}

/** IMAGE_INCOMPLETE unless every node and content below `treeRoot` is in the store. */
function checkTree(store: Store, treeRoot: Uint8Array): void {
  const record = decodeRoot(nodeOf(store, treeRoot));
  if (record.links !== undefined) nodeOf(store, record.links.hash);
  const seen = new Set<string>();
  const left = record.root.child === undefined ? [] : [record.root.child.hash];
  for (let hash = left.pop(); hash !== undefined; hash = left.pop()) {
    const directory = new DirectoryNode(nodeOf(store, hash));
    for (let index = 0; index < directory.count; index++) {
      const { child, root, size } = directory.entry(index);
      if (root !== undefined) checkContent(store, { root, size });
      const key = child === undefined ? '' : Buffer.from(child.hash).toString('latin1');
      if (child === undefined || seen.has(key)) continue;
      seen.add(key);
      left.push(child.hash);
    }
  }
}

function checkRecipe(store: Store, recipe: readonly ContentRef[]): void {
  for (const ref of recipe) checkContent(store, ref);
  for (const step of recipeSteps(store, recipe)) if (step.kind === 'content') checkContent(store, step.ref);
}

function nodeOf(store: Store, hash: Uint8Array): Buffer {
  try {
    return readNode(store, hash);
  } catch (cause) {
    throw incomplete(`node ${Buffer.from(hash).toString('hex')}`, cause);
  }
}

function checkContent(store: Store, ref: ContentRef): void {
  if (!store.hasContent(ref)) throw incomplete(`content ${Buffer.from(ref.root).toString('hex')} of ${ref.size} bytes`);
}

function incomplete(what: string, cause?: unknown): PgError {
  return new PgError('IMAGE_INCOMPLETE', `the image did not arrive whole: ${what} is missing here`, {
    hint: 'try again; if it stays so, import the image on this node first (pg import)',
    ...(cause === undefined ? {} : { cause }),
  });
}
