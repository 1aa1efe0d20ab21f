/**
 * The documents of an image: index, manifest, config. Read, checked, and put together into a `SourceImage`.
 *
 * OCI image-spec (image-index.md, manifest.md, config.md) and Docker's "Image Manifest V 2, Schema 2", which differ in
 * media types only.
 */
import { PgError } from '../../mdm/error.ts';
import { digestOf, isDigest, splitDigest, verifyBytes } from './digest.ts';
import { parseStrictJson } from './strict-json.ts';
import { formatPlatform, hostPlatform, platformFitness, type Platform } from './platform.ts';
import type { ImageConfig, LayerBlob, SourceImage, SourceIndex } from './source.ts';

/**
 * Registries refuse larger manifests (distribution-spec, "Pushing Manifests"); Docker and podman read no larger ones,
 * nor configs.
 */
export const DOCUMENT_BYTES_MAX = 4 * 1024 * 1024;
/** Docker stops at 127, podman at 500. */
export const LAYERS_MAX = 1000;
const INDEX_DEPTH_MAX = 4;

export const INDEX_TYPES: readonly string[] = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
];
export const MANIFEST_TYPES: readonly string[] = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
];
export const SCHEMA1_TYPES: readonly string[] = [
  'application/vnd.docker.distribution.manifest.v1+prettyjws',
  'application/vnd.docker.distribution.manifest.v1+json',
];
const CONFIG_TYPES: readonly string[] = [
  'application/vnd.oci.image.config.v1+json',
  'application/vnd.docker.container.image.v1+json',
  // What Docker 1.10 pushed.
  'application/octet-stream',
];
const LAYER_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer\.v1|docker\.image\.rootfs\.diff)\.tar(?:[+.](?:gzip|zstd))?$/;
const FOREIGN_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer\.nondistributable\.v1|docker\.image\.rootfs\.foreign\.diff)\.tar(?:[+.]|$)/;

/** OCI image-spec descriptor.md. */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  platform?: Platform;
  annotations: Readonly<Record<string, string>>;
}

export type ImageDocument =
  | { kind: 'index'; mediaType: string; manifests: Descriptor[] }
  | { kind: 'manifest'; mediaType: string; config: Descriptor; layers: Descriptor[] };

/** Reads a document's bytes; whoever assembles verifies them against the descriptor. */
export type ReadDocument = (descriptor: Descriptor, role: 'manifest' | 'config') => Promise<Buffer>;

type Json = Record<string, unknown>;

/**
 * Parses JSON of at most DOCUMENT_BYTES_MAX bytes. `what` names it in errors DOCUMENT_TOO_LARGE and DOCUMENT_INVALID.
 */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  if (bytes.length > DOCUMENT_BYTES_MAX) throw tooLarge(what, bytes.length);
  try {
    return parseStrictJson(bytes);
  } catch (cause) {
    throw invalid(what, cause instanceof RangeError ? cause.message : 'it is not JSON', cause);
  }
}

export function tooLarge(what: string, sizeBytes: number): PgError {
  return new PgError('DOCUMENT_TOO_LARGE', `${what} is ${sizeBytes} bytes; at most ${DOCUMENT_BYTES_MAX} are read`, {
    hint: 'this is no ordinary image; if it is meant to be, it was built wrongly',
  });
}

/**
 * Reads an index or a manifest. `claimedType` is what a descriptor or a Content-Type header said; it must not
 * contradict the document (MEDIA_TYPE_MISMATCH), and the document must not be both at once (CVE-2021-41190). Schema 1
 * is refused (SCHEMA1_REFUSED).
 */
