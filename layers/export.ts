import { createHash, randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, readFile, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import type { Store } from '../store/store.ts';
import { type ImageRecord, type LayerRecord, loadLayer } from './images.ts';
import type { ProgressSink } from './progress.ts';
import { recipeTar } from './recipe.ts';
import { familiarReference, formatReference, parseImageName } from './reference.ts';
import { END_OF_ARCHIVE, fileHeader, padding } from './tar-writer.ts';

const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const INDEX_TYPE = 'application/vnd.oci.image.index.v1+json';
/** OCI image-spec, image-layout.md. */
const LAYOUT = Buffer.from('{"imageLayoutVersion":"1.0.0"}');
const REF_NAME = 'org.opencontainers.image.ref.name';
const FULL_NAME = 'io.containerd.image.name';

interface Destination {
  transport: 'docker-archive' | 'oci' | 'oci-archive';
  path: string;
  ref: string | undefined;
}

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
}

/** Takes the files of an archive or layout, one after another. */
interface FileSink {
  /** A file of `size` bytes; `chunks` are valid until the next is asked for. */
  file(name: string, size: number, chunks: Iterable<Uint8Array>): Promise<void>;
}

/**
 * Writes an image to `docker-archive:PATH[:REF]`, `oci-archive:PATH[:REF]` or `oci:DIR[:REF]` (containers-transports(5)). Config and
 * layers are the ones that were imported, bit for bit: same image id, same DiffIDs, checked while they are written. Layers are not
 * compressed. An archive appears whole or not at all; an OCI directory may hold other images, which stay.
 * PgError `DESTINATION_INVALID`, `LAYER_DAMAGED`, and what the disk says.
 */
export async function exportImage(
  store: Store,
  image: ImageRecord,
  destination: string,
  progress?: ProgressSink,
): Promise<void> {
  const to = parseDestination(destination);
  const layers = image.layers.map(({ diffId }) => {
    const layer = loadLayer(store, diffId);
    if (layer === undefined) throw damaged(diffId, 'its record is missing');
    return layer;
  });
  if (to.transport === 'oci') return await writeLayout(store, image, layers, to, progress);
  await writeArchive(to.path, async (archive) => {
    if (to.transport === 'docker-archive') await dockerFiles(store, image, layers, to.ref, archive, progress);
    else await ociFiles(store, image, layers, to.ref, archive, progress);
  });
}

function parseDestination(text: string): Destination {
  const [, transport, path, ref] = /^(docker-archive|oci-archive|oci):([^:]+)(?::(.+))?$/s.exec(text) ?? [];
  if (transport === undefined || path === undefined) {
    throw new PgError('DESTINATION_INVALID', `cannot export to '${text}'`, {
      hint: 'write docker-archive:PATH, oci-archive:PATH or oci:DIRECTORY, perhaps with :NAME after it',
    });
  }
  return { transport: transport as Destination['transport'], path, ref };
}

/** What docker save writes and docker load reads: manifest.json, the config, and a tar for each layer. */
async function dockerFiles(
  store: Store,
  image: ImageRecord,
  layers: readonly LayerRecord[],
  ref: string | undefined,
  to: FileSink,
  progress: ProgressSink | undefined,
): Promise<void> {
  const config = `${hexOf(image.id)}.json`;
  const tarOf = ({ diffId }: LayerRecord): string => `${hexOf(diffId)}.tar`;
  const tags = ref === undefined ? image.names : [familiarReference(parseImageName(ref))];
  const manifest = [{ Config: config, RepoTags: tags, Layers: layers.map(tarOf) }];
  for (const layer of distinct(layers)) await writeLayer(store, layer, tarOf(layer), to, progress);
  await to.file(config, image.configBytes.length, [image.configBytes]);
  const bytes = Buffer.from(JSON.stringify(manifest));
  await to.file('manifest.json', bytes.length, [bytes]);
}

async function ociFiles(
  store: Store,
  image: ImageRecord,
  layers: readonly LayerRecord[],
  ref: string | undefined,
  to: FileSink,
  progress: ProgressSink | undefined,
): Promise<void> {
  const { manifest, blobs } = ociManifest(image, layers, ref);
  await to.file('oci-layout', LAYOUT.length, [LAYOUT]);
  for (const layer of distinct(layers)) await writeLayer(store, layer, blobPath(layer.diffId), to, progress);
  for (const blob of blobs) await to.file(blobPath(digestOf(blob)), blob.length, [blob]);
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: INDEX_TYPE, manifests: [manifest] }));
  await to.file('index.json', index.length, [index]);
}

/** The manifest's descriptor, named, and the documents to be stored: config and manifest. */
function ociManifest(
  image: ImageRecord,
  layers: readonly LayerRecord[],
  ref: string | undefined,
): { manifest: Descriptor; blobs: Buffer[] } {
  const manifest = publishedManifest(image) ?? {
    mediaType: MANIFEST_TYPE,
    bytes: Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MANIFEST_TYPE,
        config: { mediaType: CONFIG_TYPE, digest: image.id, size: image.configBytes.length },
        layers: layers.map(({ diffId, tarBytes }) => ({ mediaType: LAYER_TYPE, digest: diffId, size: tarBytes })),
      }),
    ),
  };
  const annotations = namesOf(image, ref);
  const { mediaType, bytes } = manifest;
  return {
    manifest: {
      mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
      ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    },
    blobs: [image.configBytes, bytes],
  };
}

