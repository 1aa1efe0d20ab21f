/**
 * Where images come from: one face over archives, directories, engines and registries.
 *
 * A source gives the manifest's and the config's bytes, already verified, and each layer's blob as a stream that is
 * verified while it flows: **the bytes seen so far are unproved until the stream has ended without an error**, so
 * commit nothing before that.
 */
import type { ProgressSink } from '../progress.ts';
import type { Platform } from './platform.ts';
import type { UnpackLimit } from './unpack-limit.ts';

export type TransportName =
  | 'docker-archive'
  | 'oci'
  | 'oci-archive'
  | 'dir'
  | 'docker-daemon'
  | 'podman-daemon'
  | 'containers-storage'
  | 'docker';

/** Where a bare name is to be taken from, instead of wherever it is found first. */
export type BareNameOrigin = 'docker' | 'podman' | 'registry';

/** One layer as the source stores it. Two layers of an image may have the same digest. */
export interface LayerBlob {
  /** Position in the image, 0 = the lowest. */
  index: number;
  /**
   * What `openBlob` gives hashes to this (`sha256:hex`); null where an old archive compresses a layer without saying
   * its digest.
   */
  digest: string | null;
  /** Bytes that `openBlob` gives. */
  sizeBytes: number;
  /** As the manifest says; it does not bind the compression, the first bytes of the blob do (see decompress.ts). */
  mediaType: string;
  /** Digest of the uncompressed tar, from the image's config. `openLayerTar` (decompress.ts) checks it. */
  diffId: string;
}

/** The manifest as it was published, byte for byte. */
export interface ManifestDocument {
  bytes: Buffer;
  digest: string;
  mediaType: string;
}

/**
 * An image's config (OCI image-spec config.md; Docker's is the same with more fields). Fields not named here are kept
 * as they came.
 */
export interface ImageConfig {
  architecture: string;
  os: string;
  variant?: string;
  created?: string;
  author?: string;
  config?: {
    User?: string;
    ExposedPorts?: Record<string, object>;
    Env?: string[];
    Entrypoint?: string[] | null;
    Cmd?: string[] | null;
    Volumes?: Record<string, object>;
    WorkingDir?: string;
    Labels?: Record<string, string> | null;
    StopSignal?: string;
    Shell?: string[];
    Healthcheck?: { Test?: string[]; Interval?: number; Timeout?: number; StartPeriod?: number; Retries?: number };
    [more: string]: unknown;
  };
  rootfs: { type: 'layers'; diff_ids: string[] };
  history?: { created?: string; created_by?: string; author?: string; comment?: string; empty_layer?: boolean }[];
  [more: string]: unknown;
}

/** One image of a source, everything but its layers' bytes. */
export interface SourceImage {
  /** null: the source keeps no manifest that could be published again (docker save's old layout). */
  manifest: ManifestDocument | null;
  configBytes: Buffer;
  /** Also Docker's image ID. */
  configDigest: string;
  config: ImageConfig;
  /** Lowest first; as many as `config.rootfs.diff_ids`. */
  layers: LayerBlob[];
  platform: Platform;
  /** Normalised names that the source itself gives this image (`docker.io/library/nginx:latest`); may be empty. */
  names: string[];
}

/** All that an index lists. */
export interface SourceIndex {
  document: ManifestDocument;
  /** In its order; `other` is what is no image (an attestation), with the blobs that its manifest names. */
  parts: ({ kind: 'image'; image: SourceImage } | { kind: 'other'; document: ManifestDocument; blobs: LayerBlob[] })[];
  /** As `SourceImage.names`. */
  names: string[];
}

export interface ImageSource {
  readonly transport: TransportName;
  /** Which source this is, in words for people: `the archive /tmp/a.tar`, `the registry docker.io`. */
  describe(): string;
  /** For a bare name: why this source was taken (`no local Docker engine answers`). */
  why?: string;
  /**
   * The image, its manifest and config verified. With `platform`, that one or PLATFORM_NOT_FOUND; without, this
   * machine's out of an index, and whatever a source of one image has.
   */
  manifest(platform?: Platform): Promise<SourceImage>;
  /** Everything of an index, verified; NOT_AN_INDEX where there is one image only. Not there: this kind of source has no indexes. */
  index?(): Promise<SourceIndex>;
  /**
   * The layer's blob as stored (compressed or not), verified in the stream; several may be open at once. A piece is
   * valid until the second one after it is asked for. Leaving the loop early closes it. The stream ends with DIGEST_MISMATCH, SIZE_MISMATCH or TRUNCATED where the bytes are not what
   * the manifest promised.
   */
  openBlob(layer: LayerBlob, signal?: AbortSignal): AsyncIterable<Uint8Array>;
  /** Gives back files, sockets and temporary space. */
  close(): Promise<void>;
}

export interface SourceOptions {
  /** For a bare name: take it from here only. */
  from?: BareNameOrigin;
  /** For a bare name: an engine's image for another platform than this does not count. */
  platform?: Platform;
  /** Told of preparations that take long: reading a whole archive out of an engine, unpacking a compressed one. */
  progress?: ProgressSink;
  signal?: AbortSignal;
  /** How far a compressed archive may unpack. Default UNPACK_LIMIT (unpack-limit.ts). */
  unpack?: UnpackLimit;
  /** Where such copies go (nameless files, gone with the process). Default /var/tmp. */
  tempDir?: string;
  /** Where DOCKER_HOST, REGISTRY_AUTH_FILE, HOME and so on are read. Default process.env. */
  env?: Readonly<Record<string, string | undefined>>;
}
