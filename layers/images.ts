import { addressOf, isAddressPrefix } from './address.ts';
import { isPgError, PgError } from '../mdm/error.ts';
import type { ContentRef } from '../store/content.ts';
import type { Store } from '../store/store.ts';
import { forgetUnusedBlobs } from './blobs/record.ts';
import { dropIndex } from './indexes.ts';
import { isPinned, unpinImage } from './pins.ts';
import { familiarReference, formatReference, parseImageName, type Reference } from './reference.ts';
import type { ImageConfig } from './transport/source.ts';

/** The reserved name of the empty image: a tree of one empty directory (`openTree(store, null)`), no record, no layers. */
export const SCRATCH = 'scratch';

/** An image that is in the store. */
export interface ImageRecord {
  /** `sha256:` and the hex digest of the config: what Docker calls the image's ID. */
  id: string;
  /** As short as Docker writes them (`nginx:latest`), in order; empty for a dangling image. */
  names: string[];
  /** `nginx@sha256:...`: the manifest digests it is known by, per repository. */
  digests: string[];
  /** For `openTree`: the Merkle root of the image tree's root record. */
  treeRoot: Uint8Array;
  config: ImageConfig;
  /** The config as it was published, byte for byte. */
  configBytes: Buffer;
  /** The manifest as it was published; undefined for old docker-archives, which have none. */
  manifest?: { bytes: Buffer; digest: string; mediaType: string };
  /** Lowest first. */
  layers: ImageLayer[];
  /** `os/architecture[/variant]`. */
  platform: string;
  /** When the config says the image was made (RFC 3339), if it does. */
  created?: string;
  /** When it was imported, milliseconds since 1970. */
  importedMs: number;
  /** Bytes of the files in all layers, as Docker counts an image's size. */
  size: number;
}

/** A layer of an image, as the image's source had it. The layer itself is a LayerRecord, by its DiffID. */
export interface ImageLayer {
  diffId: string;
  /** Digest of the blob as it was published, where the source said one. */
  digest?: string;
  mediaType: string;
  /** Bytes of that blob. */
  blobBytes: number;
}

/** A layer in the store, shared by all images that have it: enough to give its tar back bit for bit. */
export interface LayerRecord {
  diffId: string;
  /** The recipe (docs/formats/recipe.md): a zstd stream in pieces. */
  recipe: ContentRef[];
  /** Bytes of the uncompressed tar. */
  tarBytes: number;
  /** Bytes of the files in it (Docker's "size" of a layer). */
  contentBytes: number;
  /** Number of tar entries. */
  entries: number;
}

interface StoredImage {
  treeRoot: string;
  config: string;
  manifest?: { bytes: string; digest: string; mediaType: string };
  layers: ImageLayer[];
  platform: string;
  importedMs: number;
  size: number;
}

interface StoredLayer {
  recipe: { root: string; size: number }[];
  tarBytes: number;
  contentBytes: number;
  entries: number;
}

/**
 * All images, the most recently made first (ties: by id). `onDamaged` is told the ids of those whose record is damaged; without it they are
 * PgError `CORRUPT_INDEX`.
 */
export function listImages(store: Store, onDamaged?: (id: string) => void): ImageRecord[] {
  const names = namesById(store);
  const options = onDamaged === undefined ? {} : { onDamaged: (key: Buffer) => onDamaged(key.toString()) };
  const images = [...store.table('images').range(options)].map(({ key, value }) =>
    decodeImage(key.toString(), value, names),
  );
  const age = (image: ImageRecord): number => Date.parse(image.created ?? '') || 0;
  return images.toSorted((a, b) => age(b) - age(a) || (a.id < b.id ? -1 : 1));
}

/**
 * The image of this name (`nginx`, `localhost:5000/a/b:tag`, `nginx@sha256:...`) or whose id begins with these hex digits (with or
 * without `sha256:`); undefined when there is none. PgError `IMAGE_AMBIGUOUS` when several ids begin so. A name wins over an id.
 */
export function findImage(store: Store, nameOrIdPrefix: string): ImageRecord | undefined {
  const id = findId(store, nameOrIdPrefix);
  return id === undefined ? undefined : loadImage(store, id);
}

