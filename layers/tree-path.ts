import { PgError } from '../mdm/error.ts';
import type { LowerInode, Tree } from './tree.ts';
import { S_IFDIR, S_IFLNK, S_IFMT } from './trie.ts';

/** As Linux has it (path_resolution(7)). */
const MAX_SYMLINKS = 40;

/** An inode of a tree, and the path by which it was found: from the root, with no symlink but perhaps the last name. Latin1, as all names. */
export interface Found {
  path: string;
  ino: number;
  inode: LowerInode;
}

export const isDirectoryMode = (mode: number): boolean => (mode & S_IFMT) === S_IFDIR;
const isSymlinkMode = (mode: number): boolean => (mode & S_IFMT) === S_IFLNK;

const namesOf = (path: string): string[] => path.split('/').filter((name) => name !== '' && name !== '.');

/**
 * What `path` (latin1, from the root whether or not it starts with `/`) leads to. Symlinks on the way are followed, and never out of the
 * tree: `..` of the root is the root. The last one is followed with `follow`. `where` is what the tree is, for messages. PgError PATH_NOT_FOUND, NOT_A_DIRECTORY, SYMLINK_LOOP.
 */
export function resolveTreePath(tree: Tree, path: string, follow = true, where = 'image'): Found {
  const shown = `/${namesOf(path).join('/')}`;
  const mustBeDirectory = /\/\.?$/.test(path);
  const trail: Found[] = [{ path: '/', ino: 1, inode: tree.get(1)! }];
  const todo = namesOf(path).toReversed();
  for (let symlinks = 0; todo.length > 0;) {
    const name = todo.pop()!;
    const here = trail.at(-1)!;
    if (name === '..') {
      if (trail.length > 1) trail.pop();
      continue;
    }
    if (!isDirectoryMode(here.inode.mode)) throw notADirectory(shown, here.path);
    const ino = tree.lookup(here.ino, name);
    const inode = ino === undefined ? undefined : tree.get(ino);
    if (ino === undefined || inode === undefined) throw notFound(shown, joinPath(here.path, name), where);
    if (isSymlinkMode(inode.mode) && (follow || mustBeDirectory || todo.length > 0)) {
      if (++symlinks > MAX_SYMLINKS)
        throw new PgError('SYMLINK_LOOP', `${print(shown)}: too many symlinks on the way`, {
          hint: 'pg ls -l of the directories on the way shows where they lead',
        });
      const target = Buffer.from(inode.symlink!).toString('latin1');
      if (target.startsWith('/')) trail.length = 1;
      todo.push(...namesOf(target).toReversed());
      continue;
    }
    trail.push({ path: joinPath(here.path, name), ino, inode });
  }
  const found = trail.at(-1)!;
  if (mustBeDirectory && !isDirectoryMode(found.inode.mode)) throw notADirectory(shown, found.path);
  return found;
}

/** The entries of a directory, in byte order of their names. Nothing for what is no directory. */
export function* entriesOf(tree: Tree, directory: Found): Generator<Found & { name: string }> {
  for (let i = 0; ; i++) {
    const entry = tree.entryAt(directory.ino, i);
    if (entry === undefined) return;
    const { name, ino } = entry;
    yield { name, path: joinPath(directory.path, name), ino, inode: tree.get(ino)! };
  }
}

/** `top` and everything below it, a directory before what is in it, in byte order. Symlinks are not followed. */
export function* walkTree(tree: Tree, top: Found): Generator<Found> {
  const waiting: Iterator<Found>[] = [[top][Symbol.iterator]()];
  while (waiting.length > 0) {
    const { value, done } = waiting.at(-1)!.next();
    if (done === true) {
      waiting.pop();
      continue;
    }
    yield value;
    if (isDirectoryMode(value.inode.mode)) waiting.push(entriesOf(tree, value));
  }
}

export const joinPath = (directory: string, name: string): string =>
  directory === '/' ? `/${name}` : `${directory}/${name}`;

/** A latin1 path as a message shows it: as UTF-8. */
const print = (path: string): string => Buffer.from(path, 'latin1').toString('utf8');

function notFound(asked: string, missing: string, where: string): PgError {
  const more = asked === missing ? '' : `: there is no ${print(missing)}`;
  return new PgError('PATH_NOT_FOUND', `${print(asked)} is not in the ${where}${more}`, {
    hint: 'pg ls and pg find show what is',
  });
}

function notADirectory(asked: string, at: string): PgError {
  return new PgError('NOT_A_DIRECTORY', `${print(asked)}: ${print(at)} is not a directory`, {
    hint: 'leave out what follows it',
  });
}
