import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { UNPACK_LIMIT } from '../layers/transport/unpack-limit.ts';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';

/** What one unit of each of SIP1's resources costs, in money units: accesses, bytes read, bytes written, compute. What is left out costs nothing. */
export interface Prices {
  accesses: number;
  read: number;
  written: number;
  compute: number;
}

/** `<config>/config.toml` (docs/config.md). */
export interface Settings {
  /** The OCI runtime where `--runtime` says nothing. */
  runtime: 'runc' | 'crun';
  /** How much history of new containers is kept, as --retain takes it; null where nothing is said. */
  retain: string | null;
  /** null when no price is configured. */
  prices: Prices | null;
  /** What `pg import` does so that compressed blobs can be exported and pushed as they came. */
  keepBlobs: 'none' | 'rebuild' | 'keep';
  /** How far a compressed layer or archive may unpack (layers/transport/unpack-limit.ts). */
  unpack: { freeBytes: number; ratio: number };
  /** When sectors are compressed: by the housekeeper and `pg gc`, while they are imported, or never. */
  compress: 'idle' | 'fast' | 'off';
  /** Whether the store is tidied up in the background. */
  housekeeping: boolean;
}

const RESOURCES = ['accesses', 'read', 'written', 'compute'] as const;

export const settingsPath = (roots: Roots): string => join(roots.config, 'config.toml');

/** The settings of this installation; without a file, the defaults. PgError('BAD_CONFIG') names the file and what is wrong in it. */
export async function readSettings(roots: Roots): Promise<Settings> {
  const path = settingsPath(roots);
  const settings: Settings = {
    runtime: 'runc',
    prices: null,
    retain: null,
    keepBlobs: 'keep',
    unpack: { ...UNPACK_LIMIT },
    compress: 'idle',
    housekeeping: true,
  };
  if (!existsSync(path)) return settings;
  // Loaded only here: most installations have no such file, and every `pg run` comes by.
  const { parse } = await import('smol-toml');
  const bad = (what: string): PgError => new PgError('BAD_CONFIG', `${path}: ${what}`, { hint: 'see docs/config.md' });
  let file: Record<string, unknown>;
  try {
    file = parse(readFileSync(path, 'utf8'));
  } catch (cause) {
    throw bad((cause as Error).message.trim());
  }
  for (const [key, value] of Object.entries(file)) {
    if (key === 'runtime') {
      if (value !== 'runc' && value !== 'crun') throw bad("runtime is 'runc' or 'crun'");
      settings.runtime = value;
    } else if (key === 'keep_blobs') {
      if (value !== 'none' && value !== 'rebuild' && value !== 'keep')
        throw bad("keep_blobs is 'none', 'rebuild' or 'keep'");
      settings.keepBlobs = value;
    } else if (key === 'unpack') settings.unpack = unpackOf(value, bad);
    else if (key === 'compress') {
      if (value !== 'idle' && value !== 'fast' && value !== 'off') throw bad("compress is 'idle', 'fast' or 'off'");
      settings.compress = value;
    } else if (key === 'housekeeping') {
      if (value !== 'auto' && value !== 'off') throw bad("housekeeping is 'auto' or 'off'");
      settings.housekeeping = value === 'auto';
    } else if (key === 'retain') {
      if (typeof value !== 'string') throw bad("retain is a text such as '7d' or '1g'");
      settings.retain = value;
    } else if (key === 'prices') settings.prices = pricesOf(value, bad);
    else throw bad(`there is no setting '${key}'`);
  }
  return settings;
}

function unpackOf(value: unknown, bad: (what: string) => PgError): Settings['unpack'] {
  const unpack = { ...UNPACK_LIMIT };
  if (typeof value !== 'object' || value === null) throw bad('unpack is a table');
  for (const [key, number] of Object.entries(value)) {
    if (key !== 'free' && key !== 'ratio') throw bad(`unpack has free and ratio, not '${key}'`);
    if (typeof number !== 'number' || !(number >= 0)) throw bad(`unpack.${key} is a number, 0 or more`);
    unpack[key === 'free' ? 'freeBytes' : 'ratio'] = number;
  }
  return unpack;
}

function pricesOf(value: unknown, bad: (what: string) => PgError): Prices {
  const prices: Prices = { accesses: 0, read: 0, written: 0, compute: 0 };
  if (typeof value !== 'object' || value === null) throw bad('prices is a table');
  for (const [key, price] of Object.entries(value)) {
    const resource = RESOURCES.find((name) => name === key);
    if (resource === undefined) throw bad(`prices are of ${RESOURCES.join(', ')}, not of '${key}'`);
    if (typeof price !== 'number' || !(price >= 0)) throw bad(`the price of ${key} is a number, 0 or more`);
    prices[resource] = price;
  }
  return prices;
}