/** As findImage, but an image that is not there is PgError `IMAGE_NOT_FOUND`. */
export function getImage(store: Store, nameOrIdPrefix: string): ImageRecord {
  const image = findImage(store, nameOrIdPrefix);
  if (image === undefined) {
    throw new PgError('IMAGE_NOT_FOUND', `no such image: ${nameOrIdPrefix}`, {
      hint: `bring it here first: pg import ${nameOrIdPrefix}`,
    });
  }
  return image;
}

/** The image with exactly this id (`sha256:hex`). */
export function loadImage(store: Store, id: string): ImageRecord | undefined {
  const value = store.table('images').get(id);
  return value === undefined ? undefined : decodeImage(id, value, namesById(store));
}

/**
 * Gives the image one more name; the name leaves the image that had it, which may become dangling. Returns the name as shown.
 * PgError `IMAGE_NOT_FOUND`, `REFERENCE_INVALID`; `NAME_RESERVED` for `scratch`.
 */
export function tagImage(store: Store, id: string, name: string): string {
  if (name === SCRATCH)
    throw new PgError('NAME_RESERVED', `'${SCRATCH}' is the empty image: no other can be called so`);
  const reference = parseImageName(name);
  store.transaction(() => {
    if (!store.table('images').has(id)) throw new PgError('IMAGE_NOT_FOUND', `no such image: ${id}`);
    store.table('names').put(formatReference(reference), Buffer.from(id));
  });
  return familiarReference(reference);
}

/** Notes that a registry has the image under this digest: `repository@digest` is a name of it from now on. */
export function tagDigest(store: Store, id: string, { domain, path }: Reference, digest: string): void {
  store.table('names').put(formatReference({ domain, path, digest }), Buffer.from(id));
}

/** What removeImage did, as docker rmi words it. */
export interface Removal {
  untagged: string[];
  /** The image's id, when the image itself went. */
  deleted?: string;
}

/**
 * Removes a name, and the image with its last name; by id, all of it. Contents stay until the store collects them.
 * `users` names the containers that use an image: PgError `IMAGE_IN_USE`, unless `force` and none of them is running (then only
 * the names go). By id, an image with names in several repositories is PgError `IMAGE_HAS_NAMES` unless `force`. One whose record is damaged
 * goes with all of its names.
 */
export function removeImage(
  store: Store,
  nameOrIdPrefix: string,
  users: (image: Pick<ImageRecord, 'id'>) => { name: string; running: boolean }[],
  force = false,
): Removal {
  return store.transaction(() => {
    const id = findId(store, nameOrIdPrefix);
    if (id !== undefined && isDamaged(store, id)) {
      const using = users({ id });
      if (using.some((user) => user.running) || (using.length > 0 && !force)) throw inUse(id, nameOrIdPrefix, using);
      return removeDamaged(store, id);
    }
    const image = getImage(store, nameOrIdPrefix);
    const name = nameKey(store, nameOrIdPrefix);
    const tags = [...image.names, ...image.digests];
    if (name !== undefined && image.names.some((other) => formatReference(parseImageName(other)) !== name)) {
      store.table('names').remove(name);
      dropPlatforms(store, [name], image.id, users);
      return { untagged: [familiarReference(parseImageName(name))] };
    }
    if (isPinned(store, image.id) && !force) {
      throw new PgError('IMAGE_PINNED', `image ${nameOrIdPrefix} (${shortId(image.id)}) is pinned`, {
        hint: `pg unpin ${nameOrIdPrefix}, or pg rmi --force`,
      });
    }
    const repositories = new Set(image.names.map((tag) => tag.replace(/:[^:/]*$/, '')));
    if (name === undefined && repositories.size > 1 && !force) {
      throw new PgError(
        'IMAGE_HAS_NAMES',
        `image ${shortId(image.id)} has names in several repositories: ${image.names.join(', ')}`,
        {
          hint: 'remove it by these names, or all of them at once: pg rmi --force',
        },
      );
    }
    const using = users(image);
    if (using.length > 0 && (!force || using.some((user) => user.running)))
      throw inUse(image.id, nameOrIdPrefix, using);
    for (const tag of tags) store.table('names').remove(formatReference(parseImageName(tag)));
    const keys = tags.map((tag) => formatReference(parseImageName(tag)));
    if (using.length > 0) {
      dropPlatforms(store, keys, image.id, users);
      return { untagged: tags };
    }
    store.table('images').remove(image.id);
    unpinImage(store, image.id);
    dropPlatforms(store, keys, image.id, users);
    dropUnusedLayers(store, [image]);
    return { untagged: tags, deleted: image.id };
  });
}

