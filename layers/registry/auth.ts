/**
 * Proving who we are to a registry: Basic (RFC 7617), or Bearer tokens from the token server that its challenge names
 * (distribution spec, auth/token.md and auth/oauth.md).
 */
import { request } from 'undici';
import { isPgError, PgError } from '../../mdm/error.ts';
import type { Connections } from './connections.ts';
import type { Credentials } from './credentials.ts';
import { loginHint, unreachable } from './errors.ts';
import { mustBePublic } from './reach.ts';
import { steady } from './steady.ts';
import { PassingError, retryAfterMs, withRetries } from './retry.ts';

const TOKEN_BYTES_MAX = 1024 * 1024;
/** Tokens that say nothing live this long (auth/token.md); we stop using one a little earlier. */
const TOKEN_SECONDS_DEFAULT = 60;
const TOKEN_MARGIN_MS = 10_000;

export interface Challenge {
  scheme: 'basic' | 'bearer';
  parameters: Readonly<Record<string, string>>;
}

/**
 * What a WWW-Authenticate header asks for (RFC 9110 section 11.6.1): Bearer where it is offered, else Basic, else null.
 */
export function parseChallenge(header: string | string[] | undefined): Challenge | null {
  const text = Array.isArray(header) ? header.join(', ') : (header ?? '');
  const challenges: Challenge[] = [];
  let current: { scheme: string; parameters: Record<string, string> } | undefined;
  // Tokens: a scheme, or name=value with a quoted or plain value.
  const token = /\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/gy;
  for (let match = token.exec(text); match !== null; match = token.exec(text)) {
    const [, name = '', quoted, plain] = match;
    if (quoted === undefined && plain === undefined) {
      current = { scheme: name.toLowerCase(), parameters: {} };
      if (current.scheme === 'basic' || current.scheme === 'bearer') challenges.push(current as Challenge);
    } else if (current !== undefined) {
      current.parameters[name.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '';
    }
  }
  return challenges.find((c) => c.scheme === 'bearer') ?? challenges[0] ?? null;
}

/** Authorization headers for one repository of one registry. */
export class Authorizer {
  readonly #registry: URL;
  readonly #repository: string;
  readonly #insecure: boolean;
  readonly #connections: Connections;
  readonly #signal: AbortSignal | undefined;
  readonly #credentials: () => Promise<Credentials | null>;
  #challenge: Challenge | null = null;
  #token: { header: string; untilMs: number } | null = null;
  #fetching: Promise<string> | null = null;

  /** `credentials` is asked only when the registry wants any. */
  constructor(
    registry: URL,
    repository: string,
    insecure: boolean,
    connections: Connections,
    credentials: () => Promise<Credentials | null>,
    signal: AbortSignal | undefined,
  ) {
    this.#registry = registry;
    this.#repository = repository;
    this.#insecure = insecure;
    this.#connections = connections;
    this.#credentials = credentials;
    this.#signal = signal;
  }

  /** The header to send, as far as is known by now; null before the registry has asked for one. */
  async header(): Promise<string | null> {
    if (this.#challenge === null) return null;
    if (this.#token !== null && this.#token.untilMs > Date.now()) return this.#token.header;
    this.#fetching ??= this.#obtain(this.#challenge).finally(() => (this.#fetching = null));
    return this.#fetching;
  }

  /**
   * The registry refused `sent` (null = nothing was sent) and asks as in `challenge`. True: another header can be
   * tried. False: there is no more to offer.
   */
  challenged(challenge: Challenge | null, sent: string | null): boolean {
    if (challenge === null) return false;
    // Another request may have got a newer token meanwhile.
    if (sent !== null && this.#token !== null && this.#token.header !== sent) return true;
    this.#challenge = challenge;
    this.#token = null;
    return true;
  }

  async #obtain(challenge: Challenge): Promise<string> {
    const credentials = await this.#credentials();
    if (credentials?.kind === 'registry-token') return this.#keep(`Bearer ${credentials.token}`, Infinity);
    if (challenge.scheme === 'bearer') return this.#fetchToken(challenge, credentials);
    if (credentials?.kind === 'password') return this.#keep(basic(credentials), Infinity);
    throw new PgError(
      'ACCESS_DENIED',
      `the registry ${this.#registry.host} wants a name and password, and none are known`,
      {
        hint: loginHint(this.#registry.host),
      },
    );
  }

  #keep(header: string, untilMs: number): string {
    this.#token = { header, untilMs };
    return header;
  }

  async #fetchToken(
    challenge: Challenge,
    credentials: Exclude<Credentials, { kind: 'registry-token' }> | null,
  ): Promise<string> {
    const realm = this.#checkRealm(challenge.parameters['realm'] ?? '');
    const { service } = challenge.parameters;
    // Without a repository, only who we are is asked.
    const scope = challenge.parameters['scope'] || (this.#repository && `repository:${this.#repository}:pull`);
    const fields = new URLSearchParams({ ...(scope ? { scope } : {}), ...(service ? { service } : {}) });
    let answer: TokenAnswer;
    if (credentials?.kind === 'refresh-token') {
      fields.set('grant_type', 'refresh_token');
      fields.set('refresh_token', credentials.token);
      fields.set('client_id', 'pg');
      answer = await this.#ask(realm, { method: 'POST', body: fields.toString() });
    } else {
      if (credentials !== null) fields.set('account', credentials.username);
      for (const [name, value] of fields) realm.searchParams.set(name, value);
      const headers = credentials === null ? {} : { authorization: basic(credentials) };
      answer = await this.#ask(realm, { method: 'GET', headers });
    }
    const token = answer.token ?? answer.access_token;
    if (typeof token !== 'string' || token === '' || /[^\x21-\x7e]/.test(token)) {
      throw new PgError('ACCESS_DENIED', `the token server ${realm.host} of ${this.#registry.host} gave no token`);
    }
    const seconds = typeof answer.expires_in === 'number' ? answer.expires_in : TOKEN_SECONDS_DEFAULT;
    return this.#keep(`Bearer ${token}`, Date.now() + Math.max(seconds * 1000 - TOKEN_MARGIN_MS, 1000));
  }

  /**
   * A password goes to the token server: never in the clear, unless the registry is so itself.
   */
  #checkRealm(realm: string): URL {
    const url = URL.canParse(realm) ? new URL(realm) : null;
    const isPlain = url?.protocol === 'http:' && this.#registry.protocol === 'http:';
    if (url !== null && (url.protocol === 'https:' || isPlain)) return url;
    throw new PgError(
      'REGISTRY_MISBEHAVES',
      `the registry ${this.#registry.host} sends us for a token to '${realm.slice(0, 200)}'`,
      {
        hint: 'pg asks for tokens over https only; nothing was sent there',
      },
    );
  }

  async #ask(
    url: URL,
    options: { method: 'GET' | 'POST'; headers?: Record<string, string>; body?: string },
  ): Promise<TokenAnswer> {
    const insecure = this.#insecure && url.hostname === this.#registry.hostname;
    const publicOnly = !this.#insecure && (await mustBePublic(url, this.#registry));
    const attempt = async (): Promise<TokenAnswer> => {
      const { statusCode, headers, body } = await request(url, {
        method: options.method,
        headers: {
          ...options.headers,
          'user-agent': 'pg',
          ...(options.body === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
        },
        body: options.body ?? null,
        dispatcher: this.#connections.to(url, insecure, publicOnly),
        signal: this.#signal ?? null,
      });
      const chunks: Uint8Array[] = [];
      let bytes = 0;
      for await (const chunk of steady(body as AsyncIterable<Uint8Array>, `the answer of ${url.host}`)) {
        bytes += chunk.length;
        if (bytes > TOKEN_BYTES_MAX)
          throw new PgError('REGISTRY_MISBEHAVES', `the token server ${url.host} sends endless answers`);
        chunks.push(chunk);
      }
      if (statusCode === 429 || statusCode >= 500) {
        throw new PassingError(`the token server ${url.host} answers ${statusCode}`, {
          retryAfterMs: retryAfterMs(headers['retry-after']),
        });
      }
      if (statusCode !== 200) {
        throw new PgError(
          'ACCESS_DENIED',
          `the token server ${url.host} of ${this.#registry.host} refuses (${statusCode})`,
          {
            hint: loginHint(this.#registry.host),
          },
        );
      }
      return parseAnswer(Buffer.concat(chunks), url);
    };
    try {
      return await withRetries(attempt, this.#signal);
    } catch (error) {
      // The request that wants the token must not try all of this over again.
      this.#signal?.throwIfAborted();
      throw isPgError(error) ? error : unreachable(url.host, 'a token', error);
    }
  }
}

interface TokenAnswer {
  token?: unknown;
  access_token?: unknown;
  expires_in?: unknown;
}

function parseAnswer(bytes: Buffer, url: URL): TokenAnswer {
  try {
    return (JSON.parse(bytes.toString('utf8')) ?? {}) as TokenAnswer;
  } catch {
    throw new PgError('REGISTRY_MISBEHAVES', `the token server ${url.host} answers something else than JSON`);
  }
}

function basic({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}
