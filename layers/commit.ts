import { createHash } from 'node:crypto';
import { PgError } from '../mdm/error.ts';
import type { Store } from '../store/store.ts';
import { buildTree } from './build.ts';
import { type ImageRecord, type LayerRecord, loadImage, loadLayer, putImage, putLayer } from './images.ts';
import { ingestLayer, LayerStack, replayLayer } from './ingest.ts';
import { MergedTree } from './merge.ts';
import { formatPlatform, parsePlatform } from './transport/platform.ts';
import type { ImageConfig } from './transport/source.ts';

const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';

/**
 * Makes an image of `parent` (null: the empty one) and one more layer, the tar given, which is read once. It becomes visible wholly or not at all. Contents
 * that the store has are not stored again, and the layers below are the parent's. `config` is the new image's but for `rootfs`. `names` are full names. PgError IMAGE_DAMAGED, and what the store throws.
 */
export async function commitImage(
  store: Store,
  parent: ImageRecord | null,
  tar: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  config: ImageConfig,
  names: readonly string[],
): Promise<ImageRecord> {
  const below = (parent?.layers ?? []).map(({ diffId }) => layerOf(store, diffId));
  const writer = store.writer('commit');
  try {
    const stack = new LayerStack(new MergedTree());
    for (const [i, layer] of below.entries()) await replayLayer(store, writer, stack, i, layer);
    const hash = createHash('sha256');
    const read = await ingestLayer(writer, stack, below.length, '', hashed(tar, hash), 'the new layer');
    const diffId = `sha256:${hash.digest('hex')}`;
    await writer.flush();
    await read.recipe.finish();
    await writer.flush();
    const layer: LayerRecord = { ...read, diffId, recipe: await read.recipe.pieces() };
    const treeRoot = buildTree(store, stack.tree);
    const configBytes = Buffer.from(JSON.stringify(withLayer(config, parent, diffId)));
    const id = `sha256:${createHash('sha256').update(configBytes).digest('hex')}`;
    await writer.finish(() => {
      putLayer(store, layer);
      const layers = [
        ...(parent?.layers ?? []),
        { diffId, digest: diffId, mediaType: LAYER_TYPE, blobBytes: layer.tarBytes },
      ];
      const platform = parent?.platform ?? formatPlatform(parsePlatform(`${config.os}/${config.architecture}`));
      const size = (parent?.size ?? 0) + layer.contentBytes;
      putImage(store, { id, treeRoot, configBytes, layers, platform, importedMs: Date.now(), size }, names);
    });
    return loadImage(store, id)!;
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

function withLayer(config: ImageConfig, parent: ImageRecord | null, diffId: string): ImageConfig {
  return { ...config, rootfs: { type: 'layers', diff_ids: [...(parent?.config.rootfs.diff_ids ?? []), diffId] } };
}

function layerOf(store: Store, diffId: string): LayerRecord {
  const layer = loadLayer(store, diffId);
  if (layer !== undefined) return layer;
  throw new PgError('IMAGE_DAMAGED', `layer ${diffId} of the image below is not in the store`, {
    hint: 'import that image again',
  });
}

async function* hashed(
  tar: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  hash: ReturnType<typeof createHash>,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const piece of tar) {
    hash.update(piece);
    yield piece;
  }
}
