import { createHash } from 'node:crypto';
import { createGzip } from 'node:zlib';
import { Readable } from 'node:stream';
import { isPgError, PgError } from '../mdm/error.ts';
import type { Store } from '../store/store.ts';
import { gzipHeader } from './blobs/gzip.ts';
import { blobBytes, layerTar } from './blobs/open.ts';
import { blobsOfLayer, forgetBlob, putBlob } from './blobs/record.ts';
import type { ImageRecord, LayerRecord } from './images.ts';
import { loadIndex } from './indexes.ts';
import type { ProgressSink } from './progress.ts';
import { type BlobDestination, type DestinationName, parseDestination } from './publish/destination.ts';
import { DirectoryDestination } from './publish/directory.ts';
import { loadIntoEngine } from './publish/engine.ts';
import { ArchiveFile } from './publish/files.ts';
import { LayoutDestination } from './publish/layout.ts';
import type { ManifestForm } from './publish/manifests.ts';
import {
  labelOf,
  type OutgoingBlob,
  type Outgoing,
  outgoingIndex,
  outgoingManifest,
  type PackLayer,
  requireLayer,
  tarBlob,
} from './publish/outgoing.ts';
import { savedFiles } from './publish/saved.ts';
import { familiarReference, parseImageName } from './reference.ts';
import { readRange } from './transport/files.ts';
import { spool } from './transport/spool.ts';

/** Level of the layers that are packed here: what docker, podman and gzip use. */
const GZIP_LEVEL = 6;
const GZIP_TYPE = 'application/vnd.oci.image.layer.v1.tar+gzip';

export interface ExportOptions {
  /** What the manifest is to be like; default: what suits the destination. */
  form?: ManifestForm;
  progress?: ProgressSink;
  signal?: AbortSignal;
  /** Where DOCKER_HOST, REGISTRY_AUTH_FILE, HOME and so on are read. Default process.env. */
  env?: Readonly<Record<string, string | undefined>>;
}

export interface Exported {
  /** Where to, in words. */
  to: string;
  /** The manifest's digest there; undefined where there are none. */
  digest?: string;
  /** Whether the manifest is the one that was imported. */
  isPublished: boolean;
  /** Bytes of blobs that were written. */
  writtenBytes: number;
  /** Bytes of blobs that were there already, or were mounted there from another repository. */
  presentBytes: number;
}

/**
 * Writes an image to where `parseDestination` says. Config and layers are the ones that were imported, bit for bit: same image id, same
 * DiffIDs, checked while they are written; the same manifest where its blobs can be had as they were published. An archive appears whole
 * or not at all; an OCI directory may hold other images, which stay; a registry gets the manifest last.
 * PgError `DESTINATION_INVALID`, `LAYER_DAMAGED`, and what disk, registry and engine say.
 */
export async function exportImage(
  store: Store,
  image: ImageRecord,
  destination: string,
  options: ExportOptions = {},
): Promise<Exported> {
  const name = parseDestination(destination);
  if (name.transport === 'docker-archive') return await saveArchive(store, image, name, options);
  if ('name' in name) return await saveToEngine(store, image, name, options);
  return await withoutFalseBlobs(() =>
    publish(store, image.names, name, options, async (form, pack) => {
      const manifest = await outgoingManifest(store, image, form, pack);
      return { ...manifest, manifests: [] };
    }),
  );
}

/**
 * Writes all images of the index that `name` stands for, to a destination that holds indexes. The index is the one that was imported if
 * each of its manifests is. PgError `INDEX_NOT_FOUND`, and as exportImage.
 */
export async function exportIndex(
  store: Store,
  name: string,
  destination: string,
  options: ExportOptions = {},
): Promise<Exported> {
  const to = parseDestination(destination);
  if (to.transport === 'docker-archive' || 'name' in to) {
    throw new PgError('DESTINATION_INVALID', `${to.transport}: holds no images of several platforms under one name`, {
      hint: 'write oci:DIRECTORY, oci-archive:PATH, dir:DIRECTORY or docker://HOST/NAME:TAG',
    });
  }
  const index = loadIndex(store, name);
  if (index === undefined) {
    throw new PgError('INDEX_NOT_FOUND', `${name} stands for one image here, not for several platforms`, {
      hint: 'import it with --all-platforms, or leave --all-platforms out',
    });
  }
  return await withoutFalseBlobs(() =>
    publish(store, parseNames(name), to, options, (form, pack) => outgoingIndex(store, index, form, pack)),
  );
}

