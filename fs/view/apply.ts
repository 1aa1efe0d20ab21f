import assert from 'node:assert';
import type { Entry } from '../log/entry.ts';
import { ACCESS_ACL, chmodAcl, DEFAULT_ACL, inheritAcl, modeOfAcl } from './acl.ts';
import { Directory } from './directory.ts';
import * as E from './entries.ts';
import { logSource, ZEROS } from './run-source.ts';
import type { Extents } from './extents.ts';
import {
  BLOCK_BYTES,
  isDirectory,
  Node,
  PERMISSIONS,
  S_IFCHR,
  S_IFLNK,
  S_IFMT,
  S_ISGID,
  S_ISUID,
  S_IXGRP,
} from './node.ts';
import type { State } from './state.ts';
import { FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, RENAME_EXCHANGE, RENAME_WHITEOUT } from './view.ts';

const CAPABILITY = 'security.capability';

/** Changes the state as the entry says. The same for an entry just appended and for one that is replayed: nothing else changes the state. */
export function apply(state: State, entry: Entry, fields: E.FieldReader): void {
  fields.start(entry.bytes, entry.view, entry.fieldsStart, entry.fieldsEnd);
  state.work++;
  switch (entry.type) {
    case E.WRITE: {
      const node = state.materialize(fields.u64());
      applyWrite(state, node, fields.u64(), entry.payloadBytes, entry.payloadAt, 0, entry.payloadBytes, entry);
      if ((entry.flags & E.FLAG_KILL) !== 0) node.mode = withoutSuid(node.mode);
      return;
    }
    case E.SETATTR:
      return applySetattr(state, entry, fields);
    case E.CREATE:
      return applyCreate(state, entry, fields);
    case E.LINK:
      return applyLink(state, entry, fields);
    case E.UNLINK:
      return applyUnlink(state, entry, fields);
    case E.RENAME:
      return applyRename(state, entry, fields);
    case E.FALLOCATE:
      return applyFallocate(state, entry, fields);
    case E.COPY:
      return applyCopy(state, entry, fields);
    case E.SETXATTR:
      return applySetxattr(state, entry, fields);
    case E.REMOVEXATTR:
      return applyRemovexattr(state, entry, fields);
    case E.MOVE:
      return applyMove(state, entry, fields);
    case E.ROLLBACK:
      return state.rollBackTo(fields.u64());
    default:
      assert.fail(`entry type ${entry.type}`);
  }
}

/** setuid goes, and setgid where the group may execute (without that it means mandatory locking, not a group). */
export function withoutSuid(mode: number): number {
  if (isDirectory(mode)) return mode;
  return mode & ~S_ISUID & ((mode & S_IXGRP) !== 0 ? ~S_ISGID : ~0);
}

/** `length` bytes at `offset` of the file are now at `place` of the log, `delta` bytes into a payload of `payloadBytes`. */
export function applyWrite(
  state: State,
  node: Node,
  offset: number,
  length: number,
  place: number,
  delta: number,
  payloadBytes: number,
  time: { sec: number; nsec: number },
): void {
  state.extents(node).set(offset, length, place, logSource(delta, payloadBytes));
  modified(node, time);
  if (offset + length > node.size) node.size = offset + length;
}

/** The contents of a file changed: times, and the capabilities of a program are void. */
function modified(node: Node, time: { sec: number; nsec: number }): void {
  node.touch(time.sec, time.nsec);
  if (node.xattrs !== undefined) node.xattrs.delete(CAPABILITY);
}

function applySetattr(state: State, entry: Entry, fields: E.FieldReader): void {
  const node = state.materialize(fields.u64());
  const mask = fields.u32();
  if (mask & E.SET_MODE) setMode(node, fields.u32());
  if (mask & E.SET_UID) node.uid = fields.u32();
  if (mask & E.SET_GID) node.gid = fields.u32();
  if (mask & (E.SET_UID | E.SET_GID)) node.xattrs?.delete(CAPABILITY);
  if ((mask & E.KEEP_CTIME) === 0) node.touchCtime(entry.sec, entry.nsec);
  if (mask & E.SET_SIZE) {
    const size = fields.u64();
    if (size <= node.size || node.extents === undefined) state.extents(node).truncate(size);
    node.size = size;
    modified(node, entry);
  }
  if (mask & E.SET_ATIME) {
    node.atimeSec = fields.i64();
    node.atimeNsec = fields.u32();
  }
  if (mask & E.SET_MTIME) {
    node.mtimeSec = fields.i64();
    node.mtimeNsec = fields.u32();
  }
  if (mask & E.SET_CTIME) {
    node.ctimeSec = fields.i64();
    node.ctimeNsec = fields.u32();
  }
  if (mask & E.SET_ATIME_NOW) {
    node.atimeSec = entry.sec;
    node.atimeNsec = entry.nsec;
  }
  if (mask & E.SET_MTIME_NOW) {
    node.mtimeSec = entry.sec;
    node.mtimeNsec = entry.nsec;
  }
}

