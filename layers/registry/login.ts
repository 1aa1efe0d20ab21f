/** Logging in to registries and out: where podman and docker keep it (containers-auth.json(5)), or in the helper that they name. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isPgError, PgError } from '../../mdm/error.ts';
import { DEFAULT_DOMAIN, parseReference } from '../reference.ts';
import { RegistryClient } from './client.ts';
import { Connections } from './connections.ts';
import { type AuthFile, authFiles, type Env, HUB_KEYS, readAuthFile, tellHelper } from './credentials.ts';
import { RegistriesConf } from './registries-conf.ts';

/** Where credentials were put or taken from, in words. */
export type Kept = string;

/** The registry that a user means: `quay.io`, `https://quay.io/`, `localhost:5000`; nothing is Docker Hub. PgError `REFERENCE_INVALID`. */
export function registryHost(text: string | undefined): string {
  const bare = (text ?? DEFAULT_DOMAIN).replace(/^https?:\/\//, '').replace(/\/+$|\/v[12]\/?$/g, '');
  if (HUB_KEYS.includes(bare) || bare === '') return DEFAULT_DOMAIN;
  const { domain } = parseReference(`${bare}/x`);
  if (domain === bare) return domain;
  throw new PgError('REFERENCE_INVALID', `'${bare}' is not a registry`, { hint: 'write HOST or HOST:PORT' });
}

/**
 * Tries name and password at the registry and, if it lets us in, keeps them: in the helper named for the registry, else in the first
 * auth file. PgError `ACCESS_DENIED`, `REGISTRY_UNREACHABLE`, `CREDENTIAL_HELPER_FAILED`, `CREDENTIALS_INVALID`.
 */
export async function login(
  host: string,
  username: string,
  password: string,
  env: Env,
  signal: AbortSignal | undefined,
): Promise<Kept> {
  await tryOut(host, username, password, env, signal);
  const helper = helperOf(host, env);
  if (helper !== undefined) {
    await tellHelper(
      helper.name,
      'store',
      JSON.stringify({ ServerURL: helper.key, Username: username, Secret: password }),
      env,
    );
    return `docker-credential-${helper.name}`;
  }
  const path = authFiles(env)[0]!;
  const auth = Buffer.from(`${username}:${password}`).toString('base64');
  changeAuths(path, (auths) => ({ ...auths, [keyIn(path, host)]: { auth } }));
  return path;
}

/** Forgets what `login` kept. PgError `NOT_LOGGED_IN`. */
export async function logout(host: string, env: Env): Promise<Kept> {
  const helper = helperOf(host, env);
  if (helper !== undefined && (await tellHelper(helper.name, 'erase', helper.key, env)))
    return `docker-credential-${helper.name}`;
  const [own, ...others] = authFiles(env);
  const keys = keysOf(host);
  const has = (file: AuthFile | null): boolean => file !== null && keys.some((key) => key in file.auths);
  if (has(readAuthFile(own!))) {
    changeAuths(own!, (auths) => Object.fromEntries(Object.entries(auths).filter(([key]) => !keys.includes(key))));
    return own!;
  }
  const elsewhere = others.find((path) => has(readAuthFile(path)));
  const hint =
    elsewhere === undefined ? {} : { hint: `${elsewhere} has a login of another program: log out with that` };
  throw new PgError('NOT_LOGGED_IN', `not logged in to ${host}`, hint);
}

/** Who is logged in to the registry, as far as files say. */
export function loggedIn(host: string, env: Env): string | undefined {
  for (const path of authFiles(env)) {
    const auths = readAuthFile(path)?.auths ?? {};
    for (const key of keysOf(host)) {
      const { auth } = (auths[key] ?? {}) as { auth?: unknown };
      if (typeof auth !== 'string') continue;
      const [name] = Buffer.from(auth, 'base64').toString().split(':');
      if (name !== undefined && name !== '') return name;
    }
  }
  return undefined;
}

async function tryOut(
  host: string,
  username: string,
  password: string,
  env: Env,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { insecure } = new RegistriesConf(env).endpointsFor({ domain: host, path: 'x' }).at(-1)!;
  const connections = new Connections(env);
  try {
    await new RegistryClient(
      { domain: host, path: '' },
      { connections, credentials: async () => ({ kind: 'password', username, password }), insecure, signal },
    ).ping();
  } catch (error) {
    if (!isPgError(error, 'ACCESS_DENIED')) throw error;
    throw new PgError('ACCESS_DENIED', `the registry ${host} does not take this name and password`, { cause: error });
  } finally {
    await connections.close();
  }
}

const keysOf = (host: string): string[] => (host === DEFAULT_DOMAIN ? HUB_KEYS : [host]);

/** docker's own file has Docker Hub under a URL. */
function keyIn(path: string, host: string): string {
  return host === DEFAULT_DOMAIN && basename(path) === 'config.json' ? HUB_KEYS[0]! : host;
}

/** The helper that the first file with one names for the registry. */
function helperOf(host: string, env: Env): { name: string; key: string } | undefined {
  for (const path of authFiles(env)) {
    const file = readAuthFile(path);
    if (file === null) continue;
    for (const key of keysOf(host)) {
      const name = file.credHelpers[key];
      if (typeof name === 'string' && name !== '') return { name, key };
    }
    if (file.credsStore !== null) return { name: file.credsStore, key: keysOf(host)[0]! };
  }
  return undefined;
}

/** Rewrites `auths` of a file, whole or not at all, readable by its owner only; what else is in it stays. */
function changeAuths(path: string, change: (auths: Record<string, unknown>) => Record<string, unknown>): void {
  const before = readAuthFile(path);
  const json = before === null ? {} : (JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>);
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    writeFileSync(temporary, `${JSON.stringify({ ...json, auths: change(before?.auths ?? {}) }, null, '\t')}\n`, {
      mode: 0o600,
      flush: true,
    });
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw new PgError('CREDENTIALS_INVALID', `cannot write ${path}: ${(cause as NodeJS.ErrnoException).code}`, {
      hint: 'say another file: --authfile PATH, or REGISTRY_AUTH_FILE',
      cause,
    });
  }
}