export function parseDocument(bytes: Uint8Array, claimedType: string | null, what: string): ImageDocument {
  const json = asObject(parseJson(bytes, what), what);
  const ownType = json['mediaType'];
  if (json['schemaVersion'] === 1 || SCHEMA1_TYPES.includes(String(ownType ?? claimedType))) {
    throw new PgError('SCHEMA1_REFUSED', `${what} is in Docker's schema 1, which has no verifiable config`, {
      hint: 'push the image again with a Docker of 2017 or later, or convert it: skopeo copy --format v2s2 ...',
    });
  }
  if (ownType !== undefined && typeof ownType !== 'string') throw invalid(what, 'its mediaType is not a string');
  const claimed = claimedType !== null && isDocumentType(claimedType) ? claimedType : undefined;
  if (ownType !== undefined && claimed !== undefined && ownType !== claimed) {
    throw new PgError('MEDIA_TYPE_MISMATCH', `${what} says it is ${ownType}, but was announced as ${claimed}`, {
      hint: 'whoever stores this image mixed up its documents; push or copy it again',
    });
  }
  const isIndex = json['manifests'] !== undefined;
  if (isIndex === (json['layers'] !== undefined || json['config'] !== undefined)) {
    throw invalid(
      what,
      isIndex ? 'it is an index and a manifest at once' : 'it is neither an image manifest nor an index',
    );
  }
  const mediaType = ownType ?? claimed ?? (isIndex ? INDEX_TYPES[0] : MANIFEST_TYPES[0]) ?? '';
  if (!(isIndex ? INDEX_TYPES : MANIFEST_TYPES).includes(mediaType)) {
    throw new PgError(
      'MEDIA_TYPE_MISMATCH',
      `${what} is ${isIndex ? 'an index' : 'a manifest'} but says it is ${mediaType}`,
      {
        hint: 'pg reads OCI image manifests and indexes, and those of Docker schema 2',
      },
    );
  }
  if (isIndex) return { kind: 'index', mediaType, manifests: descriptors(json['manifests'], `${what}, manifests`) };
  return {
    kind: 'manifest',
    mediaType,
    config: parseDescriptor(json['config'], `${what}, config`),
    layers: descriptors(json['layers'], `${what}, layers`),
  };
}

function isDocumentType(mediaType: string): boolean {
  return INDEX_TYPES.includes(mediaType) || MANIFEST_TYPES.includes(mediaType);
}

function descriptors(value: unknown, where: string): Descriptor[] {
  if (!Array.isArray(value)) throw invalid(where, 'it is not a list');
  if (value.length > LAYERS_MAX) throw invalid(where, `it lists ${value.length} parts; at most ${LAYERS_MAX} are read`);
  return value.map((item, i) => parseDescriptor(item, `${where}[${i}]`));
}

/**
 * Checks a descriptor's fields; its digest is safe to be part of a path. Throws DOCUMENT_INVALID, DIGEST_INVALID,
 * FOREIGN_LAYER.
 */
export function parseDescriptor(value: unknown, where: string): Descriptor {
  const json = asObject(value, where);
  const { mediaType, digest, size, annotations, platform } = json;
  if (typeof mediaType !== 'string') throw invalid(where, 'it has no mediaType');
  splitDigest(digest, where);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw invalid(where, 'its size is not a number of bytes');
  return {
    mediaType,
    digest: digest as string,
    size,
    annotations: stringValues(annotations),
    ...(platform === undefined || platform === null
      ? {}
      : { platform: readPlatform(asObject(platform, where), where) }),
  };
}

function stringValues(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(Object.entries(value).filter(([, v]) => typeof v === 'string'));
}

function readPlatform(json: Json, where: string): Platform {
  const { os, architecture, variant } = json;
  if (typeof os !== 'string' || typeof architecture !== 'string')
    throw invalid(where, 'it names no os and architecture');
  return { os, architecture, ...(typeof variant === 'string' && variant !== '' ? { variant } : {}) };
}

/**
 * The manifest of an index that fits `wanted` best, or this machine. Attestations (platform unknown/unknown) are no
 * candidates. Throws PLATFORM_NOT_FOUND listing what there is.
 */
export function chooseManifest(
  manifests: readonly Descriptor[],
  wanted: Platform | undefined,
  what: string,
): Descriptor {
  const want = wanted ?? hostPlatform();
  const candidates = manifests.filter((d) => isDocumentType(d.mediaType) && !isAttestation(d));
  const fitness = (d: Descriptor): number => (d.platform === undefined ? 1 : platformFitness(want, d.platform));
  let best: Descriptor | undefined;
  for (const candidate of candidates) {
    if (fitness(candidate) > (best === undefined ? 0 : fitness(best))) best = candidate;
  }
  if (best !== undefined) return best;
  const available = [...new Set(candidates.map((d) => (d.platform ? formatPlatform(d.platform) : '?')))];
  const have = available.join(', ') || 'none';
  throw new PgError('PLATFORM_NOT_FOUND', `${what} has no image for ${formatPlatform(want)}; it has ${have}`, {
    hint:
      available.length === 0
        ? 'it holds no images at all'
        : `choose one of them, for example --platform ${available[0]}`,
  });
}