const parseNames = (name: string): string[] => [familiarReference(parseImageName(name))];

/** A blob that is not made as it had seemed: its record is gone then, and the image goes out with another manifest. */
async function withoutFalseBlobs(attempt: () => Promise<Exported>): Promise<Exported> {
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!isPgError(error, 'BLOB_NOT_REBUILT')) throw error;
    }
  }
}

type BlobPlace = Extract<DestinationName, { transport: 'oci' | 'oci-archive' | 'dir' | 'docker' }>;

async function openDestination(
  store: Store,
  names: readonly string[],
  name: BlobPlace,
  { env = process.env, signal }: ExportOptions,
): Promise<BlobDestination> {
  switch (name.transport) {
    case 'oci':
      return await LayoutDestination.directory(name.path, name.ref, names);
    case 'oci-archive':
      return await LayoutDestination.archive(name.path, name.ref, names);
    case 'dir':
      return new DirectoryDestination(name.path);
    case 'docker': {
      // What speaks to registries is loaded when one is to be spoken to.
      const { RegistryDestination } = await import('./publish/registry.ts');
      return new RegistryDestination(store, name.reference, env, signal);
    }
  }
}

/** What is to be written, given the form of its manifests and how to pack layers. */
type Gather = (form: ManifestForm, pack: PackLayer) => Promise<Outgoing>;

async function publish(
  store: Store,
  names: readonly string[],
  name: BlobPlace,
  options: ExportOptions,
  gather: Gather,
): Promise<Exported> {
  const to = await openDestination(store, names, name, options);
  const scratch = new Scratch();
  try {
    const pack = (layer: LayerRecord): Promise<OutgoingBlob> =>
      to.packing === 'none' ? Promise.resolve(tarBlob(store, layer)) : packedBlob(store, layer, scratch, options);
    const { document, blobs, manifests, isPublished } = await gather(options.form ?? to.form, pack);
    const { writtenBytes, presentBytes } = await writeBlobs(store, blobs, to, options);
    for (const manifest of manifests) await to.manifest(manifest, false);
    await to.manifest(document, true);
    await to.end();
    return { to: to.describe(), digest: document.digest, isPublished, writtenBytes, presentBytes };
  } catch (error) {
    await to.abort();
    throw error;
  } finally {
    await scratch.close();
  }
}

