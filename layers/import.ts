import assert from 'node:assert/strict';
import { PgError } from '../mdm/error.ts';
import { FAST_LEVEL } from '../store/pack.ts';
import type { Store } from '../store/store.ts';
import type { ContentWriter } from '../store/writer.ts';
import { BlobKeeper, type KeepBlobs } from './blobs/keeper.ts';
import { putBlob } from './blobs/record.ts';
import { buildTree } from './build.ts';
import {
  type ImageRecord,
  type LayerRecord,
  loadImage,
  loadLayer,
  putImage,
  putLayer,
  SCRATCH,
  tagImage,
} from './images.ts';
import { type Ingested, ingestLayer, LayerStack, replayLayer } from './ingest.ts';
import { MergedTree } from './merge.ts';
import type { ProgressSink } from './progress.ts';
import { formatReference, parseImageName, parseReference, repositoryName } from './reference.ts';
import { openLayerTar } from './transport/decompress.ts';
import { openSource, splitTransport } from './transport/open.ts';
import { formatPlatform, parsePlatform, type Platform, platformFitness } from './transport/platform.ts';
import type { UnpackLimit } from './transport/unpack-limit.ts';
import type { BareNameOrigin, ImageSource, LayerBlob, SourceImage } from './transport/source.ts';

/** Layers read at the same time: one is applied, others are fetched and unpacked meanwhile. */
const LAYERS_AT_ONCE = 3;

export interface ImportOptions {
  /** `os/arch[/variant]`; default: this machine's. */
  platform?: string;
  /** For a bare name: where to take it from. */
  from?: BareNameOrigin;
  /** A name for the image instead of those that its source gives it. */
  name?: string;
  /** What is done so that compressed blobs can come out again as they came. Default `keep`. */
  keepBlobs?: KeepBlobs;
  /** How far a compressed blob or archive may unpack. Default UNPACK_LIMIT. */
  unpack?: UnpackLimit;
  /** Whether sectors are compressed while they are written; else `Store.pack` may do it later. */
  compress?: boolean;
  progress?: ProgressSink;
  signal?: AbortSignal;
}

export interface Imported {
  image: ImageRecord;
  /** Which source was used, in words. */
  took: string;
  /** The image was in the store: no layer was read, at most it got a name. */
  alreadyPresent: boolean;
  counts: ImportCounts;
}

/** What an import came to, in bytes. */
export interface ImportCounts {
  /** Of blobs that were read from the source. */
  readBytes: number;
  /** Of blobs of layers that were here already, and were not read. */
  presentBytes: number;
  /** Of file contents in the layers that were read. */
  contentBytes: number;
  /** Those of them that the store had already, or that came twice. */
  knownBytes: number;
}

export const NO_COUNTS: ImportCounts = { readBytes: 0, presentBytes: 0, contentBytes: 0, knownBytes: 0 };

/**
 * Brings an image into the store, wholly or not at all: contents become visible together with the image's record, in one
 * transaction. `source` is what `openSource` takes; a bare name that is in the store is not looked for elsewhere unless `from` says
 * where. An image with the same config is recognised before any layer is read, a layer
 * with the same DiffID is taken from the store. Everything is verified in the stream: blobs by digest and size, tars by DiffID.
 */
export async function importImage(store: Store, source: string, options: ImportOptions = {}): Promise<Imported> {
  const { from, progress, signal } = options;
  const platform = options.platform === undefined ? undefined : parsePlatform(options.platform);
  const present = from === undefined ? presentImage(store, source, platform) : undefined;
  if (present !== undefined) {
    if (options.name !== undefined) tagImage(store, present.id, options.name);
    return { image: loadImage(store, present.id)!, took: 'the store', alreadyPresent: true, counts: NO_COUNTS };
  }
  const opened = await openSource(source, {
    ...(from === undefined ? {} : { from }),
    ...(platform === undefined ? {} : { platform }),
    ...(progress === undefined ? {} : { progress }),
    ...(signal === undefined ? {} : { signal }),
    ...(options.unpack === undefined ? {} : { unpack: options.unpack }),
  });
  try {
    return await importFrom(store, opened, options);
  } finally {
    await opened.close();
  }
}

