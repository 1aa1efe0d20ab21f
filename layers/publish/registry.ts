/** `docker://NAME`: a registry to push to. */
import type { Store } from '../../store/store.ts';
import { listImages } from '../images.ts';
import { formatReference, parseReference, repositoryName, type Reference } from '../reference.ts';
import { Connections } from '../registry/connections.ts';
import { RegistryClient } from '../registry/client.ts';
import { findCredentials } from '../registry/credentials.ts';
import { RegistriesConf } from '../registry/registries-conf.ts';
import { hasBlob, mountBlob, putManifest, uploadBlob } from '../registry/upload.ts';
import type { ManifestDocument } from '../transport/source.ts';
import type { BlobDestination, BlobOutcome } from './destination.ts';
import type { OutgoingBlob } from './outgoing.ts';

type Env = Readonly<Record<string, string | undefined>>;

export class RegistryDestination implements BlobDestination {
  readonly form = 'published';
  readonly packing = 'gzip';
  readonly blobsAtOnce = 3;
  readonly #asked: Reference;
  readonly #there: Reference;
  readonly #client: RegistryClient;
  readonly #connections: Connections;
  readonly #signal: AbortSignal | undefined;
  /** Blobs, and the other repositories of this registry that images with them are named after. */
  readonly #elsewhere: ReadonlyMap<string, string>;
  readonly #under = new Map<string, Promise<BlobOutcome>>();

  /** `reference` has a tag. As with docker and podman, mirrors are not pushed to. Throws REGISTRY_BLOCKED, REGISTRIES_CONF_INVALID. */
  constructor(store: Store, reference: Reference, env: Env, signal: AbortSignal | undefined) {
    const { reference: there, insecure } = new RegistriesConf(env).endpointsFor(reference).at(-1)!;
    this.#asked = reference;
    this.#there = there;
    this.#connections = new Connections(env);
    this.#signal = signal;
    this.#client = new RegistryClient(there, {
      connections: this.#connections,
      credentials: () => findCredentials(repositoryName(there), env),
      insecure,
      signal,
    });
    this.#elsewhere = repositoriesOf(store, there);
  }

  describe(): string {
    const place = this.#there.domain === this.#asked.domain ? '' : ` (by way of ${this.#there.domain})`;
    return `${formatReference(this.#asked)} in the registry ${this.#asked.domain}${place}`;
  }

  async blob(blob: OutgoingBlob, onBytes: (bytes: number) => void): Promise<BlobOutcome> {
    const before = this.#under.get(blob.digest);
    if (before !== undefined) return await before.then(() => 'already there');
    const outcome = this.#bring(blob, onBytes);
    this.#under.set(blob.digest, outcome);
    return await outcome;
  }

  async #bring(blob: OutgoingBlob, onBytes: (bytes: number) => void): Promise<BlobOutcome> {
    if (await hasBlob(this.#client, blob.digest, this.#signal)) return 'already there';
    const from = this.#elsewhere.get(blob.digest);
    if (from !== undefined && (await mountBlob(this.#client, blob.digest, from, this.#signal))) return 'mounted';
    await uploadBlob(this.#client, blob, onBytes, this.#signal);
    return 'written';
  }

  async manifest(document: ManifestDocument, isLast: boolean): Promise<void> {
    await putManifest(this.#client, isLast ? this.#there.tag! : document.digest, document, this.#signal);
  }

  async end(): Promise<void> {
    await this.#connections.close();
  }

  async abort(): Promise<void> {
    await this.#connections.close();
  }
}

/** Where else in this registry blobs may be, by the names that images here have. */
function repositoriesOf(store: Store, { domain, path }: Reference): Map<string, string> {
  const found = new Map<string, string>();
  for (const { names, digests, layers, id } of listImages(store, () => undefined)) {
    for (const name of [...names, ...digests]) {
      const other = parseReference(name);
      if (other.domain !== domain || other.path === path) continue;
      for (const digest of [id, ...layers.map((layer) => layer.digest)])
        if (digest !== undefined) found.set(digest, other.path);
    }
  }
  return found;
}