/** Reads and checks an image config. Throws DOCUMENT_INVALID, DIGEST_INVALID. */
export function parseConfig(bytes: Uint8Array, what: string): ImageConfig {
  const json = asObject(parseJson(bytes, what), what);
  const { os, architecture, rootfs, config } = json;
  // Docker's oldest images leave both out; they were linux/amd64.
  json['os'] = typeof os === 'string' && os !== '' ? os : 'linux';
  json['architecture'] = typeof architecture === 'string' && architecture !== '' ? architecture : 'amd64';
  const root = asObject(rootfs, `${what}, rootfs`);
  if (root['type'] !== 'layers') throw invalid(what, "its rootfs is not of type 'layers'");
  root['diff_ids'] ??= [];
  if (!Array.isArray(root['diff_ids'])) throw invalid(what, 'its rootfs.diff_ids are not a list');
  for (const diffId of root['diff_ids']) splitDigest(diffId, `${what}, rootfs.diff_ids`);
  if (config === null) delete json['config'];
  else if (config !== undefined) asObject(config, `${what}, config`);
  return json as unknown as ImageConfig;
}

/** What the config says the image runs on. */
export function configPlatform(config: ImageConfig): Platform {
  const { os, architecture, variant } = config;
  return { os, architecture, ...(typeof variant === 'string' && variant !== '' ? { variant } : {}) };
}

/** An explicitly wanted platform must be what the image is for. Throws PLATFORM_NOT_FOUND. */
export function requirePlatform(wanted: Platform | undefined, config: ImageConfig, what: string): void {
  const have = configPlatform(config);
  if (wanted === undefined || platformFitness(wanted, have) > 0) return;
  throw new PgError(
    'PLATFORM_NOT_FOUND',
    `${what} has no image for ${formatPlatform(wanted)}; it is one for ${formatPlatform(have)}`,
    {
      hint: `leave --platform out, or choose --platform ${formatPlatform(have)}`,
    },
  );
}

/**
 * From the first document of an image (`bytes`, already verified where its digest was known) down to config and layers.
 * `read` fetches what descriptors name; everything is verified here. `what` names the image in errors.
 */
export async function assembleImage(
  bytes: Buffer,
  claimedType: string | null,
  read: ReadDocument,
  wanted: Platform | undefined,
  what: string,
): Promise<SourceImage> {
  let current = bytes;
  let document = parseDocument(bytes, claimedType, `the manifest of ${what}`);
  for (let depth = 0; document.kind === 'index'; depth++) {
    if (depth === INDEX_DEPTH_MAX) throw invalid(`the index of ${what}`, 'it leads from index to index');
    const chosen = chooseManifest(document.manifests, wanted, what);
    current = await readVerified(read, chosen, 'manifest', `the manifest ${chosen.digest} of ${what}`);
    document = parseDocument(current, chosen.mediaType, `the manifest ${chosen.digest} of ${what}`);
  }
  return await assembleOne(current, document, read, wanted, what);
}

/** From an image's manifest down to config and layers. */
async function assembleOne(
  bytes: Buffer,
  document: Extract<ImageDocument, { kind: 'manifest' }>,
  read: ReadDocument,
  wanted: Platform | undefined,
  what: string,
): Promise<SourceImage> {
  if (!CONFIG_TYPES.includes(document.config.mediaType)) {
    throw new PgError('NOT_AN_IMAGE', `${what} is not a container image: its config is ${document.config.mediaType}`, {
      hint: 'registries hold other things too (charts, signatures, attestations); check the name and tag',
    });
  }
  const configName = `the config ${document.config.digest} of ${what}`;
  const configBytes = await readVerified(read, document.config, 'config', configName);
  const config = parseConfig(configBytes, configName);
  requirePlatform(wanted, config, what);
  return {
    manifest: { bytes, digest: digestOf(bytes), mediaType: document.mediaType },
    configBytes,
    configDigest: document.config.digest,
    config,
    layers: layerBlobs(document.layers, config, what),
    platform: configPlatform(config),
    names: [],
  };
}

/**
 * Everything of the index that `bytes` are. As assembleImage; PgError `NOT_AN_INDEX` for one image, DOCUMENT_INVALID for an index of
 * indexes.
 */
