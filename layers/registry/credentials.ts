/**
 * Names and passwords for registries, from where docker login and podman login leave them (containers-auth.json(5);
 * docker/cli cliconfig). Secrets are in no error message.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { DEFAULT_DOMAIN } from '../reference.ts';

/** Variables of the environment. */
export type Env = Readonly<Record<string, string | undefined>>;

export type Credentials =
  | { kind: 'password'; username: string; password: string }
  /** To be exchanged for access tokens by the OAuth2 flow (distribution spec, auth/oauth.md). */
  | { kind: 'refresh-token'; token: string }
  /** Sent as it is. */
  | { kind: 'registry-token'; token: string };

export interface AuthFile {
  auths: Record<string, unknown>;
  credHelpers: Record<string, unknown>;
  credsStore: string | null;
  path: string;
}

/** Docker Hub's keys, in Docker's and in podman's files. */
export const HUB_KEYS = ['https://index.docker.io/v1/', 'index.docker.io', 'registry-1.docker.io', DEFAULT_DOMAIN];
const HELPER_TIMEOUT_MS = 30_000;
const HELPER_OUTPUT_BYTES_MAX = 64 * 1024;

/**
 * The credentials for `repository` (`quay.io/team/app`): the most specific entry of the first file that has one, or of
 * the helper that a file names. null: none, go anonymously. Throws CREDENTIALS_INVALID, CREDENTIAL_HELPER_FAILED.
 */
export async function findCredentials(repository: string, env: Env): Promise<Credentials | null> {
  const host = repository.split('/')[0] ?? repository;
  for (const path of authFiles(env)) {
    const file = readAuthFile(path);
    if (file === null) continue;
    const hostKeys = host === DEFAULT_DOMAIN ? HUB_KEYS : [host];
    for (const key of hostKeys) {
      const helper = file.credHelpers[key];
      if (typeof helper !== 'string') continue;
      const found = await askHelper(helper, key, env);
      if (found !== null) return found;
    }
    const entry = findEntry(file, repository, hostKeys);
    if (entry !== null) return entry;
    if (file.credsStore === null) continue;
    for (const key of hostKeys.slice(0, 1)) {
      const found = await askHelper(file.credsStore, key, env);
      if (found !== null) return found;
    }
  }
  return null;
}

/** The files that may hold credentials, first the one that `pg login` and `podman login` write. */
export function authFiles(env: Env): string[] {
  if (env['REGISTRY_AUTH_FILE']) return [env['REGISTRY_AUTH_FILE']];
  const home = env['HOME'] ?? homedir();
  const runtime = env['XDG_RUNTIME_DIR'] || `/run/containers/${process.getuid?.() ?? 0}`;
  return [
    env['XDG_RUNTIME_DIR'] ? join(runtime, 'containers/auth.json') : join(runtime, 'auth.json'),
    join(env['XDG_CONFIG_HOME'] || join(home, '.config'), 'containers/auth.json'),
    join(env['DOCKER_CONFIG'] || join(home, '.docker'), 'config.json'),
  ];
}

/** What an auth file says; null when it is not there. PgError `CREDENTIALS_INVALID`. */
export function readAuthFile(path: string): AuthFile | null {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
  try {
    const json = table(JSON.parse(text));
    const store = json['credsStore'];
    return {
      auths: table(json['auths']),
      credHelpers: table(json['credHelpers']),
      credsStore: typeof store === 'string' && store !== '' ? store : null,
      path,
    };
  } catch {
    // The parser's message quotes the text, which is secret.
    throw new PgError('CREDENTIALS_INVALID', `${path} is not JSON`, {
      hint: 'mend it, or log in again with docker login or podman login',
    });
  }
}

