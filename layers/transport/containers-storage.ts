/**
 * `containers-storage:NAME`: an image in podman's own store (containers-transports(5), containers-storage.conf(5); formats in
 * github.com/containers/storage, images.go and layers.go), read where it lies: images.json names the top layer and keeps manifest and config,
 * layers.json has parents and DiffIDs, and a layer's tar comes from its tar-split and the unpacked files. No code of podman is run and
 * nothing is written there.
 */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseImageName, repositoryName } from '../reference.ts';
import { digestOf, verified, verifyDigest } from './digest.ts';
import { missing, unreadable } from './files.ts';
import {
  configPlatform,
  DOCUMENT_BYTES_MAX,
  invalid,
  parseConfig,
  parseDocument,
  requirePlatform,
  tooLarge,
} from './manifest.ts';
import type { Platform } from './platform.ts';
import type { ImageSource, LayerBlob, ManifestDocument, SourceImage } from './source.ts';
import { assembledTar } from './tar-split.ts';
import { type Check, hex32, listOf, nullable, optional, shaped, text, uint } from '../../store/shape.ts';

type Env = Readonly<Record<string, string | undefined>>;

const LAYERS_MAX = 1000;
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';
/** Where a driver keeps a layer's unpacked files. */
const UNPACKED: Readonly<Record<string, (id: string) => string>> = {
  overlay: (id) => `overlay/${id}/diff`,
  vfs: (id) => `vfs/dir/${id}`,
};

/** A directory with images and layers, all of one driver. */
interface Place {
  graphRoot: string;
  driver: string;
}

interface StoredImage {
  id: string;
  digest?: string;
  names?: string[] | null;
  layer?: string;
}

interface StoredLayer {
  id: string;
  parent?: string;
  'diff-digest'?: string;
  'diff-size'?: number;
}

const IMAGE = shaped({
  id: hex32,
  digest: optional(text),
  names: optional(nullable(listOf(text))),
  layer: optional(text),
});
const LAYER = shaped({ id: hex32, parent: optional(text), 'diff-digest': optional(text), 'diff-size': optional(uint) });

/** Opens `[DRIVER@GRAPHROOT+RUNROOT]NAME`, or `NAME` in the store of storage.conf; NAME may be an id. Throws IMAGE_NOT_FOUND, FILE_UNREADABLE. */
export function openContainersStorage(address: string, env: Env): ImageSource {
  const [, where, name] = /^(?:\[([^\]]*)\])?(.+)$/s.exec(address) ?? [];
  if (name === undefined) {
    throw new PgError('REFERENCE_INVALID', `'containers-storage:${address}' names no image`, {
      hint: "see 'podman images'",
    });
  }
  const places = where === undefined ? configuredPlaces(env) : [namedPlace(where)];
  for (const place of places) {
    const image = findImage(readList<StoredImage>(place, 'images', IMAGE), name);
    if (image !== undefined) return new ContainersStorageSource(place, places, image, name);
  }
  throw new PgError(
    'IMAGE_NOT_FOUND',
    `podman's store ${places.map(({ graphRoot }) => graphRoot).join(', ')} has no image '${name}'`,
    {
      hint: "see 'podman images'",
    },
  );
}

class ContainersStorageSource implements ImageSource {
  readonly transport = 'containers-storage';
  readonly #place: Place;
  readonly #places: readonly Place[];
  readonly #image: StoredImage;
  readonly #name: string;
  readonly #found = new WeakMap<LayerBlob, { place: Place; id: string }>();

  constructor(place: Place, places: readonly Place[], image: StoredImage, name: string) {
    this.#place = place;
    this.#places = places;
    this.#image = image;
    this.#name = name;
  }

  describe(): string {
    return `'${this.#name}' in podman's store ${this.#place.graphRoot}`;
  }

