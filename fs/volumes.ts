import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { hex32, nullable, oneOf, shaped, text } from '../store/shape.ts';

/** A named writable layer that belongs to no container: `<data>/mounts/<name>/mount.json`, and its log beside it. */
export interface Volume {
  formatVersion: 1;
  name: string;
  /** What it was made from, as it was asked for. */
  image: string;
  /** Root of that image's trie, hex; null is the empty image. */
  treeRoot: string | null;
  createdAt: string;
}

const volumesDir = (roots: Roots): string => join(roots.data, 'mounts');

/** Directory of a volume's log. */
export const volumeLogDir = (roots: Roots, name: string): string => join(volumesDir(roots), name, 'log');

const VOLUME = shaped({ formatVersion: oneOf(1), name: text, image: text, treeRoot: nullable(hex32), createdAt: text });

/** Locked as long as it is mounted to be written. */
export const volumeLockPath = (roots: Roots, name: string): string => join(volumesDir(roots), name, 'lock');

/** Names are those that Docker accepts for volumes. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** The volume of this name, or undefined. PgError('BAD_RECORD') when a newer program made it. */
export function findVolume(roots: Roots, name: string): Volume | undefined {
  if (!NAME.test(name)) return undefined;
  const path = join(volumesDir(roots), name, 'mount.json');
  let json: string;
  try {
    json = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  let volume: Volume;
  try {
    volume = JSON.parse(json) as Volume;
  } catch {
    throw new PgError('BAD_RECORD', `${path} is damaged: it is not JSON`, { hint: 'take it from a backup' });
  }
  if (Number.isSafeInteger(volume?.formatVersion) && volume.formatVersion !== 1) {
    throw new PgError('BAD_RECORD', `${path} has format ${String(volume.formatVersion)}, this program reads 1`, {
      hint: 'use the pg that made it, or a newer one',
    });
  }
  const damage = VOLUME(volume);
  if (damage !== undefined) {
    const what = damage === '' ? 'it' : damage.slice(1);
    throw new PgError('BAD_RECORD', `${path} is damaged: ${what} is not what it must be`, {
      hint: 'take it from a backup',
    });
  }
  return volume;
}

/** Names of all volumes. */
export function volumeNames(roots: Roots): string[] {
  try {
    return readdirSync(volumesDir(roots)).filter((name) => NAME.test(name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Makes a volume over an image; of two calls at once one gets the name. PgError('BAD_NAME' | 'NAME_TAKEN'). */
export function createVolume(roots: Roots, name: string, image: string, treeRoot: Uint8Array | null): Volume {
  if (!NAME.test(name)) {
    throw new PgError('BAD_NAME', `"${name}" cannot be the name of a volume`, {
      hint: 'use a-z A-Z 0-9 _ . -, the first a letter or digit',
    });
  }
  const volume: Volume = {
    formatVersion: 1,
    name,
    image,
    treeRoot: treeRoot === null ? null : Buffer.from(treeRoot).toString('hex'),
    createdAt: new Date().toISOString(),
  };
  const temporary = join(volumesDir(roots), `.${name}.${process.pid}`);
  mkdirSync(temporary, { recursive: true, mode: 0o700 });
  writeFileSync(join(temporary, 'mount.json'), `${JSON.stringify(volume, null, 2)}\n`, { flush: true });
  try {
    renameSync(temporary, join(volumesDir(roots), name));
  } catch (error) {
    rmSync(temporary, { recursive: true });
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
    throw new PgError('NAME_TAKEN', `there is a volume "${name}" already`, {
      hint: `mount it: pg mount --rw ${name} DIR`,
    });
  }
  return volume;
}