/** The manifest as it was published, where its blobs are the uncompressed tars that are written here. */
function publishedManifest(image: ImageRecord): { bytes: Buffer; mediaType: string } | undefined {
  const plain = image.layers.every(({ diffId, digest }) => digest === diffId);
  return plain && image.manifest?.mediaType === MANIFEST_TYPE ? image.manifest : undefined;
}

function namesOf(image: ImageRecord, ref: string | undefined): Record<string, string> {
  if (ref !== undefined && !/[:/]/.test(ref)) return { [REF_NAME]: ref };
  const name = ref ?? image.names[0];
  if (name === undefined) return {};
  const reference = parseImageName(name);
  return { [REF_NAME]: ref ?? reference.tag ?? 'latest', [FULL_NAME]: formatReference(reference) };
}

/** Writes a layer's tar from its recipe, and makes sure that it is the one that was imported. */
async function writeLayer(
  store: Store,
  layer: LayerRecord,
  name: string,
  to: FileSink,
  progress: ProgressSink | undefined,
): Promise<void> {
  const { diffId, recipe, tarBytes } = layer;
  const [algorithm = '', hex = ''] = diffId.split(':');
  progress?.start(diffId, `layer ${hex.slice(0, 12)}`, tarBytes);
  const hash = createHash(algorithm);
  function* hashed(): Generator<Uint8Array> {
    for (const chunk of recipeTar(store, recipe)) {
      hash.update(chunk);
      progress?.advance(diffId, chunk.length);
      yield chunk;
    }
    if (hash.digest('hex') !== hex) throw damaged(diffId, 'what the store has is another tar');
  }
  await to.file(name, tarBytes, hashed());
  progress?.done(diffId);
}

function damaged(diffId: string, why: string): PgError {
  return new PgError('LAYER_DAMAGED', `layer ${diffId} cannot be written: ${why}`, {
    hint: 'check the store (pg verify), then import the image again',
  });
}

/** A tar at `path`, written beside it and renamed when it is whole and on the disk. */
async function writeArchive(path: string, fill: (archive: FileSink) => Promise<void>): Promise<void> {
  await beside(path, async (file) => {
    await fill({
      async file(name, size, chunks) {
        await writeAll(file, fileHeader(name, size));
        for (const chunk of chunks) await writeAll(file, chunk);
        await writeAll(file, padding(size));
      },
    });
    await writeAll(file, END_OF_ARCHIVE);
  });
}

/** An OCI directory: blobs that are there are not written again, and the index keeps what else it lists. */
async function writeLayout(
  store: Store,
  image: ImageRecord,
  layers: readonly LayerRecord[],
  to: Destination,
  progress: ProgressSink | undefined,
): Promise<void> {
  const indexPath = join(to.path, 'index.json');
  const before = await readIndex(indexPath);
  const directory: FileSink = {
    async file(name, size, chunks) {
      const path = join(to.path, name);
      const there = name.startsWith('blobs/') ? await stat(path).catch(() => undefined) : undefined;
      if (there?.size === size) return;
      await mkdir(dirname(path), { recursive: true });
      await beside(path, async (file) => {
        for (const chunk of chunks) await writeAll(file, chunk);
      });
    },
  };
  const kept = (manifest: Descriptor): Descriptor[] => {
    const name = manifest.annotations?.[REF_NAME];
    return before.filter((other) =>
      name === undefined ? other.digest !== manifest.digest : other.annotations?.[REF_NAME] !== name,
    );
  };
  await ociFiles(
    store,
    image,
    layers,
    to.ref,
    {
      async file(name, size, chunks) {
        if (name !== 'index.json') return await directory.file(name, size, chunks);
        const [bytes = Buffer.alloc(0)] = chunks;
        const index = JSON.parse(Buffer.from(bytes).toString()) as { manifests: [Descriptor] };
        const merged = Buffer.from(
          JSON.stringify({ ...index, manifests: [...kept(index.manifests[0]), ...index.manifests] }),
        );
        await directory.file(name, merged.length, [merged]);
      },
    },
    progress,
  );
}

async function readIndex(path: string): Promise<Descriptor[]> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) return [];
  try {
    const { manifests } = JSON.parse(text) as { manifests: Descriptor[] };
    if (Array.isArray(manifests)) return manifests;
  } catch {
    // told below
  }
  throw new PgError('DESTINATION_INVALID', `${path} is not the index of an OCI image layout`, {
    hint: 'export to another directory',
  });
}

/** Writes a file under another name and gives it its own when it is on the disk; a failure leaves nothing behind. */
async function beside(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
  const file = await open(temporary, 'wx', 0o644).catch((error: NodeJS.ErrnoException) => {
    throw new PgError('DESTINATION_INVALID', `cannot write ${path}: ${error.code}`, { cause: error });
  });
  try {
    await write(file);
    await file.sync();
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      throw new PgError('DISK_FULL', `no room to write ${path}`, {
        hint: 'free some space, or export elsewhere',
        cause: error,
      });
    }
    throw error;
  } finally {
    await file.close();
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += (await file.write(bytes, at)).bytesWritten;
}

function distinct(layers: readonly LayerRecord[]): LayerRecord[] {
  return [...new Map(layers.map((layer) => [layer.diffId, layer])).values()];
}

const hexOf = (digest: string): string => digest.slice(digest.indexOf(':') + 1);
const blobPath = (digest: string): string => `blobs/${digest.replace(':', '/')}`;
const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