  async manifest(platform?: Platform): Promise<SourceImage> {
    const what = this.describe();
    const manifest = this.#manifest(what);
    const configDigest = this.#configDigest(manifest, what);
    const configBytes = this.#document(configDigest, what);
    verifyDigest(configBytes, configDigest, `the config of ${what}`);
    const config = parseConfig(configBytes, `the config of ${what}`);
    requirePlatform(platform, config, what);
    const names = this.#image.names ?? [];
    return {
      manifest,
      configBytes,
      configDigest,
      config,
      layers: this.#layers(config.rootfs.diff_ids, what),
      platform: configPlatform(config),
      names: names.filter((name) => !name.includes('@')).map((name) => formatReference(parseImageName(name))),
    };
  }

  async *openBlob(layer: LayerBlob, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const found = this.#found.get(layer);
    if (found === undefined) throw new TypeError('this layer is of another source');
    const { place, id } = found;
    const what = `layer ${layer.index + 1} (${layer.diffId}) of ${this.describe()}`;
    const list = join(place.graphRoot, `${place.driver}-layers`, `${id}.tar-split.gz`);
    const root = join(place.graphRoot, UNPACKED[place.driver]!(id));
    yield* verified(assembledTar(list, root, what, signal), layer, what);
  }

  async close(): Promise<void> {}

  #manifest(what: string): ManifestDocument {
    const bytes = this.#document('manifest', what);
    const { mediaType } = parseDocument(bytes, null, `the manifest of ${what}`);
    return { bytes, digest: digestOf(bytes), mediaType };
  }

  #configDigest({ bytes }: ManifestDocument, what: string): string {
    const document = parseDocument(bytes, null, `the manifest of ${what}`);
    if (document.kind === 'manifest') return document.config.digest;
    throw invalid(`the manifest of ${what}`, 'it is an index');
  }

  /** images.go, makeBigDataBaseName: a key that is no plain word is base64 after an equals sign. */
  #document(key: string, what: string): Buffer {
    const file = /^[.0-9a-z]+$/.test(key) ? key : `=${Buffer.from(key).toString('base64')}`;
    const directory = join(this.#place.graphRoot, `${this.#place.driver}-images`, this.#image.id);
    let bytes: Buffer;
    try {
      bytes = readFileSync(join(directory, file));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw missing(`${file} (${key})`, directory);
      throw unreadable(join(directory, file), error);
    }
    if (bytes.length > DOCUMENT_BYTES_MAX) throw tooLarge(`${key} of ${what}`, bytes.length);
    return bytes;
  }

  /** From the top layer down its parents; lowest first. */
  #layers(diffIds: readonly string[], what: string): LayerBlob[] {
    const known = new Map<string, { layer: StoredLayer; place: Place }>();
    for (const place of this.#places.toReversed())
      for (const layer of readList<StoredLayer>(place, 'layers', LAYER)) known.set(layer.id, { layer, place });
    const chain: { layer: StoredLayer; place: Place }[] = [];
    for (let id = this.#image.layer; id !== undefined && id !== ''; id = chain[0]!.layer.parent) {
      const found = known.get(id);
      if (found === undefined || chain.length > LAYERS_MAX)
        throw invalid(what, `its layer ${id} is not in layers.json`);
      chain.unshift(found);
    }
    if (chain.length !== diffIds.length)
      throw invalid(what, `it has ${chain.length} layers, its config ${diffIds.length}`);
    return chain.map(({ layer, place }, index) => {
      const diffId = diffIds[index]!;
      const sizeBytes = layer['diff-size'];
      if (layer['diff-digest'] !== diffId || sizeBytes === undefined)
        throw invalid(what, `layers.json does not say of layer ${layer.id} that it is ${diffId}`);
      const blob = { index, digest: diffId, sizeBytes, mediaType: LAYER_TYPE, diffId };
      this.#found.set(blob, { place, id: layer.id });
      return blob;
    });
  }
}

