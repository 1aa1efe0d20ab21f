/**
 * Connections to registries and what belongs to them: one pool per host, with the certificates of certs.d, through the
 * proxy that the environment names.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { Agent, EnvHttpProxyAgent, type Dispatcher } from 'undici';
import { PgError } from '../../mdm/error.ts';
import { publicLookup } from './reach.ts';

type Env = Readonly<Record<string, string | undefined>>;

const CONNECT_TIMEOUT_MS = 20_000;
const HEADERS_TIMEOUT_MS = 60_000;
/** A body that stands still this long counts as cut. */
const BODY_TIMEOUT_MS = 60_000;

/** Pools of connections by host. Close it when done. */
export class Connections {
  readonly #env: Env;
  readonly #pools = new Map<string, Dispatcher>();

  constructor(env: Env) {
    this.#env = env;
  }

  /**
   * The pool for `url`'s host; `insecure` = its certificate is not checked, `publicOnly` = its name must not lead to a
   * private address (reach.ts). What a proxy asks for is the proxy's affair.
   */
  to(url: URL, insecure: boolean, publicOnly = false): Dispatcher {
    const key = `${url.protocol}//${url.host} ${insecure} ${publicOnly}`;
    let pool = this.#pools.get(key);
    if (pool === undefined) {
      pool = this.#open(url, insecure, publicOnly);
      this.#pools.set(key, pool);
    }
    return pool;
  }

  async close(): Promise<void> {
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    await Promise.all(pools.map((pool) => pool.destroy()));
  }

  #open(url: URL, insecure: boolean, publicOnly: boolean): Dispatcher {
    const tls = url.protocol === 'https:' ? tlsOptions(url.host, insecure, this.#env) : {};
    const variable = (name: string): string => this.#env[name] ?? this.#env[name.toUpperCase()] ?? '';
    const proxies = { httpProxy: variable('http_proxy'), httpsProxy: variable('https_proxy') };
    const isProxied = (url.protocol === 'https:' ? proxies.httpsProxy : proxies.httpProxy) !== '';
    const options = {
      connect: { timeout: CONNECT_TIMEOUT_MS, ...tls, ...(publicOnly && !isProxied ? { lookup: publicLookup } : {}) },
      headersTimeout: HEADERS_TIMEOUT_MS,
      bodyTimeout: BODY_TIMEOUT_MS,
    };
    // As everywhere (Go's httpproxy), what is on this machine is not asked of a proxy.
    if (isLoopback(url.hostname)) return new Agent(options);
    return new EnvHttpProxyAgent({
      ...options,
      requestTls: tls,
      // What goes in the clear is handed to the proxy as it is: many open tunnels to port 443 only.
      proxyTunnel: url.protocol === 'https:',
      ...proxies,
      noProxy: variable('no_proxy'),
    } as EnvHttpProxyAgent.Options);
  }
}

/** 127.0.0.0/8, ::1 and localhost: where plain http needs no permission. `hostname` as in a URL, IPv6 in brackets. */
export function isLoopback(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, '').toLowerCase();
  if (host === 'localhost') return true;
  return (
    (isIP(host) === 4 && host.startsWith('127.')) ||
    host === '::1' ||
    host.startsWith('::ffff:127.') ||
    host.startsWith('::ffff:7f')
  );
}

interface TlsOptions {
  rejectUnauthorized?: boolean;
  ca?: string[];
  cert?: string;
  key?: string;
}

/**
 * CA and client certificates for `host` (HOST:PORT as the user writes it) from the certs.d directories of
 * containers-certs.d(5) and Docker: *.crt are authorities, NAME.cert with NAME.key a client certificate. Throws
 * CERTIFICATE_INVALID.
 */
function tlsOptions(host: string, insecure: boolean, env: Env): TlsOptions {
  const found: TlsOptions = insecure ? { rejectUnauthorized: false } : {};
  const authorities: string[] = [];
  for (const directory of certificateDirectories(host, env)) {
    for (const name of readdirSync(directory).toSorted()) {
      const path = join(directory, name);
      if (name.endsWith('.crt')) authorities.push(readPem(path));
      else if (name.endsWith('.cert') && found.cert === undefined) {
        const keyPath = path.replace(/cert$/, 'key');
        if (!existsSync(keyPath)) {
          throw new PgError('CERTIFICATE_INVALID', `${path} has no key beside it`, { hint: `put it at ${keyPath}` });
        }
        found.cert = readPem(path);
        found.key = readPem(keyPath);
      }
    }
  }
  // Node trusts its own list only; Docker and podman trust the system's.
  found.ca = [...getCACertificates('default'), ...getCACertificates('system'), ...authorities];
  return found;
}

function certificateDirectories(host: string, env: Env): string[] {
  const config = join(env['HOME'] ?? homedir(), '.config');
  const parents = [join(config, 'containers'), '/etc/containers', join(config, 'docker'), '/etc/docker'];
  return parents.map((parent) => join(parent, 'certs.d', host)).filter((directory) => existsSync(directory));
}

function readPem(path: string): string {
  const text = readFileSync(path, 'utf8');
  if (text.includes('-----BEGIN ')) return text;
  throw new PgError('CERTIFICATE_INVALID', `${path} is not in PEM form`, {
    hint: `convert it: openssl x509 -inform der -in ${path} -out ${path}`,
  });
}
