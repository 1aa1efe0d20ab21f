/**
 * A repository in a registry, written (OCI distribution-spec "Push"): blobs that are not there yet, mounted from another repository where
 * that can be, in one piece or in chunks that a cut costs one of; then manifests.
 */
import { PgError, isPgError } from '../../mdm/error.ts';
import type { ManifestDocument } from '../transport/source.ts';
import type { Answer, RegistryClient } from './client.ts';
import { ATTEMPTS_MAX, isPassing, PassingError, pause, withRetries } from './retry.ts';

/** What is sent at once, and held in memory until the registry has it. */
const CHUNK_BYTES = 16 * 1024 * 1024;
const OCTETS = { 'content-type': 'application/octet-stream' };

/** A blob as it is sent: `open` gives its bytes from the front, each time it is called. */
export interface UploadBlob {
  digest: string;
  sizeBytes: number;
  open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** Whether the repository has the blob. */
export async function hasBlob(
  client: RegistryClient,
  digest: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const what = nameOf(client, digest);
  return await attempted(client, what, signal, async () => {
    const answer = await client.send(
      { method: 'HEAD', target: `blobs/${digest}`, headers: {}, accepted: [200, 404] },
      what,
      signal,
    );
    await answer.body.dump();
    return answer.statusCode === 200;
  });
}

/** Asks for the blob to be taken over from another repository of the registry; false when that was not done. */
export async function mountBlob(
  client: RegistryClient,
  digest: string,
  from: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const query = new URLSearchParams({ mount: digest, from });
  try {
    const answer = await client.send(
      { method: 'POST', target: `blobs/uploads/?${query}`, headers: { 'content-length': '0' }, accepted: [201, 202] },
      nameOf(client, digest),
      signal,
    );
    await answer.body.dump();
    if (answer.statusCode === 201) return true;
    // It began an upload instead, which is not wanted in this way.
    await giveUp(client, await client.location(answer), signal);
    return false;
  } catch (error) {
    signal?.throwIfAborted();
    // Not being allowed to read the other repository is no failure: the blob is sent then.
    if (isPgError(error) || error instanceof PassingError) return false;
    throw error;
  }
}

/** Sends a blob; `onBytes` is told of what the registry has taken. Throws what `open` throws, and what the registry says. */
export async function uploadBlob(
  client: RegistryClient,
  blob: UploadBlob,
  onBytes: (bytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const what = nameOf(client, blob.digest);
  let reported = 0;
  const upTo = (bytes: number): void => {
    if (bytes > reported) onBytes(bytes - reported);
    reported = Math.max(reported, bytes);
  };
  await attempted(client, what, signal, async () => {
    const start = await client.send(
      { method: 'POST', target: 'blobs/uploads/', headers: { 'content-length': '0' }, accepted: [202] },
      what,
      signal,
    );
    await start.body.dump();
    const upload = new Upload(client, blob, await client.location(start), signal);
    try {
      if (blob.sizeBytes <= CHUNK_BYTES) await upload.atOnce(upTo);
      else if (!(await upload.inChunks(chunkBytes(start), upTo))) await upload.streamed(upTo);
    } catch (error) {
      await giveUp(client, upload.at, signal);
      throw error;
    }
  });
}

/** Puts a manifest or index under a tag or its digest. */
export async function putManifest(
  client: RegistryClient,
  reference: string,
  { bytes, digest, mediaType }: ManifestDocument,
  signal: AbortSignal | undefined,
): Promise<void> {
  const what = `${client.name}:${reference}`;
  await attempted(client, what, signal, async () => {
    const answer = await client.send(
      {
        method: 'PUT',
        target: `manifests/${reference}`,
        headers: { 'content-type': mediaType },
        body: () => bytes,
        accepted: [201, 202],
      },
      what,
      signal,
    );
    await answer.body.dump();
    const stored = answer.headers['docker-content-digest'];
    if (
      typeof stored === 'string' &&
      stored.startsWith('sha256:') &&
      digest.startsWith('sha256:') &&
      stored !== digest
    ) {
      throw new PgError('REGISTRY_MISBEHAVES', `the registry ${client.host} stored ${stored} where ${digest} was sent`);
    }
  });
}

/** One upload session (distribution-spec, "Pushing a blob monolithically", "in chunks"). */
class Upload {
  at: URL;
  readonly #client: RegistryClient;
  readonly #blob: UploadBlob;
  readonly #signal: AbortSignal | undefined;
  readonly #what: string;

  constructor(client: RegistryClient, blob: UploadBlob, at: URL, signal: AbortSignal | undefined) {
    this.#client = client;
    this.#blob = blob;
    this.at = at;
    this.#signal = signal;
    this.#what = nameOf(client, blob.digest);
  }

  /** POST, then PUT of all of a small blob, which is known to be right before anything of it is sent. */
  async atOnce(upTo: (bytes: number) => void): Promise<void> {
    const parts: Uint8Array[] = [];
    for await (const piece of this.#blob.open()) parts.push(Buffer.from(piece));
    const bytes = Buffer.concat(parts);
    await this.#finish(String(bytes.length), () => bytes);
    upTo(bytes.length);
  }

  /** POST, then PUT of all of it, as it is made. */
  async streamed(upTo: (bytes: number) => void): Promise<void> {
    let failure: { error: unknown } | undefined;
    const body = async function* (pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      try {
        yield* pieces;
      } catch (error) {
        failure = { error };
        throw error;
      }
    };
    try {
      await this.#finish(String(this.#blob.sizeBytes), () => body(this.#pieces(upTo)));
    } catch (error) {
      // The registry may have complained first.
      throw failure?.error ?? error;
    }
  }

  /** Chunk by chunk; false, with nothing sent, when the registry wants none. A chunk that is cut off is sent again from where it was cut. */
  async inChunks(chunkBytes: number, upTo: (bytes: number) => void): Promise<boolean> {
    let sent = 0;
    for await (const chunk of chunks(this.#blob.open(), chunkBytes)) {
      try {
        await this.#chunk(chunk, sent);
      } catch (error) {
        if (sent === 0 && isPgError(error, 'REGISTRY_MISBEHAVES')) return false;
        throw error;
      }
      sent += chunk.length;
      upTo(sent);
    }
    await this.#finish('0', undefined);
    return true;
  }

  async #chunk(chunk: Uint8Array, from: number): Promise<void> {
    let done = 0;
    for (let failures = 0; done < chunk.length;) {
      const rest = chunk.subarray(done);
      try {
        const answer = await this.#client.send(
          {
            method: 'PATCH',
            target: this.at,
            headers: {
              ...OCTETS,
              'content-length': String(rest.length),
              'content-range': `${from + done}-${from + chunk.length - 1}`,
            },
            body: () => rest,
            accepted: [202, 416],
          },
          this.#what,
          this.#signal,
        );
        await answer.body.dump();
        // 416: it has more of it, or less, than we know of.
        if (answer.statusCode === 416) throw new PassingError(`${this.#what}: the registry expects another part of it`);
        this.at = await this.#client.location(answer);
        return;
      } catch (error) {
        this.#signal?.throwIfAborted();
        if (!isPassing(error) || ++failures === ATTEMPTS_MAX) throw error;
        await pause(failures, error, this.#signal);
        done = Math.max(0, Math.min(chunk.length, (await this.#received()) - from));
      }
    }
  }

  /** How many bytes the registry says that it has. */
  async #received(): Promise<number> {
    const answer = await this.#client.send(
      { method: 'GET', target: this.at, headers: {}, accepted: [204, 404] },
      this.#what,
      this.#signal,
    );
    await answer.body.dump();
    // Docker's registry gives an upload up when a part of it is cut: then all of it is sent again.
    if (answer.statusCode === 404) throw new PassingError(`${this.#what}: the registry has lost what it was sent`);
    if (answer.headers['location'] !== undefined) this.at = await this.#client.location(answer);
    const range = /^(?:bytes=)?0-(\d+)$/.exec(String(answer.headers['range'] ?? '0-0'));
    const last = Number(range?.[1] ?? 0);
    return last === 0 ? 0 : last + 1;
  }

  async #finish(length: string, body: (() => Uint8Array | AsyncIterable<Uint8Array>) | undefined): Promise<void> {
    const url = new URL(this.at);
    url.searchParams.set('digest', this.#blob.digest);
    const answer = await this.#client.send(
      {
        method: 'PUT',
        target: url,
        headers: { ...OCTETS, 'content-length': length },
        ...(body === undefined ? {} : { body }),
        accepted: [201, 204],
      },
      this.#what,
      this.#signal,
    );
    await answer.body.dump();
  }

  async *#pieces(upTo: (bytes: number) => void): AsyncGenerator<Uint8Array> {
    let sent = 0;
    for await (const piece of this.#blob.open()) {
      // A copy: what is handed on may still be on its way when the next piece is made.
      yield Buffer.from(piece);
      upTo((sent += piece.length));
    }
  }
}

/** Gathers pieces into chunks of `bytes`, the last one shorter; each is memory of its own. */
async function* chunks(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  bytes: number,
): AsyncGenerator<Uint8Array> {
  let chunk = Buffer.allocUnsafe(bytes);
  let used = 0;
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length;) {
      const part = Math.min(piece.length - at, bytes - used);
      chunk.set(piece.subarray(at, at + part), used);
      used += part;
      at += part;
      if (used < bytes) continue;
      yield chunk;
      chunk = Buffer.allocUnsafe(bytes);
      used = 0;
    }
  }
  if (used > 0) yield chunk.subarray(0, used);
}

/** A registry may want larger chunks than ours (distribution-spec, `OCI-Chunk-Min-Length`). */
function chunkBytes(answer: Answer): number {
  const asked = Number(answer.headers['oci-chunk-min-length']);
  return Number.isSafeInteger(asked) && asked > CHUNK_BYTES ? Math.min(asked, 4 * CHUNK_BYTES) : CHUNK_BYTES;
}

/** Ends an upload that comes to nothing; that it cannot be ended is no matter. */
async function giveUp(client: RegistryClient, at: URL, signal: AbortSignal | undefined): Promise<void> {
  if (signal?.aborted) return;
  await client
    .send({ method: 'DELETE', target: at, headers: {}, accepted: [200, 202, 204, 404, 405] }, 'an upload', signal)
    .then(
      (answer) => answer.body.dump(),
      () => undefined,
    );
}

async function attempted<T>(
  client: RegistryClient,
  what: string,
  signal: AbortSignal | undefined,
  attempt: () => Promise<T>,
): Promise<T> {
  try {
    return await withRetries(attempt, signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw client.final(error, what);
  }
}

const nameOf = (client: RegistryClient, digest: string): string => `blob ${digest} of ${client.name}`;
