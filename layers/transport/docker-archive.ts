/**
 * `docker-archive:` and `docker-daemon:`: what `docker save` writes (moby image/spec/v1.2.md, "Combined Image JSON +
 * Filesystem Changeset Format"). manifest.json names the config and the layers of each image; the layers are
 * `ID/layer.tar`, or since Docker 25 blobs of an OCI layout in the same archive, whose index.json then also leads to a
 * manifest that can be published again.
 */
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseImageName } from '../reference.ts';
import { detectCompression } from './decompress.ts';
import { digestOf, isDigest, verified, verifyDigest } from './digest.ts';
import { missing } from './files.ts';
import {
  configPlatform,
  DOCUMENT_BYTES_MAX,
  invalid,
  LAYERS_MAX,
  parseConfig,
  parseJson,
  requirePlatform,
} from './manifest.ts';
import { OciLayoutSource, readLayoutIndex } from './oci-layout.ts';
import type { Platform } from './platform.ts';
import type { ImageConfig, ImageSource, LayerBlob, ManifestDocument, SourceImage } from './source.ts';
import type { TarFiles } from './tar-files.ts';

const LAYER_TYPES = {
  none: 'application/vnd.docker.image.rootfs.diff.tar',
  gzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  zstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
};

/** One image in manifest.json. */
interface SavedImage {
  config: string;
  repoTags: string[];
  layers: string[];
}

export class DockerArchiveSource implements ImageSource {
  readonly transport: 'docker-archive' | 'docker-daemon';
  readonly #files: TarFiles;
  readonly #selector: string | null;
  readonly #description: string;
  readonly #fallbackName: string | null;
  readonly #paths = new WeakMap<LayerBlob, string>();

  /**
   * `selector` chooses one of several images: a name, or `@N` for the N-th; null = the only one. `description` is for
   * people, `fallbackName` what the image is called if the archive does not say. Takes over `files`.
   */
  constructor(
    transport: 'docker-archive' | 'docker-daemon',
    files: TarFiles,
    selector: string | null,
    description: string,
    fallbackName: string | null = null,
  ) {
    this.transport = transport;
    this.#files = files;
    this.#selector = selector;
    this.#description = description;
    this.#fallbackName = fallbackName;
  }

  describe(): string {
    return this.#description;
  }

