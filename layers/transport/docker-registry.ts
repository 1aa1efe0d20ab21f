/** `docker://NAME`: an image in a registry, or in the mirror of it that registries.conf names and that has it. */
import { PgError, isPgError } from '../../mdm/error.ts';
import { Connections } from '../registry/connections.ts';
import { RegistryClient, type ServedDocument } from '../registry/client.ts';
import { findCredentials } from '../registry/credentials.ts';
import { RegistriesConf, type PullEndpoint } from '../registry/registries-conf.ts';
import { formatReference, repositoryName, type Reference } from '../reference.ts';
import { digestMismatch, digestOf, isDigest, splitDigest, verified, verifyDigest } from './digest.ts';
import {
  assembleImage,
  assembleIndex,
  DOCUMENT_BYTES_MAX,
  INDEX_TYPES,
  MANIFEST_TYPES,
  type ReadDocument,
  SCHEMA1_TYPES,
} from './manifest.ts';
import type { Platform } from './platform.ts';
import type { ImageSource, LayerBlob, SourceImage, SourceIndex, SourceOptions } from './source.ts';

/** Schema 1 is asked for too, only to be told apart from "not there". */
const ACCEPTED = [...INDEX_TYPES, ...MANIFEST_TYPES, ...SCHEMA1_TYPES];

export class RegistrySource implements ImageSource {
  readonly transport = 'docker';
  readonly #reference: Reference;
  readonly #endpoints: PullEndpoint[];
  readonly #connections: Connections;
  readonly #options: SourceOptions;
  #used: { client: RegistryClient; endpoint: PullEndpoint } | null = null;

  /** `reference` has a tag or a digest. Throws REGISTRY_BLOCKED, REGISTRIES_CONF_INVALID. */
  constructor(reference: Reference, options: SourceOptions) {
    const env = options.env ?? process.env;
    this.#reference = reference;
    this.#options = options;
    this.#endpoints = new RegistriesConf(env).endpointsFor(reference);
    this.#connections = new Connections(env);
  }

  describe(): string {
    const asked = this.#reference.domain;
    const { client, endpoint } = this.#used ?? {};
    const place =
      endpoint === undefined || endpoint.reference.domain === asked ? asked : `${asked} (by way of ${client?.host})`;
    return `${formatReference(this.#reference)} in the registry ${place}`;
  }

  async manifest(platform?: Platform): Promise<SourceImage> {
    return await this.#fromFirst(async (client, reference) => {
      const { served, read } = await this.#read(client, reference);
      const image = await assembleImage(served.bytes, served.contentType, read, platform, this.describe());
      image.names = [imageName(this.#reference)];
      return image;
    });
  }

  async index(): Promise<SourceIndex> {
    return await this.#fromFirst(async (client, reference) => {
      const { served, read } = await this.#read(client, reference);
      const index = await assembleIndex(served.bytes, served.contentType, read, this.describe());
      return { ...index, names: [imageName(this.#reference)] };
    });
  }

  /** What the first endpoint that has it gives. */
  async #fromFirst<T>(ask: (client: RegistryClient, reference: Reference) => Promise<T>): Promise<T> {
    const failures: string[] = [];
    for (const [i, endpoint] of this.#endpoints.entries()) {
      const client = this.#client(endpoint);
      try {
        const found = await ask(client, endpoint.reference);
        this.#used = { client, endpoint };
        return found;
      } catch (error) {
        this.#options.signal?.throwIfAborted();
        if (!isPgError(error) || i === this.#endpoints.length - 1) throw withFailures(error, failures);
        failures.push(`${endpoint.reference.domain}: ${error.message}`);
      }
    }
    throw new TypeError('registries.conf left no place to ask');
  }

  openBlob(layer: LayerBlob, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const what = `layer ${layer.index + 1} (${layer.digest}) of ${this.describe()}`;
    const client = this.#used?.client;
    if (client === undefined || layer.digest === null) throw new TypeError('this layer is of another source');
    const signals = [signal, this.#options.signal].filter((s) => s !== undefined);
    return verified(client.blob(layer.digest, layer.sizeBytes, AbortSignal.any(signals)), layer, what);
  }

  async close(): Promise<void> {
    await this.#connections.close();
  }

  #client({ reference, insecure }: PullEndpoint): RegistryClient {
    const env = this.#options.env ?? process.env;
    return new RegistryClient(reference, {
      connections: this.#connections,
      credentials: () => findCredentials(repositoryName(reference), env),
      insecure,
      signal: this.#options.signal,
    });
  }

  /** The document that the reference names, verified where its digest is known, and how to read what it names. */
  async #read(client: RegistryClient, reference: Reference): Promise<{ served: ServedDocument; read: ReadDocument }> {
    const served = await client.manifest(reference.digest ?? reference.tag ?? 'latest', ACCEPTED, DOCUMENT_BYTES_MAX);
    const name = `the manifest of ${this.describe()}`;
    if (reference.digest !== undefined) verifyDigest(served.bytes, reference.digest, name);
    else if (isDigest(served.digest)) {
      const actual = digestOf(served.bytes, splitDigest(served.digest, name).algorithm);
      if (actual !== served.digest) throw digestMismatch(name, served.digest, actual);
    }
    return {
      served,
      read: async ({ digest }, role) =>
        role === 'manifest'
          ? (await client.manifest(digest, ACCEPTED, DOCUMENT_BYTES_MAX)).bytes
          : client.smallBlob(digest, DOCUMENT_BYTES_MAX),
    };
  }
}

/** Where a digest was asked for, the tag beside it says nothing. */
function imageName({ tag, ...reference }: Reference): string {
  return formatReference(reference.digest === undefined && tag !== undefined ? { ...reference, tag } : reference);
}

function withFailures(error: unknown, failures: readonly string[]): unknown {
  if (!isPgError(error) || failures.length === 0) return error;
  return new PgError(error.code, `${error.message} (before that, ${failures.join('; ')})`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
    cause: error,
  });
}