/** The image of a bare name that is in the store, for `platform` if one is wanted; no source needs to be asked then. */
function presentImage(store: Store, source: string, platform: Platform | undefined): ImageRecord | undefined {
  if (source === SCRATCH || splitTransport(source).transport !== null) return undefined;
  const { domain, path, tag, digest } = parseImageName(source);
  const wanted = digest === undefined ? { domain, path, tag: tag! } : { domain, path, digest };
  const id = store.table('names').get(formatReference(wanted))?.toString();
  const image = id === undefined ? undefined : loadImage(store, id);
  if (image === undefined || platform === undefined) return image;
  return platformFitness(platform, parsePlatform(image.platform)) > 0 ? image : undefined;
}

/** As importImage, from a source that is open already; `from` has no meaning then. The caller closes it. */
export async function importFrom(store: Store, source: ImageSource, options: ImportOptions = {}): Promise<Imported> {
  const name = options.name === undefined ? undefined : checkedName(options.name);
  const image = await source.manifest(options.platform === undefined ? undefined : parsePlatform(options.platform));
  return await bringImage(store, source, image, namesFor(source, image, name), options);
}

/** Brings one image of a source, wholly or not at all, under these full names. */
export async function bringImage(
  store: Store,
  source: ImageSource,
  image: SourceImage,
  names: readonly string[],
  options: ImportOptions,
): Promise<Imported> {
  const alreadyPresent = store.transaction(() => rename(store, image.configDigest, names));
  const counts = alreadyPresent ? NO_COUNTS : await importLayers(store, source, image, names, options);
  return { image: loadImage(store, image.configDigest)!, took: describeSource(source), alreadyPresent, counts };
}

/** Which source it was, and why that one. */
export function describeSource(source: ImageSource): string {
  return source.why === undefined ? source.describe() : `${source.describe()} (${source.why})`;
}

/** The full form of a name that may be given to an image. PgError `REFERENCE_INVALID`, `NAME_RESERVED`. */
export function checkedName(name: string): string {
  if (name === SCRATCH)
    throw new PgError('NAME_RESERVED', `'${SCRATCH}' is the empty image: no other can be called so`);
  return formatReference(parseImageName(name));
}

/** The names an imported image gets; one from a registry is also known by its manifest's digest there. */
function namesFor(source: ImageSource, image: SourceImage, name: string | undefined): string[] {
  const names = name === undefined ? image.names : [name];
  if (source.transport !== 'docker' || image.manifest === null) return names;
  const { digest } = image.manifest;
  return [...names, ...image.names.map((given) => `${repositoryName(parseReference(given))}@${digest}`)];
}

/** Names an image that is here; false when it is not. */
function rename(store: Store, id: string, names: readonly string[]): boolean {
  if (!store.table('images').has(id)) return false;
  for (const name of names) store.table('names').put(name, Buffer.from(id));
  return true;
}