function findImage(images: readonly StoredImage[], name: string): StoredImage | undefined {
  const hex = name.replace(/^@|^sha256:/, '');
  if (/^[0-9a-f]{12,64}$/.test(hex)) {
    const found = images.filter(({ id }) => id.startsWith(hex));
    if (found.length === 1) return found[0];
  }
  if (name.startsWith('@')) return undefined;
  const reference = parseImageName(name);
  const { digest } = reference;
  if (digest !== undefined) {
    const repository = repositoryName(reference);
    return images.find(
      (image) => image.digest === digest && image.names?.some((other) => other.startsWith(repository)),
    );
  }
  // What podman builds and loads without a host is called localhost/NAME.
  const isShort = !/^[^/]*[.:][^/]*\//.test(name) && !name.startsWith('localhost/');
  const wanted = [
    formatReference(reference),
    ...(isShort ? [formatReference(parseImageName(`localhost/${name}`))] : []),
  ];
  for (const full of wanted) {
    const found = images.find((image) => image.names?.includes(full));
    if (found !== undefined) return found;
  }
  return undefined;
}

function readList<T>({ graphRoot, driver }: Place, kind: 'images' | 'layers', item: Check): T[] {
  const path = join(graphRoot, `${driver}-${kind}`, `${kind}.json`);
  let json: string;
  try {
    json = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw unreadable(path, error);
  }
  let list: unknown;
  try {
    list = JSON.parse(json);
  } catch {
    throw invalid(path, 'it is not JSON');
  }
  const wrong = listOf(item)(list);
  if (wrong !== undefined) throw invalid(path, wrong === '' ? 'it is no list' : `${wrong} is not what podman writes`);
  return list as T[];
}

/** `[DRIVER@]GRAPHROOT[+RUNROOT][:OPTIONS]` (containers-transports(5)). */
function namedPlace(place: string): Place {
  const [, driver = 'overlay', graphRoot = ''] = /^(?:([a-z0-9]+)@)?(\/[^+:]*)(?:\+[^:]*)?(?::.*)?$/s.exec(place) ?? [];
  if (graphRoot === '') {
    throw new PgError('REFERENCE_INVALID', `'[${place}]' is no store of podman`, {
      hint: 'write containers-storage:[overlay@/var/lib/containers/storage+/run/containers/storage]NAME',
    });
  }
  return checkedPlace({ driver, graphRoot });
}

function checkedPlace(place: Place): Place {
  if (UNPACKED[place.driver] !== undefined) return place;
  throw new PgError('TRANSPORT_UNKNOWN', `pg does not read stores of the driver ${place.driver}`, {
    hint: `it reads ${Object.keys(UNPACKED).join(' and ')}; save the image: podman save`,
  });
}

/** The store of storage.conf, then those it adds. */
function configuredPlaces(env: Env): Place[] {
  const home = env['HOME'] ?? homedir();
  const isRoot = (process.getuid?.() ?? 0) === 0;
  const own = join(env['XDG_CONFIG_HOME'] || join(home, '.config'), 'containers/storage.conf');
  const files = [env['CONTAINERS_STORAGE_CONF'], ...(isRoot ? [] : [own]), '/etc/containers/storage.conf'];
  const file = files.find((path) => path !== undefined && path !== '' && existsSync(path));
  const { storage = {} } = file === undefined ? {} : readConf(file);
  const usual = isRoot
    ? '/var/lib/containers/storage'
    : join(env['XDG_DATA_HOME'] || join(home, '.local/share'), 'containers/storage');
  const graphRoot = (isRoot || file === own) && storage.graphroot ? storage.graphroot : usual;
  const main = { driver: storage.driver || driverOf(graphRoot), graphRoot };
  const more = storage.options?.additionalimagestores ?? [];
  return [main, ...more.map((root) => ({ driver: main.driver, graphRoot: root }))].map(checkedPlace);
}

interface StorageConf {
  storage?: { driver?: string; graphroot?: string; options?: { additionalimagestores?: string[] } };
}

function readConf(path: string): StorageConf {
  try {
    return parse(readFileSync(path, 'utf8')) as StorageConf;
  } catch (cause) {
    throw new PgError('FILE_UNREADABLE', `cannot read ${path}: ${(cause as Error).message.split('\n')[0]}`, { cause });
  }
}

/** The driver of the store that lies there: podman chooses one, and stays with it. */
function driverOf(graphRoot: string): string {
  return Object.keys(UNPACKED).find((driver) => existsSync(join(graphRoot, `${driver}-images`))) ?? 'overlay';
}