function table(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

/**
 * Keys from the most to the least specific: `quay.io/team/app`, `quay.io/team`, `quay.io`, then old spellings with
 * scheme and path.
 */
function findEntry(file: AuthFile, repository: string, hostKeys: readonly string[]): Credentials | null {
  const parts = repository.split('/');
  const keys = parts.map((_, i) => parts.slice(0, parts.length - i).join('/'));
  for (const key of [...keys.slice(0, -1), ...hostKeys]) {
    const found = readEntry(file.auths[key], key, file.path);
    if (found !== null) return found;
  }
  for (const [key, value] of Object.entries(file.auths)) {
    const bare = key.replace(/^https?:\/\//, '').split('/')[0] ?? '';
    if (!/^https?:\/\//.test(key) || !hostKeys.includes(bare)) continue;
    const found = readEntry(value, key, file.path);
    if (found !== null) return found;
  }
  return null;
}

function readEntry(value: unknown, key: string, path: string): Credentials | null {
  if (typeof value !== 'object' || value === null) return null;
  const { auth, identitytoken, registrytoken, username, password } = value as Record<string, unknown>;
  if (typeof identitytoken === 'string' && identitytoken !== '') return { kind: 'refresh-token', token: identitytoken };
  if (typeof registrytoken === 'string' && registrytoken !== '')
    return { kind: 'registry-token', token: registrytoken };
  if (typeof auth === 'string' && auth !== '') {
    const decoded = Buffer.from(auth, 'base64').toString('utf8');
    const colon = decoded.indexOf(':');
    if (colon < 1) {
      throw new PgError('CREDENTIALS_INVALID', `${path} has no usable name and password for ${key}`, {
        hint: 'log in again',
      });
    }
    return {
      kind: 'password',
      username: decoded.slice(0, colon),
      password: decoded.slice(colon + 1).replace(/\0+$/, ''),
    };
  }
  return typeof username === 'string' && username !== '' && typeof password === 'string'
    ? { kind: 'password', username, password }
    : null;
}

/** docker-credential-NAME get (docker/docker-credential-helpers, README, "Development"). */
async function askHelper(name: string, server: string, env: Env): Promise<Credentials | null> {
  const program = helperProgram(name);
  const { code, output } = await runHelper(program, 'get', server, env);
  if (code !== 0) {
    if (/credentials not found|no credentials server URL|not found/i.test(output)) return null;
    throw helperError(program, `it failed for ${server} (exit ${code})`);
  }
  try {
    const { Username, Secret } = JSON.parse(output) as { Username?: unknown; Secret?: unknown };
    if (typeof Username !== 'string' || typeof Secret !== 'string') throw new TypeError('fields missing');
    if (Username === '<token>') return { kind: 'refresh-token', token: Secret };
    return Username === '' && Secret === '' ? null : { kind: 'password', username: Username, password: Secret };
  } catch {
    throw helperError(program, `its answer for ${server} is not what credential helpers give`);
  }
}

function helperProgram(name: string): string {
  const program = `docker-credential-${name}`;
  if (!/^[A-Za-z0-9_.-]+$/.test(name)) throw helperError(program, 'its name is not a plain word');
  return program;
}

/** Has a helper store or erase: `docker-credential-NAME VERB` with `input` on its stdin. False: it does not have what is to be erased. */
export async function tellHelper(name: string, verb: 'store' | 'erase', input: string, env: Env): Promise<boolean> {
  const program = helperProgram(name);
  const { code, output } = await runHelper(program, verb, input, env);
  if (code === 0) return true;
  if (verb === 'erase' && /not found/i.test(output)) return false;
  throw helperError(program, `it does not ${verb} (exit ${code})`);
}

function runHelper(
  program: string,
  verb: string,
  input: string,
  env: Env,
): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, [verb], {
      env: { ...env },
      stdio: ['pipe', 'pipe', 'ignore'],
      timeout: HELPER_TIMEOUT_MS,
    });
    const output: Buffer[] = [];
    let bytes = 0;
    child.stdout.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > HELPER_OUTPUT_BYTES_MAX) child.kill();
      else output.push(chunk);
    });
    child.on('error', (error) =>
      reject(helperError(program, (error as NodeJS.ErrnoException).code ?? 'it does not start', error)),
    );
    child.on('close', (code) => resolve({ code, output: Buffer.concat(output).toString('utf8') }));
    // A helper that does not read its input is its own affair.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input);
  });
}

function helperError(program: string, why: string, cause?: unknown): PgError {
  return new PgError('CREDENTIAL_HELPER_FAILED', `the credential helper ${program} cannot be asked: ${why}`, {
    hint: `install ${program}, or take it out of ~/.docker/config.json (credsStore, credHelpers)`,
    ...(cause === undefined ? {} : { cause }),
  });
}