export async function assembleIndex(
  bytes: Buffer,
  claimedType: string | null,
  read: ReadDocument,
  what: string,
): Promise<SourceIndex> {
  const index = parseDocument(bytes, claimedType, `the manifest of ${what}`);
  if (index.kind !== 'index') {
    throw new PgError('NOT_AN_INDEX', `${what} is one image, not one for each of several platforms`, {
      hint: 'leave --all-platforms out',
    });
  }
  const parts: SourceIndex['parts'] = [];
  for (const descriptor of index.manifests) {
    const name = `the manifest ${descriptor.digest} of ${what}`;
    const manifestBytes = await readVerified(read, descriptor, 'manifest', name);
    const document = parseDocument(manifestBytes, descriptor.mediaType, name);
    if (document.kind === 'index') throw invalid(`the index of ${what}`, 'it leads from index to index');
    if (!isAttestation(descriptor) && CONFIG_TYPES.includes(document.config.mediaType))
      parts.push({ kind: 'image', image: await assembleOne(manifestBytes, document, read, undefined, name) });
    else parts.push(otherPart(manifestBytes, document));
  }
  return {
    document: { bytes, digest: digestOf(bytes), mediaType: index.mediaType },
    parts,
    names: [],
  };
}

function otherPart(
  bytes: Buffer,
  { mediaType, config, layers }: Extract<ImageDocument, { kind: 'manifest' }>,
): SourceIndex['parts'][number] {
  const blobs = [config, ...layers].map((part, index) => ({
    index,
    digest: part.digest,
    sizeBytes: part.size,
    mediaType: part.mediaType,
    diffId: part.digest,
  }));
  return { kind: 'other', document: { bytes, digest: digestOf(bytes), mediaType }, blobs };
}

/** What BuildKit lists beside images. */
const isAttestation = ({ platform, annotations }: Descriptor): boolean =>
  platform?.os === 'unknown' || annotations['vnd.docker.reference.type'] !== undefined;

async function readVerified(
  read: ReadDocument,
  descriptor: Descriptor,
  role: 'manifest' | 'config',
  what: string,
): Promise<Buffer> {
  if (descriptor.size > DOCUMENT_BYTES_MAX) throw tooLarge(what, descriptor.size);
  const bytes = await read(descriptor, role);
  verifyBytes(bytes, { digest: descriptor.digest, sizeBytes: descriptor.size }, what);
  return bytes;
}

function layerBlobs(layers: readonly Descriptor[], config: ImageConfig, what: string): LayerBlob[] {
  const diffIds = config.rootfs.diff_ids;
  if (layers.length !== diffIds.length) {
    throw invalid(`the manifest of ${what}`, `it has ${layers.length} layers, its config ${diffIds.length}`);
  }
  return layers.map((layer, index) => {
    checkLayerType(layer.mediaType, `layer ${index + 1} (${layer.digest}) of ${what}`);
    const diffId = diffIds[index];
    if (!isDigest(diffId)) throw invalid(what, 'its config names no digest for a layer');
    return { index, digest: layer.digest, sizeBytes: layer.size, mediaType: layer.mediaType, diffId };
  });
}

/** Throws FOREIGN_LAYER or LAYER_TYPE_UNKNOWN for what cannot be unpacked here. */
export function checkLayerType(mediaType: string, what: string): void {
  if (LAYER_TYPE.test(mediaType)) return;
  if (FOREIGN_TYPE.test(mediaType)) {
    throw new PgError(
      'FOREIGN_LAYER',
      `${what} is a foreign layer (${mediaType}), which registries do not distribute`,
      {
        hint: 'Windows base layers are kept at their vendor; such images do not run on Linux',
      },
    );
  }
  const encrypted = mediaType.endsWith('+encrypted');
  throw new PgError(
    'LAYER_TYPE_UNKNOWN',
    `${what} is ${encrypted ? 'encrypted' : 'of an unknown kind'} (${mediaType})`,
    {
      hint: encrypted
        ? 'decrypt the image first: skopeo copy --decryption-key ...'
        : 'pg reads tar, gzip and zstd layers',
    },
  );
}

function asObject(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(what, 'it is not a JSON object');
  return value as Json;
}

export function invalid(what: string, why: string, cause?: unknown): PgError {
  return new PgError('DOCUMENT_INVALID', `${what} is not valid: ${why}`, {
    hint: 'the image is damaged or was written by a faulty tool; fetch or build it again',
    ...(cause === undefined ? {} : { cause }),
  });
}
