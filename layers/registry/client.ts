/**
 * A repository in a registry, read (OCI distribution-spec "Pull"; Docker Registry HTTP API V2): manifests, small
 * documents, and blobs that go on where a cut left them. What comes back is **not** verified here.
 */
import { Readable } from 'node:stream';
import { request, type Dispatcher } from 'undici';
import { PgError, isPgError } from '../../mdm/error.ts';
import { DEFAULT_DOMAIN, type Reference } from '../reference.ts';
import { Authorizer, parseChallenge } from './auth.ts';
import { isLoopback, type Connections } from './connections.ts';
import type { Credentials } from './credentials.ts';
import { mustBePublic } from './reach.ts';
import { steady } from './steady.ts';
import { isCertificateError, registryError, unreachable } from './errors.ts';
import { ATTEMPTS_MAX, isPassing, networkCode, PassingError, pause, retryAfterMs, withRetries } from './retry.ts';

const REDIRECTS_MAX = 5;
/** How long one on this machine may take to answer whether it speaks without TLS; what speaks TLS hangs up at once. */
const PLAIN_MS = 2000;
/** How long a body of no interest may take before its connection is given up. */
const DISCARD_MS = 5000;
/** Of a blob, between two cuts, that count as getting on. */
const PROGRESS_BYTES = 64 * 1024;

export interface RegistryOptions {
  connections: Connections;
  /** Asked only when the registry wants any. */
  credentials: () => Promise<Credentials | null>;
  /** registries.conf: certificates are not checked, and http will do. */
  insecure: boolean;
  signal: AbortSignal | undefined;
}

export type Answer = Dispatcher.ResponseData;

/** A request to the registry. */
export interface RegistryRequest {
  method: 'GET' | 'HEAD' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';
  /** Below the repository (`blobs/uploads/`), or where the registry sent us. */
  target: string | URL;
  headers: Record<string, string>;
  /** Asked for again when the request is sent again. */
  body?: () => Uint8Array | AsyncIterable<Uint8Array>;
  /** Status codes that are handed out; others are errors. */
  accepted: readonly number[];
}

/** A document as it was served. */
export interface ServedDocument {
  bytes: Buffer;
  contentType: string | null;
  /** Docker-Content-Digest, if it was sent. */
  digest: string | null;
}

export class RegistryClient {
  readonly host: string;
  readonly #repository: string;
  readonly #options: RegistryOptions;
  #origin: Promise<{ url: URL; authorizer: Authorizer }> | null = null;

  constructor({ domain, path }: Reference, options: RegistryOptions) {
    // Docker Hub's registry has another name than Docker Hub.
    this.host = domain === DEFAULT_DOMAIN ? 'registry-1.docker.io' : domain;
    this.#repository = path;
    this.#options = options;
  }

