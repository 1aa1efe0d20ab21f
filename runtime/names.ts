import { randomBytes, randomInt } from 'node:crypto';
import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isPgError, PgError } from '../mdm/error.ts';
import { containersDir, type Roots } from '../store/paths.ts';
import { readJson } from './json-file.ts';
import { startTicksOf } from './migrate-state.ts';
import { noSuchContainer, recordPath, type ContainerRecord } from './record.ts';

const ADJECTIVES =
  'agile amber bold brave bright brisk calm clever cosmic crisp daring eager early fair fleet fond gentle glad golden hardy honest humble jolly keen kind lively loyal lucid lucky mellow merry mighty modest neat nimble noble patient placid polite proud quick quiet radiant ready rustic serene sharp silent sincere sleek smart snug solid steady stoic sunny swift tidy trusty upbeat vivid warm wise witty zesty';
const NOUNS =
  'albatross alder anchor aspen atlas badger basalt beacon beaver birch bison bridge canyon cedar cobalt comet condor coral cypress delta dolphin ember falcon fern fjord forge garnet gecko glacier granite grove harbor hazel heron ibis iris jasper juniper kestrel lagoon lantern lark lichen lynx maple marlin meadow merlin meteor nebula oak onyx orchid osprey otter pebble pelican pine plover prairie quartz raven reef ridge robin saffron sextant sparrow spruce summit thicket thistle tiger tulip walnut willow wren zephyr';

function pick(words: string): string {
  const list = words.split(' ');
  return list[randomInt(list.length)]!;
}

/** A random name of docker's form, `swift_heron`; `attempt` > 0 adds a number, for when many are taken. */
export function randomName(attempt = 0): string {
  return `${pick(ADJECTIVES)}_${pick(NOUNS)}${attempt > 0 ? randomInt(1000) : ''}`;
}

/** 64 hex digits; never all decimal in the first twelve, so that a short id is not taken for a number. */
export function newId(): string {
  for (;;) {
    const id = randomBytes(32).toString('hex');
    if (!/^\d+$/.test(id.slice(0, 12))) return id;
  }
}

export const shortId = (id: string): string => id.slice(0, 12);

/** PgError('BAD_NAME') unless docker would accept the name. */
export function checkName(name: string): void {
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]+$/.test(name) && name.length <= 200) return;
  throw new PgError('BAD_NAME', `Invalid container name (${name})`, {
    hint: 'at least two characters of a-z A-Z 0-9 _ . -, the first a letter or digit',
  });
}

const namesDir = (roots: Roots): string => join(roots.data, 'names');
const namePath = (roots: Roots, name: string): string => join(namesDir(roots), name);

/** The container that has claimed a name. A claim torn by a power cut is that of the container whose record has the name. */
function ownerOf(roots: Roots, name: string): string | undefined {
  let claim: string;
  try {
    claim = readFileSync(namePath(roots, name), 'utf8');
  } catch {
    return undefined;
  }
  const id = claim.split(' ')[0]!;
  return isId(id) ? id : containerIds(roots).find((other) => isNamed(roots, other, name));
}

const isId = (text: string): boolean => /^[0-9a-f]{64}$/.test(text);

/**
 * Claims a name for a container: a file that appears whole (link(2)) or not at all, so of two commands at once one gets it.
 * False when it is taken. A claim whose container never came to be (its command was killed) is taken over.
 */
export async function claimName(roots: Roots, name: string, id: string): Promise<boolean> {
  mkdirSync(namesDir(roots), { recursive: true, mode: 0o700 });
  const temporary = join(namesDir(roots), `.${id}.${process.pid}`);
  writeFileSync(temporary, `${id} ${process.pid} ${startTicksOf(process.pid)}`);
  try {
    for (;;) {
      try {
        linkSync(temporary, namePath(roots, name));
        return true;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
      if (ownerOf(roots, name) === id) return true;
      if (!(await dropDeadClaim(roots, name))) return false;
    }
  } finally {
    unlinkSync(temporary);
  }
}

/** The names that a container has claimed: its own, and one of a rename under way. */
export function namesOf(roots: Roots, id: string): string[] {
  return readdirSync(namesDir(roots)).filter((name) => !name.startsWith('.') && ownerOf(roots, name) === id);
}

/** Gives a name up if it is this container's. */
export async function releaseName(roots: Roots, name: string, id: string): Promise<void> {
  await underNamesLock(roots, () => {
    if (ownerOf(roots, name) === id) unlinkSync(namePath(roots, name));
  });
}

/** Removes a claim that no container stands behind and whose claimant is gone. True when the name may be free now. */
async function dropDeadClaim(roots: Roots, name: string): Promise<boolean> {
  return underNamesLock(roots, () => {
    let claim: string;
    try {
      claim = readFileSync(namePath(roots, name), 'utf8');
    } catch {
      return true;
    }
    const [, pid, startTicks] = claim.split(' ');
    const id = ownerOf(roots, name);
    if (id !== undefined && isNamed(roots, id, name)) return false;
    if (startTicks !== undefined && startTicksOf(Number(pid)) === startTicks) return false;
    unlinkSync(namePath(roots, name));
    return true;
  });
}

/** Whether a container has the name. One whose record cannot be read keeps what it has claimed. */
function isNamed(roots: Roots, id: string, name: string): boolean {
  try {
    return readJson<ContainerRecord>(recordPath(roots, id))?.name === name;
  } catch (error) {
    if (isPgError(error, 'BAD_RECORD')) return true;
    throw error;
  }
}

/** Only under this lock is a claim ever removed: else two commands that see the same dead claim could remove a living one. */
async function underNamesLock<T>(roots: Roots, action: () => T): Promise<T> {
  const { briefLock } = await import('./lock.ts');
  const lock = await briefLock(join(namesDir(roots), '.lock'));
  try {
    return action();
  } finally {
    lock.release();
  }
}

/** The ids of all containers, those half removed left out. */
export function containerIds(roots: Roots): string[] {
  try {
    return readdirSync(containersDir(roots)).filter(isId);
  } catch {
    return [];
  }
}

/**
 * The id of the container that `ref` means: its whole id, its name, or the beginning of its id.
 * PgError('NO_SUCH_CONTAINER'), or AMBIGUOUS_ID when several ids begin so.
 */
export function resolveContainer(roots: Roots, ref: string): string {
  const name = ref.startsWith('/') ? ref.slice(1) : ref;
  if (isId(name) && existsSync(recordPath(roots, name))) return name;
  if (/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) {
    const owner = ownerOf(roots, name);
    if (owner !== undefined && isNamed(roots, owner, name)) return owner;
  }
  if (!/^[0-9a-f]{1,64}$/.test(name)) throw noSuchContainer(ref);
  const matches = containerIds(roots).filter((id) => id.startsWith(name));
  if (matches.length > 1) {
    throw new PgError('AMBIGUOUS_ID', `Multiple containers found with provided prefix: ${ref}`, {
      hint: 'give more digits of the id, or the name',
    });
  }
  if (matches.length === 0) throw noSuchContainer(ref);
  return matches[0]!;
}