function isDamaged(store: Store, id: string): boolean {
  try {
    store.table('images').get(id);
    return false;
  } catch (error) {
    if (isPgError(error, 'CORRUPT_INDEX')) return true;
    throw error;
  }
}

/** What its layers were is not known: those that no image has go, if all other images can be read. */
function removeDamaged(store: Store, id: string): Removal {
  const untagged = namesById(store).get(id) ?? [];
  for (const name of untagged) store.table('names').remove(formatReference(parseImageName(name)));
  store.table('images').remove(id);
  let othersDamaged = false;
  const images = listImages(store, () => (othersDamaged = true));
  const used = new Set(images.flatMap((image) => image.layers.map((layer) => layer.diffId)));
  if (!othersDamaged) forgetUnusedBlobs(store, used, digestsOf(images));
  const layers = othersDamaged ? [] : [...store.table('layers').keys()].map((key) => key.toString());
  for (const diffId of layers) if (!used.has(diffId)) store.table('layers').remove(diffId);
  return { untagged, deleted: id };
}

function inUse(id: string, asked: string, users: { name: string; running: boolean }[]): PgError {
  const running = users.find((user) => user.running);
  const user = running ?? users[0]!;
  return new PgError(
    'IMAGE_IN_USE',
    `image ${asked} (${shortId(id)}) is used by ${running ? 'the running ' : ''}container ${user.name}`,
    {
      hint: running
        ? `stop it first: pg stop ${user.name}`
        : `remove it first (pg rm ${user.name}), or only the image's name: pg rmi --force ${asked}`,
    },
  );
}

/** The first 12 hex digits, as listings show them. */
export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12);
}

/** Writes an image and the names it gets; call it in the transaction that makes its contents visible. */
export function putImage(
  store: Store,
  image: Omit<ImageRecord, 'names' | 'digests' | 'config' | 'created'>,
  names: readonly string[],
): void {
  const stored: StoredImage = {
    treeRoot: Buffer.from(image.treeRoot).toString('hex'),
    config: image.configBytes.toString('base64'),
    ...(image.manifest === undefined
      ? {}
      : { manifest: { ...image.manifest, bytes: image.manifest.bytes.toString('base64') } }),
    layers: image.layers,
    platform: image.platform,
    importedMs: image.importedMs,
    size: image.size,
  };
  store.table('images').put(image.id, Buffer.from(JSON.stringify(stored)));
  for (const name of names) store.table('names').put(formatReference(parseImageName(name)), Buffer.from(image.id));
}

/** The layer with this DiffID, if it is in the store. */
export function loadLayer(store: Store, diffId: string): LayerRecord | undefined {
  const value = store.table('layers').get(diffId);
  if (value === undefined) return undefined;
  const stored = JSON.parse(value.toString()) as StoredLayer;
  return {
    ...stored,
    diffId,
    recipe: stored.recipe.map(({ root, size }) => ({ root: Buffer.from(root, 'hex'), size })),
  };
}

/** Writes a layer's record; call it in the transaction that makes its contents visible. */
export function putLayer(store: Store, layer: LayerRecord): void {
  const { diffId, recipe, ...rest } = layer;
  const stored: StoredLayer = {
    ...rest,
    recipe: recipe.map(({ root, size }) => ({ root: Buffer.from(root).toString('hex'), size })),
  };
  store.table('layers').put(diffId, Buffer.from(JSON.stringify(stored)));
}

