import { loadLayer, type ImageRecord, type LayerRecord } from '../layers/images.ts';
import type { ProgressSink } from '../layers/progress.ts';
import { recipeSteps } from '../layers/recipe.ts';
import { contentKey, type ContentRef } from '../store/content.ts';
import type { Store } from '../store/store.ts';
import type { Connection } from './connection.ts';
import { findLacking, shipLacking, type Lacking } from './contents-offer.ts';
import { flagOf, type Body } from './envelope.ts';

/** What the peer lacks of an image. */
export interface ImagePlan {
  /** The peer has the image, with every layer: there is nothing to send. */
  known: boolean;
  lacking: Lacking;
}

const NOTHING: Lacking = { nodes: [], contents: [], sectors: [], bytes: 0 };

/**
 * Asks the peer what it lacks of an image: of its tree, and of the layers' recipes and their contents, so that it can export the image
 * as well as run it.
 */
export async function planImage(connection: Connection, store: Store, image: ImageRecord): Promise<ImagePlan> {
  const answer = await connection.request('contents', 'image-known', { id: image.id, treeRoot: image.treeRoot });
  if (flagOf(answer.body, 'known')) return { known: true, lacking: NOTHING };
  return { known: false, lacking: await findLacking(connection, store, image.treeRoot, layerContents(store, image)) };
}

/** Sends what the plan found, then the image's records; the peer has the whole image when this resolves. */
export async function shipImage(
  connection: Connection,
  store: Store,
  image: ImageRecord,
  plan: ImagePlan,
  progress: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  if (plan.known) return;
  await shipLacking(connection, store, plan.lacking, progress, signal);
  await connection.request('contents', 'image', imageBody(store, image));
}

function layersOf(store: Store, image: ImageRecord): LayerRecord[] {
  return image.layers.map(({ diffId }) => loadLayer(store, diffId)).filter((layer) => layer !== undefined);
}

/** The recipes of an image's layers and all contents that they name (also of files that a higher layer hides). */
function* layerContents(store: Store, image: ImageRecord): Generator<ContentRef> {
  for (const { recipe } of layersOf(store, image)) {
    yield* recipe;
    for (const step of recipeSteps(store, recipe)) if (step.kind === 'content') yield step.ref;
  }
}

/** An image as it travels. Everything that the store of the other side keeps of it, but for when it was imported. */
function imageBody(store: Store, image: ImageRecord): Body {
  return {
    id: image.id,
    treeRoot: image.treeRoot,
    config: image.configBytes,
    ...(image.manifest === undefined ? {} : { manifest: { ...image.manifest } }),
    layers: image.layers.map((layer) => ({ ...layer })),
    platform: image.platform,
    size: image.size,
    names: [...image.names, ...image.digests],
    recipes: layersOf(store, image).map(({ recipe, ...rest }) => ({
      ...rest,
      recipe: Buffer.concat(recipe.map((ref) => contentKey(ref))),
    })),
  };
}
