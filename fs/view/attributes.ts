import { ACCESS_ACL, DEFAULT_ACL, parseAcl } from './acl.ts';
import { withoutSuid } from './apply.ts';
import * as E from './entries.ts';
import { FsError, NO_DATA } from './error.ts';
import type { Journal } from './journal.ts';
import { isDirectory, isRegular, Node, PERMISSIONS } from './node.ts';
import type { State } from './state.ts';
import { type SetAttr, XATTR_CREATE, XATTR_REPLACE } from './view.ts';

/** Attributes and extended attributes: checks, then one entry each. */

const MAX_SIZE = Number.MAX_SAFE_INTEGER - 4095;
const XATTR_NAME_MAX = 255;
const XATTR_VALUE_MAX = 65_536;
const NAMESPACES = ['user.', 'trusted.', 'security.'];
/** What a relatime mount lets an access time age. */
const DAY_SEC = 86_400;

/** See View.setattr. */
export function setattr(state: State, journal: Journal, ino: number, changes: SetAttr): void {
  const found = state.peek(ino);
  if (changes.size !== undefined) checkSize(found.mode, changes.size);
  const mode = newMode(found.mode, changes);
  const mask =
    (mode === undefined ? 0 : E.SET_MODE) |
    (changes.uid === undefined ? 0 : E.SET_UID) |
    (changes.gid === undefined ? 0 : E.SET_GID) |
    (changes.size === undefined ? 0 : E.SET_SIZE) |
    timeMask(changes);
  if (mask === 0) return;
  const fields = journal.begin(E.SETATTR);
  fields.u64(ino);
  fields.u32(mask);
  if (mode !== undefined) fields.u32(mode);
  if (changes.uid !== undefined) fields.u32(changes.uid);
  if (changes.gid !== undefined) fields.u32(changes.gid);
  if (changes.size !== undefined) fields.u64(changes.size);
  if (mask & E.SET_ATIME) putTime(fields, changes.atimeSec, changes.atimeNsec);
  if (mask & E.SET_MTIME) putTime(fields, changes.mtimeSec, changes.mtimeNsec);
  if (mask & E.SET_CTIME) putTime(fields, changes.ctimeSec, changes.ctimeNsec);
  journal.append(undefined, changes.size !== undefined && changes.size < found.size);
}

function checkSize(mode: number, size: number): void {
  if (isDirectory(mode)) throw new FsError('EISDIR');
  if (!isRegular(mode)) throw new FsError('EINVAL');
  if (size < 0) throw new FsError('EINVAL');
  if (size > MAX_SIZE) throw new FsError('EFBIG');
}

/** The permission bits to set: the caller's, without setuid and setgid where a change of owner or contents takes them. */
function newMode(mode: number, changes: SetAttr): number | undefined {
  if (changes.mode !== undefined) return changes.mode & PERMISSIONS;
  const takes =
    changes.uid !== undefined || changes.gid !== undefined || (changes.size !== undefined && changes.killSuid);
  const left = withoutSuid(mode);
  return takes && left !== mode ? left & PERMISSIONS : undefined;
}

function timeMask(changes: SetAttr): number {
  const atime = changes.atimeNow ? E.SET_ATIME_NOW : changes.atimeSec === undefined ? 0 : E.SET_ATIME;
  const mtime = changes.mtimeNow ? E.SET_MTIME_NOW : changes.mtimeSec === undefined ? 0 : E.SET_MTIME;
  return atime | mtime | (changes.ctimeSec === undefined ? 0 : E.SET_CTIME);
}

function putTime(fields: E.FieldWriter, sec = 0, nsec = 0): void {
  fields.i64(sec);
  fields.u32(nsec);
}

/**
 * A read moves the access time as relatime does: when it is not later than the last change, or a day old. Only of inodes that are changed already:
 * reading a file of the image writes nothing.
 */
export function touchAtime(state: State, journal: Journal, ino: number): void {
  const node = state.node(ino);
  if (node === undefined || journal.log === null || journal.log.readOnly || node.nlink === 0) return;
  journal.tick();
  const { sec, nsec } = journal.entry;
  const isLater = (s: number, n: number): boolean => node.atimeSec > s || (node.atimeSec === s && node.atimeNsec > n);
  const isFresh = isLater(node.mtimeSec, node.mtimeNsec) && isLater(node.ctimeSec, node.ctimeNsec);
  if (isFresh && sec - node.atimeSec < DAY_SEC) return;
  if (node.atimeSec === sec && node.atimeNsec >= nsec) return;
  const fields = journal.begin(E.SETATTR);
  fields.u64(ino);
  fields.u32(E.SET_ATIME_NOW | E.KEEP_CTIME);
  journal.append();
}

/** See View.getxattr. */
export function getxattr(state: State, ino: number, name: string): Uint8Array {
  const value = state.peek(ino).xattrs?.get(name);
  if (value === undefined) throw NO_DATA;
  return value;
}

/** See View.setxattr. */
export function setxattr(
  state: State,
  journal: Journal,
  ino: number,
  name: string,
  value: Uint8Array,
  flags: number,
  killSgid: boolean,
): void {
  checkXattrName(name);
  if (value.length > XATTR_VALUE_MAX) throw new FsError('E2BIG');
  if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) !== 0) throw new FsError('EINVAL');
  const found = state.peek(ino);
  const exists = found.xattrs?.has(name) ?? false;
  if (flags & XATTR_CREATE && exists) throw new FsError('EEXIST');
  if (flags & XATTR_REPLACE && !exists) throw new FsError('ENODATA');
  if (name === DEFAULT_ACL || name === ACCESS_ACL) {
    const isEmpty = parseAcl(value).length === 0;
    if (name === DEFAULT_ACL && !isDirectory(found.mode)) {
      if (!isEmpty) throw new FsError('EACCES', 'a default ACL on a file');
      return;
    }
    if (isEmpty) return removexattr(state, journal, ino, name);
  }
  const fields = journal.begin(E.SETXATTR);
  fields.u64(ino);
  fields.u32(killSgid ? 1 : 0);
  fields.text(name);
  journal.append(value);
}

/** See View.removexattr: an ACL that is not there may be removed. */
export function removexattr(state: State, journal: Journal, ino: number, name: string): void {
  checkXattrName(name);
  if (!(state.peek(ino).xattrs?.has(name) ?? false)) {
    if (name === ACCESS_ACL || name === DEFAULT_ACL) return;
    throw new FsError('ENODATA');
  }
  const fields = journal.begin(E.REMOVEXATTR);
  fields.u64(ino);
  fields.text(name);
  journal.append(undefined, true);
}

function checkXattrName(name: string): void {
  if (name.length > XATTR_NAME_MAX || name === '') throw new FsError('ERANGE');
  if (name === ACCESS_ACL || name === DEFAULT_ACL) return;
  if (NAMESPACES.includes(name)) throw new FsError('EINVAL', 'no name behind the namespace');
  if (!NAMESPACES.some((prefix) => name.startsWith(prefix))) throw new FsError('EOPNOTSUPP');
}

export function listxattr(state: State, ino: number): string[] {
  const found = state.peek(ino);
  return found.xattrs === undefined ? [] : [...found.xattrs.keys()];
}

export function readlink(state: State, ino: number): Uint8Array {
  const found = state.peek(ino);
  if (found.symlink === undefined)
    throw new FsError(found instanceof Node && isDirectory(found.mode) ? 'EISDIR' : 'EINVAL');
  return found.symlink;
}
