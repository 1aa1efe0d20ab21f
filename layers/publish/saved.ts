/** `docker-archive:` and the engines: what docker save writes and docker load reads - manifest.json, the config, and a tar for each layer. */
import type { Store } from '../../store/store.ts';
import type { ImageRecord } from '../images.ts';
import type { Pieces } from './files.ts';
import { requireLayer, tarBlob } from './outgoing.ts';

/** Told of each layer while it is written. */
export interface LayerProgress {
  start(id: string, label: string, totalBytes: number): void;
  advance(id: string, bytes: number): void;
  done(id: string, note?: string): void;
}

/** The files of the archive, in order; `tags` are the image's names there. */
export async function* savedFiles(
  store: Store,
  image: ImageRecord,
  tags: readonly string[],
  progress: LayerProgress | undefined,
): AsyncGenerator<{ name: string; size: number; pieces: Pieces }> {
  const config = `${hexOf(image.id)}.json`;
  const layers = image.layers.map(({ diffId }) => requireLayer(store, diffId));
  const tarOf = (diffId: string): string => `${hexOf(diffId)}.tar`;
  for (const layer of new Map(layers.map((each) => [each.diffId, each])).values()) {
    const { digest, label, sizeBytes, open } = tarBlob(store, layer);
    progress?.start(digest, label, sizeBytes);
    yield { name: tarOf(digest), size: sizeBytes, pieces: told(open() as Iterable<Uint8Array>, digest, progress) };
    progress?.done(digest);
  }
  yield { name: config, size: image.configBytes.length, pieces: [image.configBytes] };
  const manifest = Buffer.from(
    JSON.stringify([{ Config: config, RepoTags: tags, Layers: image.layers.map(({ diffId }) => tarOf(diffId)) }]),
  );
  yield { name: 'manifest.json', size: manifest.length, pieces: [manifest] };
}

function* told(pieces: Iterable<Uint8Array>, id: string, progress: LayerProgress | undefined): Generator<Uint8Array> {
  for (const piece of pieces) {
    progress?.advance(id, piece.length);
    yield piece;
  }
}

const hexOf = (digest: string): string => digest.slice(digest.indexOf(':') + 1);
