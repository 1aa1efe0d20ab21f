/**
 * registries.conf, version 2 (containers-registries.conf(5)): where an image's repository is to be looked for - mirrors
 * first, then the registry itself, perhaps rewritten - and what may be insecure or is blocked. Short-name aliases and
 * unqualified-search-registries are not used: pg completes names as Docker does.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseReference, type Reference } from '../reference.ts';

type Env = Readonly<Record<string, string | undefined>>;

interface Location {
  /** What the matched prefix is replaced with; '' = nothing is replaced. */
  location: string;
  insecure: boolean;
}

interface Mirror extends Location {
  pullFrom: 'all' | 'digest-only' | 'tag-only';
}

interface Registry extends Location {
  prefix: string;
  blocked: boolean;
  mirrorByDigestOnly: boolean;
  mirrors: Mirror[];
  file: string;
}

/** One place to ask, in the order to ask. */
export interface PullEndpoint {
  /** What the image is called there. */
  reference: Reference;
  insecure: boolean;
  isMirror: boolean;
}

/** All files that count, in the order in which later ones replace earlier ones. Throws REGISTRIES_CONF_INVALID. */
export class RegistriesConf {
  readonly #registries = new Map<string, Registry>();

  /** Reads $CONTAINERS_REGISTRIES_CONF, or the user's file, or /etc's; then the drop-ins of /etc and of the user. */
  constructor(env: Env) {
    const userDirectory = join(env['HOME'] ?? homedir(), '.config/containers');
    const [userFile, systemFile] = [join(userDirectory, 'registries.conf'), '/etc/containers/registries.conf'];
    const main = env['CONTAINERS_REGISTRIES_CONF'] || (existsSync(userFile) ? userFile : systemFile);
    const files = existsSync(main) || env['CONTAINERS_REGISTRIES_CONF'] ? [main] : [];
    for (const directory of ['/etc/containers', userDirectory])
      files.push(...dropIns(join(directory, 'registries.conf.d')));
    for (const file of files) {
      for (const registry of readFile(file)) this.#registries.set(registry.prefix, registry);
    }
  }

  /** Where to look for `reference`. Throws REGISTRY_BLOCKED. */
  endpointsFor(reference: Reference): PullEndpoint[] {
    const name = formatReference(reference);
    let best: { registry: Registry; matched: number } | undefined;
    for (const registry of this.#registries.values()) {
      const matched = matchPrefix(name, registry.prefix);
      if (matched >= 0 && registry.prefix.length > (best?.registry.prefix.length ?? -1)) best = { registry, matched };
    }
    if (best === undefined) return [{ reference, insecure: false, isMirror: false }];
    const { registry, matched } = best;
    if (registry.blocked) {
      throw new PgError('REGISTRY_BLOCKED', `${name} is blocked by ${registry.file} (prefix ${registry.prefix})`, {
        hint: 'whoever runs this machine does not want images from there',
      });
    }
    const isByDigest = reference.digest !== undefined;
    const rewritten = ({ location, insecure }: Location, isMirror: boolean): PullEndpoint => ({
      reference: location === '' ? reference : rewrite(name, matched, location, registry.file),
      insecure,
      isMirror,
    });
    return [
      ...registry.mirrors
        .filter((mirror) => usesMirror(registry, mirror, isByDigest))
        .map((mirror) => rewritten(mirror, true)),
      rewritten(registry, false),
    ];
  }
}

function usesMirror(registry: Registry, mirror: Mirror, isByDigest: boolean): boolean {
  if (registry.mirrorByDigestOnly || mirror.pullFrom === 'digest-only') return isByDigest;
  return mirror.pullFrom === 'all' || !isByDigest;
}

/**
 * How many characters of `name` the prefix covers, -1 when it does not match; it ends only at a boundary of the name.
 */
function matchPrefix(name: string, prefix: string): number {
  if (prefix.startsWith('*.')) {
    const host = name.slice(0, name.indexOf('/'));
    return host.endsWith(prefix.slice(1)) ? host.length : -1;
  }
  if (!name.startsWith(prefix)) return -1;
  const next = name[prefix.length];
  // After a bare host a colon would be its port, which makes it another host.
  const isBoundary = next === undefined || next === '/' || next === '@' || (next === ':' && prefix.includes('/'));
  return isBoundary ? prefix.length : -1;
}

function rewrite(name: string, matched: number, location: string, file: string): Reference {
  const rewritten = location + name.slice(matched);
  try {
    const reference = parseReference(rewritten);
    // A location without a dot or port would silently mean a namespace of docker.io.
    if (rewritten.startsWith(`${reference.domain}/`)) return reference;
  } catch {
    // Said below, with the file.
  }
  throw confError(file, `it turns ${name} into '${rewritten}', which is no image name`);
}

function dropIns(directory: string): string[] {
  if (!existsSync(directory)) return [];
  const names = readdirSync(directory).filter((name) => name.endsWith('.conf'));
  return names.toSorted().map((name) => join(directory, name));
}

function readFile(file: string): Registry[] {
  let document: Record<string, unknown>;
  try {
    document = parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw confError(file, (error as Error).message.split('\n')[0] ?? '', error);
  }
  const old = document['registries'];
  if (typeof old === 'object' && old !== null && ['search', 'insecure', 'block'].some((table) => table in old)) {
    throw confError(file, 'it is of version 1 ([registries.search]); version 2 has [[registry]] tables');
  }
  const tables = document['registry'] ?? [];
  if (!Array.isArray(tables)) throw confError(file, 'registry is not an array of tables: write [[registry]]');
  return tables.map((table: unknown) => readRegistry(table as Record<string, unknown>, file));
}

function readRegistry(table: Record<string, unknown>, file: string): Registry {
  const location = text(table, 'location', file);
  const prefix = text(table, 'prefix', file) || location;
  if (prefix === '') throw confError(file, 'a [[registry]] has neither prefix nor location');
  const mirrors = table['mirror'] ?? [];
  if (!Array.isArray(mirrors)) throw confError(file, 'mirror is not an array of tables: write [[registry.mirror]]');
  return {
    prefix,
    location: location === prefix ? '' : location,
    insecure: table['insecure'] === true,
    blocked: table['blocked'] === true,
    mirrorByDigestOnly: table['mirror-by-digest-only'] === true,
    mirrors: mirrors.map((mirror: unknown) => readMirror(mirror as Record<string, unknown>, file)),
    file,
  };
}

function readMirror(table: Record<string, unknown>, file: string): Mirror {
  const location = text(table, 'location', file);
  if (location === '') throw confError(file, 'a [[registry.mirror]] has no location');
  const pullFrom = text(table, 'pull-from-mirror', file) || 'all';
  if (pullFrom !== 'all' && pullFrom !== 'digest-only' && pullFrom !== 'tag-only') {
    throw confError(file, `pull-from-mirror is '${pullFrom}', not all, digest-only or tag-only`);
  }
  return { location, insecure: table['insecure'] === true, pullFrom };
}

function text(table: Record<string, unknown>, key: string, file: string): string {
  const value = table[key] ?? '';
  if (typeof value !== 'string') throw confError(file, `${key} is not a string`);
  return value.replace(/^https?:\/\//, '').replace(/\/+$/, '');
}

function confError(file: string, why: string, cause?: unknown): PgError {
  return new PgError('REGISTRIES_CONF_INVALID', `${file}: ${why}`, {
    hint: 'see containers-registries.conf(5)',
    ...(cause === undefined ? {} : { cause }),
  });
}