  /** The manifest called `reference` (tag or digest), at most `limitBytes` of it. */
  async manifest(reference: string, accept: readonly string[], limitBytes: number): Promise<ServedDocument> {
    return this.#document(
      `manifests/${reference}`,
      { accept: accept.join(', ') },
      limitBytes,
      `${this.#name()}:${reference}`,
    );
  }

  /** A small blob, whole. */
  async smallBlob(digest: string, limitBytes: number): Promise<Buffer> {
    return (await this.#document(`blobs/${digest}`, {}, limitBytes, `blob ${digest} of ${this.#name()}`)).bytes;
  }

  /**
   * The blob's bytes; after a cut it is asked for from there on (RFC 9110 section 14.2). Throws SIZE_MISMATCH or
   * TRUNCATED at once when the registry announces another size than `sizeBytes`.
   */
  async *blob(digest: string, sizeBytes: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const what = `blob ${digest} of ${this.#name()}`;
    let done = 0;
    let failures = 0;
    let counted = 0;
    for (;;) {
      try {
        for await (const chunk of this.#blobFrom(digest, done, sizeBytes, what, signal)) {
          done += chunk.length;
          yield chunk;
        }
        return;
      } catch (error) {
        signal?.throwIfAborted();
        // A server that goes down and comes up again refuses connections in between: between two pieces, that passes
        // too.
        const passing = isPassing(error) || (done > 0 && networkCode(error) === 'ECONNREFUSED');
        // Only what brings us on starts the count anew: one byte a try would never end.
        if (done - counted >= PROGRESS_BYTES) [failures, counted] = [0, done];
        if (!passing || ++failures === ATTEMPTS_MAX) throw this.#final(error, what);
        await pause(failures, error, signal);
      }
    }
  }

  async *#blobFrom(
    digest: string,
    from: number,
    sizeBytes: number,
    what: string,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    const answer = await this.#get(`blobs/${digest}`, from === 0 ? {} : { range: `bytes=${from}-` }, what, signal);
    const { statusCode, headers, body } = answer;
    try {
      checkAnnouncedSize(statusCode, headers, from, sizeBytes, what);
      let skip = statusCode === 206 ? 0 : from;
      let got = from - skip;
      for await (const chunk of steady(body as AsyncIterable<Uint8Array>, what)) {
        got += chunk.length;
        const fresh = skip === 0 ? chunk : chunk.subarray(Math.min(skip, chunk.length));
        skip -= chunk.length - fresh.length;
        if (fresh.length > 0) yield fresh;
      }
      if (got < sizeBytes) throw new PassingError(`${what} was cut after ${got} of ${sizeBytes} bytes`);
    } finally {
      body.destroy();
    }
  }

  async #document(
    path: string,
    headers: Record<string, string>,
    limitBytes: number,
    what: string,
  ): Promise<ServedDocument> {
    const { signal } = this.#options;
    try {
      return await withRetries(async () => {
        const answer = await this.#get(path, headers, what, signal);
        const bytes = await readLimited(answer.body, limitBytes, what);
        const contentType = single(answer.headers['content-type'])?.split(';')[0]?.trim().toLowerCase() ?? null;
        return { bytes, contentType, digest: single(answer.headers['docker-content-digest']) };
      }, signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#final(error, what);
    }
  }

  /** A successful answer (200, 206); throws PassingError for what may pass, PgError for the rest. */
  async #get(
    path: string,
    headers: Record<string, string>,
    what: string,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    return await this.send({ method: 'GET', target: path, headers, accepted: [200, 206] }, what, signal);
  }

  /**
   * An answer with one of the accepted status codes, its body not read yet. Throws PassingError for what may pass, PgError for the rest.
   * Credentials go along as the registry asks, to itself only.
   */
  async send(outgoing: RegistryRequest, what: string, signal: AbortSignal | undefined): Promise<Answer> {
    const { url: origin, authorizer } = await this.#connect();
    const url =
      typeof outgoing.target === 'string'
        ? new URL(`/v2/${this.#repository}/${outgoing.target}`, origin)
        : outgoing.target;
    for (let denials = 0; ;) {
      const authorization = url.origin === origin.origin ? await authorizer.header() : null;
      const { answer, from } = await this.#follow(url, origin, outgoing, authorization, signal);
      const { statusCode } = answer;
      if (outgoing.accepted.includes(statusCode)) return answer;
      // Only the registry itself may say where our password goes.
      if (statusCode === 401 && from === origin.origin && denials++ === 0) {
        const challenge = parseChallenge(answer.headers['www-authenticate']);
        if (authorizer.challenged(challenge, authorization)) {
          await discard(answer);
          continue;
        }
      }
      const error = await registryError(answer, this.host, what);
      if (statusCode !== 429 && statusCode < 500) throw error;
      throw new PassingError(error.message, {
        cause: error,
        retryAfterMs: retryAfterMs(answer.headers['retry-after']),
      });
    }
  }

  /** Follows redirects by hand: the Authorization header goes to the registry itself and nowhere else. */
  async #follow(
    start: URL,
    origin: URL,
    { method, headers, body, accepted }: RegistryRequest,
    authorization: string | null,
    signal: AbortSignal | undefined,
  ): Promise<{ answer: Answer; from: string }> {
    const { insecure, connections } = this.#options;
    let url = start;
    for (let hops = 0; ; hops++) {
      const isOrigin = url.origin === start.origin;
      const publicOnly = !insecure && (await mustBePublic(url, origin));
      const answer = await request(url, {
        method,
        body: bodyOf(body),
        headers: {
          ...headers,
          'user-agent': 'pg',
          'accept-encoding': 'identity',
          ...(isOrigin && authorization !== null ? { authorization } : {}),
        },
        dispatcher: connections.to(url, insecure && url.hostname === origin.hostname, publicOnly),
        signal: signal ?? null,
      });
      const { location } = answer.headers;
      const isRedirect = [301, 302, 303, 307, 308].includes(answer.statusCode) && typeof location === 'string';
      // What writes is not sent elsewhere than asked, but for 307 and 308 (RFC 9110 section 15.4).
      const isRead = method === 'GET' || method === 'HEAD';
      if (!isRedirect || accepted.includes(answer.statusCode) || (!isRead && answer.statusCode < 307))
        return { answer, from: url.origin };
      await discard(answer);
      if (hops === REDIRECTS_MAX) throw misbehaves(this.host, 'it redirects in circles');
      url = checkRedirect(location, url, start, this.host);
    }
  }

  /**
   * Which of https and http the registry speaks, found out once. http only where it is allowed, and there whenever
   * https does not come about - but not for a certificate that does not satisfy. On this machine http is tried first: nobody listens.
   */
  async #connect(): Promise<{ url: URL; authorizer: Authorizer }> {
    this.#origin ??= this.#findOrigin();
    return this.#origin;
  }

  async #findOrigin(): Promise<{ url: URL; authorizer: Authorizer }> {
    const { connections, credentials, insecure, signal } = this.#options;
    let url = new URL(`https://${this.host}`);
    const isHere = isLoopback(url.hostname);
    if (isHere && (await this.#speaksPlainly())) url = new URL(`http://${this.host}`);
    else if (insecure || isHere) {
      try {
        const answer = await request(new URL('/v2/', url), {
          dispatcher: connections.to(url, insecure),
          signal: signal ?? null,
        });
        await discard(answer);
      } catch (error) {
        signal?.throwIfAborted();
        if (isPgError(error)) throw error;
        if (!isCertificateError(networkCode(error))) url = new URL(`http://${this.host}`);
      }
    }
    return { url, authorizer: new Authorizer(url, this.#repository, insecure, connections, credentials, signal) };
  }

  /** Whether a registry of this machine answers as one (distribution-spec, "Determining Support") without TLS, whose certificates take 70 ms to load. */
  async #speaksPlainly(): Promise<boolean> {
    const { connections, insecure, signal } = this.#options;
    const url = new URL(`http://${this.host}/v2/`);
    try {
      const soon = AbortSignal.timeout(PLAIN_MS);
      const answer = await request(url, {
        dispatcher: connections.to(url, insecure),
        signal: signal === undefined ? soon : AbortSignal.any([signal, soon]),
      });
      await discard(answer);
      return answer.statusCode === 200 || answer.statusCode === 401;
    } catch {
      signal?.throwIfAborted();
      return false;
    }
  }

  /** Whether the registry lets us in: throws ACCESS_DENIED and what the network says otherwise. */
  async ping(): Promise<void> {
    const { signal } = this.#options;
    const what = 'anything';
    try {
      await withRetries(async () => {
        const { url } = await this.#connect();
        const answer = await this.send(
          { method: 'GET', target: new URL('/v2/', url), headers: {}, accepted: [200] },
          what,
          signal,
        );
        await discard(answer);
      }, signal);
    } catch (error) {
      throw this.#final(error, what);
    }
  }

  /** Where the registry sends us to go on (a Location header): itself, or another place that may be asked. */
  async location(answer: Answer): Promise<URL> {
    const { url: origin } = await this.#connect();
    const { location } = answer.headers;
    if (typeof location !== 'string') throw misbehaves(this.host, 'it does not say where an upload goes');
    return checkRedirect(location, new URL('/', origin), origin, this.host);
  }

  /** `registry.example/team/app`. */
  get name(): string {
    return this.#name();
  }

  #name(): string {
    return `${this.host}/${this.#repository}`;
  }

  /** What the user is told when no further try is made. */
  final(error: unknown, what: string): unknown {
    return this.#final(error, what);
  }

  #final(error: unknown, what: string): unknown {
    if (isPgError(error)) return error;
    if (error instanceof PassingError && isPgError(error.cause)) return error.cause;
    return unreachable(this.host, what, error);
  }
}