/** Writes blobs, as many at once as the destination takes. The first failure is thrown, once the others have ended. */
async function writeBlobs(
  store: Store,
  blobs: readonly OutgoingBlob[],
  to: BlobDestination,
  { progress, signal }: ExportOptions,
): Promise<{ writtenBytes: number; presentBytes: number }> {
  const counts = { writtenBytes: 0, presentBytes: 0 };
  const failures: unknown[] = [];
  let next = 0;
  progress?.total?.(blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
  const lane = async (): Promise<void> => {
    while (next < blobs.length && failures.length === 0) {
      const id = `${next}`;
      const blob = blobs[next++]!;
      try {
        signal?.throwIfAborted();
        progress?.start(id, blob.label, blob.sizeBytes);
        const outcome = await to.blob(blob, (bytes) => progress?.advance(id, bytes));
        counts[outcome === 'written' ? 'writtenBytes' : 'presentBytes'] += blob.sizeBytes;
        progress?.done(id, ...(outcome === 'written' ? [] : [outcome]));
      } catch (error) {
        if (isPgError(error, 'BLOB_NOT_REBUILT')) forgetBlob(store, blob.digest);
        failures.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: to.blobsAtOnce }, lane));
  if (failures.length > 0) throw failures[0];
  return counts;
}

/** Temporary copies that are closed, and so gone, at the end. */
class Scratch {
  readonly #open: { close(): Promise<void> }[] = [];

  hold<T extends { close(): Promise<void> }>(file: T): T {
    this.#open.push(file);
    return file;
  }

  async close(): Promise<void> {
    for (const file of this.#open) await file.close();
  }
}

/**
 * A layer packed with gzip: as some image of this store was published with it, else by ourselves, in temporary space, as its digest must be
 * known before anything is sent. How it was done is noted, so that the next time it need not be.
 */
async function packedBlob(
  store: Store,
  layer: LayerRecord,
  scratch: Scratch,
  { progress, signal }: ExportOptions,
): Promise<OutgoingBlob> {
  const { diffId } = layer;
  const known = blobsOfLayer(store, diffId).find(({ packing }) => packing.kind === 'gzip');
  if (known !== undefined) {
    const { digest, sizeBytes } = known;
    return {
      digest,
      sizeBytes,
      mediaType: GZIP_TYPE,
      label: labelOf(digest),
      open: () => blobBytes(store, known, layer),
    };
  }
  progress?.start(diffId, `packing ${labelOf(diffId)}`, layer.tarBytes);
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let header: Buffer | undefined;
  async function* packed(): AsyncGenerator<Uint8Array> {
    const tar = Readable.from(
      copies(layerTar(store, layer), (bytes) => progress?.advance(diffId, bytes)),
      {
        objectMode: false,
      },
    );
    const gzip = createGzip({ level: GZIP_LEVEL });
    for await (const piece of tar.on('error', (error) => gzip.destroy(error)).pipe(gzip) as AsyncIterable<Buffer>) {
      signal?.throwIfAborted();
      header ??= gzipHeader(piece);
      hash.update(piece);
      sizeBytes += piece.length;
      yield piece;
    }
  }
  const file = scratch.hold(await spool(packed(), undefined));
  const digest = `sha256:${hash.digest('hex')}`;
  const packing = { kind: 'gzip', maker: 'zlib', level: GZIP_LEVEL, header: header!.toString('hex') } as const;
  if (!store.readOnly) putBlob(store, { digest, diffId, sizeBytes, packing });
  progress?.done(diffId);
  const open = (): AsyncIterable<Uint8Array> => readRange(file, 0, sizeBytes, labelOf(digest));
  return { digest, sizeBytes, mediaType: GZIP_TYPE, label: labelOf(digest), open };
}

function* copies(pieces: Iterable<Uint8Array>, onBytes: (bytes: number) => void): Generator<Buffer> {
  for (const piece of pieces) {
    onBytes(piece.length);
    yield Buffer.from(piece);
  }
}

async function saveArchive(
  store: Store,
  image: ImageRecord,
  { path, ref }: { path: string; ref: string | undefined },
  { progress, signal }: ExportOptions,
): Promise<Exported> {
  const tags = ref === undefined ? image.names : [familiarReference(parseImageName(ref))];
  const archive = await ArchiveFile.create(path);
  let writtenBytes = 0;
  try {
    for await (const { name, size, pieces } of savedFiles(store, image, tags, progress)) {
      signal?.throwIfAborted();
      await archive.file(name, size, pieces);
      writtenBytes += size;
    }
    await archive.end();
  } catch (error) {
    await archive.abort();
    throw error;
  }
  return { to: `the archive ${path}`, isPublished: false, writtenBytes, presentBytes: 0 };
}

async function saveToEngine(
  store: Store,
  image: ImageRecord,
  { transport, name }: { transport: 'docker-daemon' | 'podman-daemon'; name: string | undefined },
  { env = process.env, progress, signal }: ExportOptions,
): Promise<Exported> {
  const tags = name === undefined ? image.names : [familiarReference(parseImageName(name))];
  if (tags.length === 0) {
    throw new PgError('DESTINATION_INVALID', 'the image has no name to be called by there', {
      hint: `say one: ${transport}:NAME`,
    });
  }
  const kind = transport === 'docker-daemon' ? 'docker' : 'podman';
  const to = await loadIntoEngine(store, image, kind, tags, env, progress, signal);
  const writtenBytes = image.layers.reduce((sum, { diffId }) => sum + requireLayer(store, diffId).tarBytes, 0);
  return { to, isPublished: false, writtenBytes, presentBytes: 0 };
}