/** chmod: the type bits stay, and an access ACL follows. */
function setMode(node: Node, mode: number): void {
  node.mode = (node.mode & S_IFMT) | (mode & PERMISSIONS);
  const acl = node.xattrs?.get(ACCESS_ACL);
  if (acl !== undefined) node.xattrs!.set(ACCESS_ACL, chmodAcl(acl, mode));
}

function applyCreate(state: State, entry: Entry, fields: E.FieldReader): void {
  const parent = state.materialize(fields.u64());
  const ino = fields.u64();
  const mode = fields.u32();
  const uid = fields.u32();
  const gid = fields.u32();
  const rdev = fields.u32();
  const name = fields.text();
  const directory = isDirectory(mode);
  const node = new Node(ino, mode, directory ? 2 : 1, uid, gid, rdev, entry.sec, entry.nsec);
  const isSymlink = (mode & S_IFMT) === S_IFLNK;
  if (isSymlink) {
    node.symlink = payloadOf(entry);
    node.size = node.symlink.length;
  }
  if (directory) {
    node.dir = new Directory(0, 0);
    node.parent = parent.ino;
  }
  const defaultAcl = isSymlink ? undefined : parent.xattrs?.get(DEFAULT_ACL);
  if (defaultAcl !== undefined) inherit(node, defaultAcl);
  state.add(node);
  if (name === '') {
    node.nlink = 0;
    state.orphans.add(ino);
    return;
  }
  parent.dir!.set(state.tree, name, ino);
  if (directory) parent.nlink++;
  parent.touch(entry.sec, entry.nsec);
}

function inherit(node: Node, defaultAcl: Uint8Array): void {
  const { mode, access } = inheritAcl(defaultAcl, node.mode);
  node.mode = mode;
  const xattrs = new Map<string, Uint8Array>();
  if (access !== undefined) xattrs.set(ACCESS_ACL, access);
  if (isDirectory(mode)) xattrs.set(DEFAULT_ACL, defaultAcl);
  if (xattrs.size > 0) node.xattrs = xattrs;
}

/** A copy of the payload, which lies in a buffer that is used again. */
function payloadOf(entry: Entry): Uint8Array {
  if (entry.payloadBytes === 0) return new Uint8Array(0);
  assert(entry.payloadStart >= 0);
  return Uint8Array.prototype.slice.call(entry.bytes, entry.payloadStart, entry.payloadStart + entry.payloadBytes);
}

function applyLink(state: State, entry: Entry, fields: E.FieldReader): void {
  const node = state.materialize(fields.u64());
  const parent = state.materialize(fields.u64());
  parent.dir!.set(state.tree, fields.text(), node.ino);
  node.nlink++;
  node.touchCtime(entry.sec, entry.nsec);
  parent.touch(entry.sec, entry.nsec);
  state.orphans.delete(node.ino);
}

function applyUnlink(state: State, entry: Entry, fields: E.FieldReader): void {
  const parent = state.materialize(fields.u64());
  const name = fields.text();
  const node = state.materialize(parent.dir!.get(state.tree, name)!);
  parent.dir!.remove(name);
  parent.touch(entry.sec, entry.nsec);
  loseName(state, node, parent, entry);
}

/** One name of `node` in `parent` is gone, or means something else now. */
function loseName(state: State, node: Node, parent: Node, entry: Entry): void {
  node.touchCtime(entry.sec, entry.nsec);
  if (isDirectory(node.mode)) {
    node.nlink = 0;
    parent.nlink--;
  } else {
    node.nlink--;
  }
  if (node.nlink === 0) state.orphans.add(node.ino);
}