function checkRedirect(location: string, from: URL, origin: URL, host: string): URL {
  const url = URL.canParse(location, from.href) ? new URL(location, from) : null;
  if (url === null || (url.protocol !== 'https:' && (url.protocol !== 'http:' || origin.protocol !== 'http:'))) {
    throw misbehaves(host, `it redirects to '${(url?.protocol ?? location).slice(0, 40)}', which is not followed`);
  }
  url.username = '';
  url.password = '';
  return url;
}

function bodyOf(body: RegistryRequest['body']): Uint8Array | Readable | null {
  const made = body?.() ?? null;
  return made === null || made instanceof Uint8Array ? made : Readable.from(made, { objectMode: false });
}

/** Throws a body away: the connection goes on if there is little of it, and it comes soon. */
async function discard({ body }: Answer): Promise<void> {
  await body.dump({ limit: 64 * 1024, signal: AbortSignal.timeout(DISCARD_MS) }).catch(() => body.destroy());
}

function single(value: string | string[] | undefined): string | null {
  return typeof value === 'string' ? value : null;
}

function misbehaves(host: string, why: string): PgError {
  return new PgError('REGISTRY_MISBEHAVES', `the registry ${host} misbehaves: ${why}`, { hint: 'ask whoever runs it' });
}

function checkAnnouncedSize(
  statusCode: number,
  headers: Answer['headers'],
  from: number,
  sizeBytes: number,
  what: string,
): void {
  let total: number | null = null;
  if (statusCode === 206) {
    const range = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(String(headers['content-range']));
    if (!range || Number(range[1]) !== from)
      throw new PassingError(`${what}: the registry serves another part than asked for`);
    total = range[3] === '*' ? null : Number(range[3]);
  } else if (typeof headers['content-length'] === 'string') {
    total = Number(headers['content-length']);
  }
  if (total === null || total === sizeBytes) return;
  const isShort = total < sizeBytes;
  throw new PgError(
    isShort ? 'TRUNCATED' : 'SIZE_MISMATCH',
    `${what} should be ${sizeBytes} bytes; the registry has ${total}`,
    {
      hint: 'nothing of it was used; the registry or a proxy before it is damaged: push the image again',
    },
  );
}

async function readLimited(body: Answer['body'], limitBytes: number, what: string): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of steady(body as AsyncIterable<Uint8Array>, what)) {
    bytes += chunk.length;
    if (bytes > limitBytes) {
      body.destroy();
      throw new PgError('DOCUMENT_TOO_LARGE', `${what} has more than ${limitBytes} bytes; no more are read`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