/** With the name of an index the other images go that came with it, unless something else has them. */
function dropPlatforms(
  store: Store,
  names: readonly string[],
  id: string,
  users: (image: Pick<ImageRecord, 'id'>) => { name: string; running: boolean }[],
): void {
  for (const name of names) {
    const gone = dropIndex(store, name).filter((image) => image.id !== id && users(image).length === 0);
    for (const image of gone) {
      for (const digest of image.digests) store.table('names').remove(formatReference(parseImageName(digest)));
      store.table('images').remove(image.id);
    }
    dropUnusedLayers(store, gone);
  }
}

function dropUnusedLayers(store: Store, gone: readonly ImageRecord[]): void {
  const images = listImages(store);
  const used = new Set(images.flatMap((image) => image.layers.map((layer) => layer.diffId)));
  for (const { layers } of gone)
    for (const { diffId } of layers) if (!used.has(diffId)) store.table('layers').remove(diffId);
  forgetUnusedBlobs(store, used, digestsOf(images));
}

/** The blobs that images were imported from. */
function digestsOf(images: readonly ImageRecord[]): Set<string> {
  return new Set(images.flatMap((image) => image.layers.flatMap(({ digest }) => digest ?? [])));
}

function findId(store: Store, text: string): string | undefined {
  const name = nameKey(store, text);
  if (name !== undefined) return store.table('names').get(name)!.toString();
  if (isAddressPrefix(text)) return findAddress(store, text);
  const hex = text.replace(/^sha256:/, '');
  if (!/^[0-9a-f]{1,64}$/.test(hex)) return undefined;
  const found = [...store.table('images').keys({ prefix: `sha256:${hex}`, limit: 2 })];
  if (found.length > 1) {
    throw new PgError('IMAGE_AMBIGUOUS', `several images have an id that begins with ${hex}`, {
      hint: 'give more digits: pg images --no-trunc',
    });
  }
  return found[0]?.toString();
}

/** The image whose trie has an address that begins so. Several may have the same files, and be otherwise configured. */
function findAddress(store: Store, text: string): string | undefined {
  const found = listImages(store, () => undefined).filter(({ treeRoot }) => addressOf(treeRoot).startsWith(text));
  if (found.length > 1) {
    const which = found.map(({ id, names }) => names[0] ?? shortId(id)).join(', ');
    throw new PgError('IMAGE_AMBIGUOUS', `several images have the address ${text}: ${which}`, {
      hint: 'give a name or an id',
    });
  }
  return found[0]?.id;
}

/** The key of `text` in the table of names, if it is a name that exists. */
function nameKey(store: Store, text: string): string | undefined {
  let key: string;
  try {
    key = formatReference(parseImageName(text));
  } catch {
    return undefined; // cannot be a name: perhaps an id
  }
  return store.table('names').has(key) ? key : undefined;
}

function namesById(store: Store): Map<string, string[]> {
  const names = new Map<string, string[]>();
  for (const { key, value } of store.table('names').range()) {
    const id = value.toString();
    const list = names.get(id) ?? [];
    list.push(familiarReference(parseImageName(key.toString())));
    names.set(id, list);
  }
  return names;
}

function decodeImage(id: string, value: Buffer, namesOf: Map<string, string[]>): ImageRecord {
  const stored = JSON.parse(value.toString()) as StoredImage;
  const configBytes = Buffer.from(stored.config, 'base64');
  const config = JSON.parse(configBytes.toString()) as ImageConfig;
  const names = namesOf.get(id) ?? [];
  return {
    id,
    names: names.filter((name) => !name.includes('@')).toSorted(),
    digests: names.filter((name) => name.includes('@')).toSorted(),
    treeRoot: Buffer.from(stored.treeRoot, 'hex'),
    config,
    configBytes,
    ...(stored.manifest === undefined
      ? {}
      : { manifest: { ...stored.manifest, bytes: Buffer.from(stored.manifest.bytes, 'base64') } }),
    layers: stored.layers,
    platform: stored.platform,
    ...(typeof config.created === 'string' ? { created: config.created } : {}),
    importedMs: stored.importedMs,
    size: stored.size,
  };
}
