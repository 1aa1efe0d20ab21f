import { PgError } from '../../mdm/error.ts';
import type { CopyEntry } from './entry.ts';
import { SafeDir } from './safe-dir.ts';
import { readTar, writeTar } from './tar.ts';
import { Extractor, type Ownership, walk } from './tree.ts';

/** A place that is copied from or to: a path (UTF-8, absolute) in a tree, which for the host's own files is `/`. */
export interface Place {
  rootPath: string;
  path: string;
}

/** A path taken apart as docker cp reads it. */
interface Target {
  /** The directory that the last part is in. */
  parent: string;
  /** The last part, latin1; empty for the root directory. */
  name: string;
  /** The path ends in `/.`: what is in the directory, not the directory. */
  contentsOnly: boolean;
  /** The path ends in a slash: it must be a directory. */
  asDirectory: boolean;
}

function takeApart(path: string): Target {
  const contentsOnly = /(^|\/)\.$/.test(path);
  const asDirectory = path.endsWith('/') || contentsOnly;
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  const name = Buffer.from(parts.pop() ?? '', 'utf8').toString('latin1');
  return { parent: `/${parts.join('/')}`, name, contentsOnly, asDirectory };
}

/** As many as the kernel follows (path_resolution(7)). */
const LINKS_MAX = 40;

const code = (error: unknown): string => (error as NodeJS.ErrnoException).code ?? '';

async function openDirectory(place: Place, path: string): Promise<SafeDir | undefined> {
  try {
    return await SafeDir.open(place.rootPath, path);
  } catch (error) {
    if (code(error) === 'ENOENT' || code(error) === 'ENOTDIR') return undefined;
    throw error;
  }
}

/** Where a path leads when symlinks that it ends in are followed, inside its tree. PgError('NO_SUCH_FILE') when they go round in circles. */
async function endOfLinks(place: Place): Promise<string> {
  let { path } = place;
  for (let links = 0; links < LINKS_MAX; links++) {
    const { parent, name } = takeApart(path);
    const dir = await openDirectory(place, parent);
    try {
      if (dir?.lstat(name)?.isSymbolicLink() !== true) return path;
      const target = Buffer.from(dir.readlink(name), 'latin1').toString('utf8');
      path = target.startsWith('/') ? target : `${parent}/${target}`;
    } finally {
      dir?.close();
    }
  }
  throw new PgError('NO_SUCH_FILE', `too many levels of symbolic links: ${place.path}`);
}

/** The entries of a source, named `as`, or (undefined) by their own name. PgError('NO_SUCH_FILE'). */
async function withSource<T>(
  place: Place,
  follow: boolean,
  action: (
    isDirectory: boolean,
    contentsOnly: boolean,
    name: string,
    entries: (as: string) => Iterable<CopyEntry>,
  ) => Promise<T>,
): Promise<T> {
  const { parent, name, contentsOnly, asDirectory } = takeApart(place.path);
  const found = follow ? takeApart(await endOfLinks(place)) : { parent, name };
  // Everything that is a directory in the end can be opened as one: the root, what a followed link leads to, what ends in a slash.
  const opened =
    asDirectory || follow || name === '' || name === '..' ? await openDirectory(place, place.path) : undefined;
  if (opened !== undefined) {
    try {
      return await action(true, contentsOnly, name === '..' ? '' : name, (as) => walk(opened, '.', as));
    } finally {
      opened.close();
    }
  }
  const dir = await openDirectory(place, found.parent);
  try {
    const stat = dir?.lstat(found.name);
    if (dir === undefined || stat === undefined || (asDirectory && !stat.isDirectory())) {
      throw new PgError('NO_SUCH_FILE', `Could not find the file ${place.path}`);
    }
    return await action(stat.isDirectory(), contentsOnly, name, (as) => walk(dir, found.name, as));
  } finally {
    dir?.close();
  }
}

/**
 * Copies a file or directory by the rules of `docker cp`: into an existing directory under its own name, or under the destination's name when
 * that is not there; `SRC/.` copies what is in the directory. `follow` follows a symlink that the source itself is.
 * PgError('NO_SUCH_FILE' | 'BAD_USAGE').
 */
export async function copyBetween(from: Place, to: Place, ownership: Ownership, follow: boolean): Promise<void> {
  await withSource(from, follow, async (isDirectory, contentsOnly, name, found) => {
    const entries = (as: string): Iterable<CopyEntry> =>
      to.rootPath === '/' && ownership !== 'keep' ? harmless(found(as)) : found(as);
    const target = takeApart(to.path);
    const existing = await openDirectory(to, to.path);
    if (existing !== undefined) {
      const as = contentsOnly && isDirectory ? '' : name;
      return extractInto(existing, entries(as), ownership);
    }
    const parent = await openDirectory(to, target.parent);
    if (parent === undefined) throw new PgError('NO_SUCH_FILE', `no such directory: ${target.parent}`);
    const there = parent.lstat(target.name);
    if (target.asDirectory && !isDirectory) {
      parent.close();
      throw new PgError('NO_SUCH_FILE', `no such directory: ${to.path}`);
    }
    if (there !== undefined && isDirectory) {
      parent.close();
      throw new PgError('BAD_USAGE', `cannot copy directory: ${to.path} is a file`);
    }
    return extractInto(parent, entries(target.name), ownership);
  });
}

/** As entries of somebody who gets no rights by them: devices are refused, set-id bits are left out. PgError('BAD_USAGE'). */
function* harmless(entries: Iterable<CopyEntry>): Iterable<CopyEntry> {
  for (const entry of entries) {
    if (entry.kind === 'char' || entry.kind === 'block') {
      throw new PgError('BAD_USAGE', `${JSON.stringify(entry.path)} is a device`, {
        hint: 'pg cp -a copies devices, too',
      });
    }
    yield entry.kind === 'file' ? { ...entry, mode: entry.mode & 0o1777 } : entry;
  }
}

async function extractInto(
  dir: SafeDir,
  entries: Iterable<CopyEntry> | AsyncIterable<CopyEntry>,
  ownership: Ownership,
): Promise<void> {
  try {
    const extractor = new Extractor(dir, ownership);
    for await (const entry of entries) await extractor.extract(entry);
    await extractor.finish();
  } finally {
    dir.close();
  }
}

/** Unpacks a tar into an existing directory. PgError('NO_SUCH_FILE' | 'BAD_ARCHIVE' | 'TAR_...'). */
export async function unpackTo(to: Place, tar: AsyncIterable<Uint8Array>, ownership: Ownership): Promise<void> {
  const dir = await openDirectory(to, to.path);
  if (dir === undefined) throw new PgError('NO_SUCH_FILE', `no such directory: ${to.path}`);
  await extractInto(dir, readTar(tar), ownership);
}

/** Hands a tar of a file or directory to `write`, piece by piece. PgError('NO_SUCH_FILE'). */
export async function packFrom(
  from: Place,
  follow: boolean,
  write: (piece: Uint8Array) => Promise<void>,
): Promise<void> {
  await withSource(from, follow, async (_isDirectory, contentsOnly, name, entries) => {
    for await (const piece of writeTar(entries(contentsOnly || name === '' ? '.' : name))) await write(piece);
  });
}