function applyRename(state: State, entry: Entry, fields: E.FieldReader): void {
  const parent = state.materialize(fields.u64());
  const newParent = state.materialize(fields.u64());
  const whiteoutIno = fields.u64();
  const flags = fields.u32();
  const name = fields.text(fields.u16());
  const newName = fields.text();
  const from = parent.dir!;
  const to = newParent.dir!;
  const node = state.materialize(from.get(state.tree, name)!);
  const targetIno = to.get(state.tree, newName);
  if (flags & RENAME_EXCHANGE) {
    const target = state.materialize(targetIno!);
    from.set(state.tree, name, target.ino);
    to.set(state.tree, newName, node.ino);
    moved(node, parent, newParent, entry);
    moved(target, newParent, parent, entry);
  } else {
    if (targetIno !== undefined) loseName(state, state.materialize(targetIno), newParent, entry);
    const keepsPlace = from === to && targetIno === undefined && (flags & RENAME_WHITEOUT) === 0;
    if (!keepsPlace || !from.renameAdded(state.tree, name, newName)) {
      from.remove(name);
      to.set(state.tree, newName, node.ino);
    }
    moved(node, parent, newParent, entry);
    if (flags & RENAME_WHITEOUT) {
      state.add(new Node(whiteoutIno, S_IFCHR, 1, 0, 0, 0, entry.sec, entry.nsec));
      from.set(state.tree, name, whiteoutIno);
    }
  }
  parent.touch(entry.sec, entry.nsec);
  newParent.touch(entry.sec, entry.nsec);
}

function moved(node: Node, from: Node, to: Node, entry: Entry): void {
  node.touchCtime(entry.sec, entry.nsec);
  if (!isDirectory(node.mode) || from === to) return;
  node.parent = to.ino;
  from.nlink--;
  to.nlink++;
}

function applyFallocate(state: State, entry: Entry, fields: E.FieldReader): void {
  const node = state.materialize(fields.u64());
  const mode = fields.u32();
  const offset = fields.u64();
  const length = fields.u64();
  const extents = state.extents(node);
  const grows = (mode & FALLOC_KEEP_SIZE) === 0 && offset + length > node.size;
  if (mode & FALLOC_PUNCH_HOLE) extents.clear(offset, length);
  else if (mode & FALLOC_ZERO_RANGE) extents.set(offset, length, 0, ZEROS);
  else fillBlocks(extents, offset, length);
  if (grows) node.size = offset + length;
  modified(node, entry);
}

/** Space is allocated by blocks: all of them that the range touches. */
function fillBlocks(extents: Extents, offset: number, length: number): void {
  const start = offset - (offset % BLOCK_BYTES);
  extents.fillGaps(start, Math.ceil((offset + length) / BLOCK_BYTES) * BLOCK_BYTES - start);
}

/** The destination's range becomes the source's runs; its holes become holes. */
function applyCopy(state: State, entry: Entry, fields: E.FieldReader): void {
  const source = state.materialize(fields.u64());
  const target = state.materialize(fields.u64());
  const from = fields.u64();
  const to = fields.u64();
  const length = fields.u64();
  const runs: number[] = [];
  state.extents(source).visit(from, from + length, (start, bytes, place, origin) => {
    runs.push(start, bytes, place, origin);
  });
  state.work += runs.length / 4;
  const extents = state.extents(target);
  extents.clear(to, length);
  for (let i = 0; i < runs.length; i += 4) extents.set(runs[i]! - from + to, runs[i + 1]!, runs[i + 2]!, runs[i + 3]!);
  if (to + length > target.size) target.size = to + length;
  modified(target, entry);
}

/** The cleaner's: the same bytes lie somewhere else, in this entry or in an earlier one. Nothing that can be seen changes. */
function applyMove(state: State, entry: Entry, fields: E.FieldReader): void {
  const node = state.materialize(fields.u64());
  const start = fields.u64();
  const length = fields.u64();
  const place = fields.u64();
  const payloadBytes = fields.u32();
  if (entry.payloadBytes > 0) state.extents(node).set(start, length, entry.payloadAt, logSource(0, entry.payloadBytes));
  else state.extents(node).set(start, length, place, logSource(0, payloadBytes));
}

function applySetxattr(state: State, entry: Entry, fields: E.FieldReader): void {
  const node = state.materialize(fields.u64());
  const killsSgid = fields.u32() === 1;
  const name = fields.text();
  const value = payloadOf(entry);
  node.touchCtime(entry.sec, entry.nsec);
  if (name === ACCESS_ACL) {
    const result = modeOfAcl(value, node.mode);
    node.mode = killsSgid ? result.mode & ~S_ISGID : result.mode;
    if (result.value === undefined) node.xattrs?.delete(name);
    else (node.xattrs ??= new Map()).set(name, result.value);
  } else {
    (node.xattrs ??= new Map()).set(name, value);
  }
}

function applyRemovexattr(state: State, entry: Entry, fields: E.FieldReader): void {
  const node = state.materialize(fields.u64());
  node.xattrs?.delete(fields.text());
  node.touchCtime(entry.sec, entry.nsec);
}