async function importLayers(
  store: Store,
  source: ImageSource,
  image: SourceImage,
  names: readonly string[],
  options: ImportOptions,
): Promise<ImportCounts> {
  const writer = store.writer('import', options.compress === true ? FAST_LEVEL : null);
  const stop = new AbortController();
  const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
  try {
    const stack = new LayerStack(new MergedTree());
    options.progress?.total?.(image.layers.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
    const keepers: BlobKeeper[] = [];
    const bring = (blob: LayerBlob): Promise<Ingested | LayerRecord> => {
      const keeper = new BlobKeeper(writer, options.keepBlobs ?? 'keep', blob);
      if (loadLayer(store, blob.diffId) === undefined) keepers.push(keeper);
      return bringLayer(store, writer, stack, source, blob, keeper, signal, options);
    };
    const layers = await eachLayer(image.layers, bring, () => stop.abort());
    await writer.flush();
    assert.equal(stack.unnamed, 0, 'every content has its name');
    const records = await finishRecipes(writer, layers);
    const blobs = (await Promise.all(keepers.map((keeper) => keeper.record()))).filter((blob) => blob !== undefined);
    const treeRoot = buildTree(store, stack.tree);
    await writer.finish(() => {
      for (const record of records) putLayer(store, record);
      for (const blob of blobs) putBlob(store, blob);
      putImage(store, recordOf(image, records, treeRoot), names);
    });
    return countsOf(image, layers, writer.stats.knownBytes);
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

function countsOf(image: SourceImage, layers: readonly (Ingested | LayerRecord)[], knownBytes: number): ImportCounts {
  const sum = (numbers: number[]): number => numbers.reduce((a, b) => a + b, 0);
  const blobs = (isRead: boolean): number =>
    sum(image.layers.filter(({ index }) => fresh(layers[index]!) === isRead).map(({ sizeBytes }) => sizeBytes));
  const contentBytes = sum(layers.filter(fresh).map((layer) => layer.contentBytes));
  return { readBytes: blobs(true), presentBytes: blobs(false), contentBytes, knownBytes };
}

/** Runs `bring` for all layers, a few at once and the lowest first. The first failure is thrown, once `stop` has ended the others. */
async function eachLayer<T>(
  layers: readonly LayerBlob[],
  bring: (blob: LayerBlob) => Promise<T>,
  stop: () => void,
): Promise<T[]> {
  const results: T[] = [];
  const failures: unknown[] = [];
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < layers.length && failures.length === 0) {
      const blob = layers[next++]!;
      try {
        results[blob.index] = await bring(blob);
      } catch (error) {
        failures.push(error);
        stop();
      }
    }
  };
  await Promise.all(Array.from({ length: LAYERS_AT_ONCE }, lane));
  if (failures.length > 0) throw failures[0];
  return results;
}

async function bringLayer(
  store: Store,
  writer: ContentWriter,
  stack: LayerStack,
  source: ImageSource,
  blob: LayerBlob,
  keeper: BlobKeeper,
  signal: AbortSignal,
  { progress, unpack }: ImportOptions,
): Promise<Ingested | LayerRecord> {
  const known = loadLayer(store, blob.diffId);
  const id = `${blob.index}:${blob.digest ?? blob.diffId}`;
  const label = `layer ${blob.index + 1} ${(blob.digest ?? blob.diffId).replace(/^sha\d+:/, '').slice(0, 12)}`;
  progress?.start(id, label, blob.sizeBytes);
  try {
    if (known !== undefined) {
      await replayLayer(store, writer, stack, blob.index, known);
      progress?.done(id, 'already here');
      return known;
    }
    const kept = {
      describe: () => source.describe(),
      openBlob: (layer: LayerBlob, signal?: AbortSignal) => keeper.blob(source.openBlob(layer, signal)),
    };
    const tar = openLayerTar(kept, blob, {
      signal,
      onBlobBytes: (bytes) => progress?.advance(id, bytes),
      turn: () => stack.turn(blob.index),
      ...(unpack === undefined ? {} : { limit: unpack }),
    });
    const what = `layer ${blob.index + 1} (${blob.digest ?? blob.diffId}) of ${source.describe()}`;
    const ingested = await ingestLayer(writer, stack, blob.index, blob.diffId, keeper.tar(tar.bytes), what);
    progress?.done(id);
    return ingested;
  } catch (error) {
    stack.fail();
    throw error;
  }
}

const fresh = (layer: Ingested | LayerRecord): layer is Ingested => !Array.isArray(layer.recipe);

async function finishRecipes(
  writer: ContentWriter,
  layers: readonly (Ingested | LayerRecord)[],
): Promise<LayerRecord[]> {
  for (const layer of layers) if (fresh(layer)) await layer.recipe.finish();
  await writer.flush();
  return await Promise.all(
    layers.map(async (layer) => (fresh(layer) ? { ...layer, recipe: await layer.recipe.pieces() } : layer)),
  );
}

function recordOf(
  image: SourceImage,
  layers: readonly LayerRecord[],
  treeRoot: Uint8Array,
): Parameters<typeof putImage>[1] {
  return {
    id: image.configDigest,
    treeRoot,
    configBytes: image.configBytes,
    ...(image.manifest === null ? {} : { manifest: image.manifest }),
    layers: image.layers.map(({ diffId, digest, mediaType, sizeBytes }) => ({
      diffId,
      ...(digest === null ? {} : { digest }),
      mediaType,
      blobBytes: sizeBytes,
    })),
    platform: formatPlatform(image.platform),
    importedMs: Date.now(),
    size: layers.reduce((sum, layer) => sum + layer.contentBytes, 0),
  };
}
