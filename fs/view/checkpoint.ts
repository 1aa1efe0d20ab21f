import assert from 'node:assert';
import { headBytesOf } from '../log/needed.ts';
import { Directory } from './directory.ts';
import { Extents } from './extents.ts';
import type { LiveSectors } from './live-sectors.ts';
import { Node } from './node.ts';
import { NameList } from './name-list.ts';
import { PieceReader, PieceWriter } from './pieces.ts';
import type { State } from './state.ts';

/** The state as the payload of the log's checkpoint file: docs/formats/checkpoint.md. */
const HAS_DIR = 1;
const HAS_EXTENTS = 2;
const HAS_SYMLINK = 4;
const HAS_XATTRS = 8;
/** What was read of the head when it comes to its table. */
const HEAD_START_BYTES = 20;
/** Names or runs after which a large inode's writing may be interrupted. */
const STRIDE = 512;

/** Fills an empty state with what `serializeState` wrote (its checksum was right, so anything odd is a bug). */
export function restoreState(state: State, bytes: Buffer): void {
  const input = new PieceReader(bytes);
  const nextIno = input.u64();
  const count = input.u64();
  input.skip(headBytesOf(input.u32()) - HEAD_START_BYTES);
  for (let left = count; left > 0; left--) {
    const node = getNode(input, state.live);
    state.add(node);
    if (node.nlink === 0) state.orphans.add(node.ino);
  }
  state.nextIno = nextIno;
  assert(input.atEnd, 'a checkpoint ends after its last inode');
}

/** Writes one inode; yields now and then in a large one. */
export function* putNode(out: PieceWriter, node: Node): Generator<void> {
  out.u64(node.ino);
  for (const value of [node.mode, node.nlink, node.uid, node.gid, node.rdev]) out.u32(value);
  out.u64(node.size);
  out.time(node.atimeSec, node.atimeNsec);
  out.time(node.mtimeSec, node.mtimeNsec);
  out.time(node.ctimeSec, node.ctimeNsec);
  out.time(node.btimeSec, node.btimeNsec);
  out.u64(node.parent);
  const { dir, extents, symlink, xattrs } = node;
  out.u32((dir ? HAS_DIR : 0) | (extents ? HAS_EXTENTS : 0) | (symlink ? HAS_SYMLINK : 0) | (xattrs ? HAS_XATTRS : 0));
  if (dir !== undefined) yield* putDirectory(out, dir);
  if (extents !== undefined) {
    out.u32(extents.count);
    let count = 0;
    for (const run of extents.runs()) {
      for (const value of run) out.f64(value);
      if (++count % STRIDE === 0) yield;
    }
  }
  if (symlink !== undefined) out.blob(symlink);
  if (xattrs !== undefined) {
    out.u32(xattrs.size);
    for (const [name, value] of xattrs) {
      out.name(name);
      out.blob(value);
    }
  }
}

function* putDirectory(out: PieceWriter, dir: Directory): Generator<void> {
  out.u64(dir.lower);
  out.u64(dir.count);
  out.u64(dir.nextSeq);
  out.u32(dir.changed?.size ?? 0);
  let count = 0;
  for (const { name, ino } of dir.changed?.entries() ?? []) {
    out.u64(ino);
    out.name(name);
    if (++count % STRIDE === 0) yield;
  }
  out.u32(dir.added);
  for (const { name, ino, seq } of dir.addedNames()) {
    out.u64(ino);
    out.u64(seq);
    out.name(name);
    if (++count % STRIDE === 0) yield;
  }
}

function getNode(input: PieceReader, live: LiveSectors): Node {
  const ino = input.u64();
  const node = new Node(ino, input.u32(), input.u32(), input.u32(), input.u32(), input.u32(), 0, 0);
  node.size = input.u64();
  node.atimeSec = input.i64();
  node.atimeNsec = input.u32();
  node.mtimeSec = input.i64();
  node.mtimeNsec = input.u32();
  node.ctimeSec = input.i64();
  node.ctimeNsec = input.u32();
  node.btimeSec = input.i64();
  node.btimeNsec = input.u32();
  node.parent = input.u64();
  const parts = input.u32();
  if (parts & HAS_DIR) node.dir = getDirectory(input);
  if (parts & HAS_EXTENTS) node.extents = getExtents(input, live);
  if (parts & HAS_SYMLINK) node.symlink = input.blob();
  if (parts & HAS_XATTRS) {
    node.xattrs = new Map();
    for (let left = input.u32(); left > 0; left--) node.xattrs.set(input.name(), input.blob());
  }
  return node;
}

function getDirectory(input: PieceReader): Directory {
  const dir = new Directory(input.u64(), 0);
  const count = input.u64();
  const nextSeq = input.u64();
  for (let left = input.u32(); left > 0; left--) {
    const ino = input.u64();
    (dir.changed ??= new NameList()).set(input.name(), ino);
  }
  for (let left = input.u32(); left > 0; left--) {
    const ino = input.u64();
    const seq = input.u64();
    dir.restoreAdded(input.name(), ino, seq);
  }
  dir.count = count;
  dir.nextSeq = nextSeq;
  return dir;
}

function getExtents(input: PieceReader, live: LiveSectors): Extents {
  const extents = new Extents(live);
  for (let left = input.u32(); left > 0; left--) extents.set(input.f64(), input.f64(), input.f64(), input.f64());
  return extents;
}