  async manifest(platform?: Platform): Promise<SourceImage> {
    const what = this.describe();
    const images = await this.#savedImages(what);
    const saved = selectImage(images, this.#selector, what);
    const configBytes = await this.#files.readWhole(saved.config, DOCUMENT_BYTES_MAX);
    if (configBytes === null) throw missing(saved.config, what);
    const configName = `the config ${saved.config} of ${what}`;
    const named = /(?:^|[/:])([0-9a-f]{64})(?:\.json)?$/.exec(saved.config)?.[1];
    if (named !== undefined) verifyDigest(configBytes, `sha256:${named}`, configName);
    const config = parseConfig(configBytes, configName);
    requirePlatform(platform, config, what);
    const configDigest = digestOf(configBytes);
    return {
      manifest: await this.#publishedManifest(configDigest, what),
      configBytes,
      configDigest,
      config,
      layers: await this.#layers(saved, config, what),
      platform: configPlatform(config),
      names: saved.repoTags.length > 0 || this.#fallbackName === null ? saved.repoTags : [this.#fallbackName],
    };
  }

  openBlob(layer: LayerBlob, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const path = this.#paths.get(layer);
    if (path === undefined) throw new TypeError('this layer is of another source');
    const what = `layer ${layer.index + 1} (${layer.digest ?? path}) of ${this.describe()}`;
    return verified(this.#files.stream(path, signal), layer, what);
  }

  async close(): Promise<void> {
    await this.#files.close();
  }

  async #savedImages(what: string): Promise<SavedImage[]> {
    const bytes = await this.#files.readWhole('manifest.json', DOCUMENT_BYTES_MAX);
    if (bytes === null) {
      const isOci = (await this.#files.sizeOf('index.json')) !== null;
      throw new PgError('NOT_A_DOCKER_ARCHIVE', `${what} has no manifest.json, so it is no archive of docker save`, {
        hint: isOci
          ? 'it is an OCI archive: write oci-archive:'
          : 'archives of Docker before 1.10 cannot be read; save it again',
      });
    }
    const list = parseJson(bytes, `manifest.json of ${what}`);
    if (!Array.isArray(list)) throw invalid(`manifest.json of ${what}`, 'it is not a list');
    return list.map((item: unknown) => parseSavedImage(item, what));
  }

  async #layers(saved: SavedImage, config: ImageConfig, what: string): Promise<LayerBlob[]> {
    const diffIds = config.rootfs.diff_ids;
    if (saved.layers.length > LAYERS_MAX) {
      throw invalid(
        `manifest.json of ${what}`,
        `it lists ${saved.layers.length} layers; at most ${LAYERS_MAX} are read`,
      );
    }
    if (saved.layers.length !== diffIds.length) {
      throw invalid(`manifest.json of ${what}`, `it has ${saved.layers.length} layers, the config ${diffIds.length}`);
    }
    const layers: LayerBlob[] = [];
    for (const [index, path] of saved.layers.entries()) {
      const sizeBytes = await this.#files.sizeOf(path);
      if (sizeBytes === null) throw missing(path, what);
      const diffId = diffIds[index] as string;
      const compression = detectCompression(await this.#files.head(path, 4));
      // Paths other than blobs/sha256/HEX do not promise a digest of what lies there; the DiffID still binds the tar.
      const fromPath = path.replace(/^blobs\/(sha256|sha512)\/([0-9a-f]+)$/, '$1:$2');
      const digest = compression === 'none' ? diffId : isDigest(fromPath) ? fromPath : null;
      const layer = { index, digest, sizeBytes, mediaType: LAYER_TYPES[compression], diffId };
      this.#paths.set(layer, path);
      layers.push(layer);
    }
    return layers;
  }

  /** The manifest in the archive's OCI layout that has this config, if there is a layout and one has. */
  async #publishedManifest(configDigest: string, what: string): Promise<ManifestDocument | null> {
    if ((await this.#files.sizeOf('index.json')) === null) return null;
    for (const { digest } of await readLayoutIndex(this.#files, what)) {
      // The layout may lead to platforms that were not saved. What is needed was read through manifest.json; this is an
      // extra.
      const image = await new OciLayoutSource('oci-archive', this.#files, digest).manifest().catch(() => null);
      if (image?.configDigest === configDigest) return image.manifest;
    }
    return null;
  }
}

function parseSavedImage(item: unknown, what: string): SavedImage {
  const json = (item ?? {}) as Record<string, unknown>;
  const [config, layers, tags] = [json['Config'], json['Layers'] ?? [], json['RepoTags'] ?? []];
  if (typeof config !== 'string' || !isStrings(layers) || !isStrings(tags)) {
    throw invalid(`manifest.json of ${what}`, 'an image in it lacks Config, Layers or RepoTags');
  }
  return { config, layers, repoTags: tags.flatMap((tag) => normalisedName(tag) ?? []) };
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function normalisedName(text: string): string | null {
  try {
    return formatReference(parseImageName(text));
  } catch {
    return null;
  }
}

function selectImage(images: readonly SavedImage[], selector: string | null, what: string): SavedImage {
  const all =
    images.flatMap((image, i) => (image.repoTags.length > 0 ? image.repoTags : [`@${i}`])).join(', ') || 'none';
  if (selector === null) {
    const only = images[0];
    if (only !== undefined && images.length === 1) return only;
    if (only === undefined) throw new PgError('IMAGE_NOT_FOUND', `${what} holds no image`);
    throw new PgError('IMAGE_AMBIGUOUS', `${what} holds ${images.length} images: ${all}`, {
      hint: 'say which by :NAME after the path, or by :@0, :@1 and so on',
    });
  }
  const position = /^@(\d+)$/.exec(selector);
  const wanted = position ? null : formatReference(parseImageName(selector));
  const found = position
    ? images[Number(position[1])]
    : images.find((image) => image.repoTags.some((tag) => tag === wanted));
  if (found !== undefined) return found;
  throw new PgError('IMAGE_NOT_FOUND', `${what} holds no image '${selector}'; it holds ${all}`);
}
