import { Directory } from './directory.ts';
import * as E from './entries.ts';
import { FsError, NO_ENTRY } from './error.ts';
import type { Journal } from './journal.ts';
import { isDirectory, Node, S_IFDIR, S_IFMT, S_ISGID } from './node.ts';
import { DEFAULT_ACL } from './acl.ts';
import type { State } from './state.ts';
import { type Caller, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT } from './view.ts';

/** Names and what they mean: the operations of View that change directories. Each checks, then appends one entry. */

const NAME_MAX = 255;
const LINK_MAX = 65_000;

export function checkName(name: string): void {
  if (name.length > NAME_MAX) throw new FsError('ENAMETOOLONG');
  if (name === '') throw new FsError('ENOENT', 'empty name');
  if (name === '.' || name === '..' || name.includes('/') || name.includes('\0')) throw new FsError('EINVAL', 'name');
}

/** FsError ENOTDIR, ENOENT for a directory that was removed. */
function checkParent(state: State, parent: number): void {
  const found = state.peek(parent);
  if (!isDirectory(found.mode)) throw new FsError('ENOTDIR');
  if (found.nlink === 0) throw new FsError('ENOENT', 'removed directory');
}

/** The inode that the name means. FsError ENOENT, ENOTDIR, ENAMETOOLONG. */
export function resolve(state: State, parent: number, name: string): number {
  const found = state.peek(parent);
  // Of any inode: so the kernel asks for the one that a file handle names (open_by_handle_at(2)).
  if (name === '.') return parent;
  if (!isDirectory(found.mode)) throw new FsError('ENOTDIR');
  if (name === '..') return state.parentOf(parent);
  if (name.length > NAME_MAX) throw new FsError('ENAMETOOLONG');
  const ino = state.lookup(parent, name);
  if (ino === undefined) throw NO_ENTRY;
  return ino;
}

/** Makes an inode and, unless `name` is '' (O_TMPFILE), a name for it. Returns its number. */
export function create(
  state: State,
  journal: Journal,
  parent: number,
  name: string,
  mode: number,
  rdev: number,
  caller: Caller,
  target?: Uint8Array,
): number {
  if (name !== '') checkName(name);
  checkParent(state, parent);
  if (name !== '' && state.lookup(parent, name) !== undefined) throw new FsError('EEXIST');
  const above = state.peek(parent);
  const type = (mode & S_IFMT) as number;
  const hasDefaultAcl = above.xattrs?.has(DEFAULT_ACL) ?? false;
  let finalMode = target === undefined && !hasDefaultAcl && caller.umask !== undefined ? mode & ~caller.umask : mode;
  const inheritsGroup = (above.mode & S_ISGID) !== 0;
  if (inheritsGroup && type === S_IFDIR) finalMode |= S_ISGID;
  const ino = state.nextIno;
  const fields = journal.begin(E.CREATE);
  fields.u64(parent);
  fields.u64(ino);
  fields.u32(finalMode);
  fields.u32(caller.uid);
  fields.u32(inheritsGroup ? above.gid : caller.gid);
  fields.u32(rdev);
  fields.text(name);
  journal.entry.result = ino;
  journal.append(target);
  return ino;
}

export function link(state: State, journal: Journal, ino: number, parent: number, name: string): void {
  checkName(name);
  checkParent(state, parent);
  const node = state.peek(ino);
  if (isDirectory(node.mode)) throw new FsError('EPERM', 'a directory has one name');
  if (node.nlink >= LINK_MAX) throw new FsError('EMLINK');
  if (state.lookup(parent, name) !== undefined) throw new FsError('EEXIST');
  const fields = journal.begin(E.LINK);
  fields.u64(ino);
  fields.u64(parent);
  fields.text(name);
  journal.append();
}

/** unlink(2) and, with `directory`, rmdir(2). */
export function unlink(state: State, journal: Journal, parent: number, name: string, directory: boolean): void {
  if (directory && name === '.') throw new FsError('EINVAL');
  if (directory && name === '..') throw new FsError('ENOTEMPTY');
  checkName(name);
  const ino = resolve(state, parent, name);
  const isDir = isDirectory(state.peek(ino).mode);
  if (directory && !isDir) throw new FsError('ENOTDIR');
  if (!directory && isDir) throw new FsError('EISDIR');
  if (directory && state.entryCount(ino) > 0) throw new FsError('ENOTEMPTY');
  const fields = journal.begin(E.UNLINK);
  fields.u64(parent);
  fields.text(name);
  journal.append(undefined, true);
}

export function rename(
  state: State,
  journal: Journal,
  parent: number,
  name: string,
  newParent: number,
  newName: string,
  flags: number,
): void {
  const known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
  if ((flags & ~known) !== 0) throw new FsError('EINVAL', 'rename flags');
  if (flags & RENAME_EXCHANGE && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))
    throw new FsError('EINVAL', 'rename flags');
  checkName(name);
  checkName(newName);
  const ino = resolve(state, parent, name);
  checkParent(state, newParent);
  const target = state.lookup(newParent, newName);
  if (target === undefined && flags & RENAME_EXCHANGE) throw new FsError('ENOENT');
  if (target !== undefined && flags & RENAME_NOREPLACE) throw new FsError('EEXIST');
  if (target === ino) return;
  checkMove(state, ino, newParent);
  if (target !== undefined && flags & RENAME_EXCHANGE) checkMove(state, target, parent);
  else if (target !== undefined) checkReplace(state, ino, target, parent);
  const fields = journal.begin(E.RENAME);
  fields.u64(parent);
  fields.u64(newParent);
  fields.u64(flags & RENAME_WHITEOUT ? state.nextIno : 0);
  fields.u32(flags);
  fields.u16(name.length);
  fields.text(name);
  fields.text(newName);
  journal.append();
}

/** A directory does not move into itself or below. */
function checkMove(state: State, ino: number, newParent: number): void {
  if (!isDirectory(state.peek(ino).mode)) return;
  if (isAbove(state, ino, newParent)) throw new FsError('EINVAL', 'a directory into itself');
}

function checkReplace(state: State, ino: number, target: number, parent: number): void {
  const moves = isDirectory(state.peek(ino).mode);
  if (!isDirectory(state.peek(target).mode)) {
    if (moves) throw new FsError('ENOTDIR');
    return;
  }
  if (isAbove(state, target, parent)) throw new FsError('ENOTEMPTY');
  if (!moves) throw new FsError('EISDIR');
  if (state.entryCount(target) > 0) throw new FsError('ENOTEMPTY');
}

/** Whether `upper` is `dir` or one of the directories above it. */
function isAbove(state: State, upper: number, dir: number): boolean {
  for (let at = dir; ; at = state.parentOf(at)) {
    if (at === upper) return true;
    if (at === 1) return false;
  }
}

/** readdir: see View. */
export function list(
  state: State,
  ino: number,
  cookie: number,
  emit: (name: string, ino: number, mode: number, nextCookie: number) => boolean,
): void {
  const found = state.peek(ino);
  if (!isDirectory(found.mode)) throw new FsError('ENOTDIR');
  if (found.nlink === 0) return;
  const dir = found instanceof Node ? state.directory(found) : new Directory(ino, found.children ?? 0);
  dir.list(state.tree, ino, state.parentOf(ino), cookie, (name, child, mode, next) =>
    emit(name, child, mode === 0 ? state.peek(child).mode : mode, next),
  );
}
