import assert from 'node:assert';
import { Directory } from './directory.ts';
import { Extents } from './extents.ts';
import { Node } from './node.ts';
import type { State } from './state.ts';

/** The state as the payload of the log's checkpoint file: docs/formats/checkpoint.md. */
const PIECE_BYTES = 1 << 20;
const HAS_DIR = 1;
const HAS_EXTENTS = 2;
const HAS_SYMLINK = 4;
const HAS_XATTRS = 8;

/** The whole state as pieces, one after another. */
export function serializeState(state: State): Uint8Array[] {
  const out = new PieceWriter();
  out.u64(state.nextIno);
  out.u64(state.nodeCount);
  for (const node of state.nodes()) putNode(out, node);
  return out.finish();
}

/** Fills an empty state with what `serializeState` wrote (its checksum was right, so anything odd is a bug). */
export function restoreState(state: State, bytes: Buffer): void {
  const input = new PieceReader(bytes);
  const nextIno = input.u64();
  for (let left = input.u64(); left > 0; left--) {
    const node = getNode(input);
    state.add(node);
    if (node.nlink === 0) state.orphans.add(node.ino);
  }
  state.nextIno = nextIno;
  assert(input.atEnd, 'a checkpoint ends after its last inode');
}

function putNode(out: PieceWriter, node: Node): void {
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
  if (dir !== undefined) putDirectory(out, dir);
  if (extents !== undefined) {
    out.u32(extents.count);
    extents.visit(0, Infinity, (start, length, place, source) => {
      for (const value of [start, length, place, source]) out.f64(value);
    });
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

function putDirectory(out: PieceWriter, dir: Directory): void {
  out.u64(dir.lower);
  out.u64(dir.count);
  out.u64(dir.nextSeq);
  out.u32(dir.changed?.size ?? 0);
  for (const [name, ino] of dir.changed ?? []) {
    out.u64(ino);
    out.name(name);
  }
  out.u32(dir.added);
  dir.forEachAdded((name, ino, seq) => {
    out.u64(ino);
    out.u64(seq);
    out.name(name);
  });
}

function getNode(input: PieceReader): Node {
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
  if (parts & HAS_EXTENTS) node.extents = getExtents(input);
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
    (dir.changed ??= new Map()).set(input.name(), ino);
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

function getExtents(input: PieceReader): Extents {
  const extents = new Extents();
  for (let left = input.u32(); left > 0; left--) extents.set(input.f64(), input.f64(), input.f64(), input.f64());
  return extents;
}

class PieceWriter {
  readonly #pieces: Uint8Array[] = [];
  #bytes = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  u32(value: number): void {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#room(8);
    this.#view.setUint32(at, value >>> 0, true);
    this.#view.setInt32(at + 4, Math.floor(value / 2 ** 32), true);
  }

  f64(value: number): void {
    const at = this.#room(8);
    this.#view.setFloat64(at, value, true);
  }

  time(sec: number, nsec: number): void {
    this.u64(sec);
    this.u32(nsec);
  }

  name(name: string): void {
    const at = this.#room(1 + name.length);
    this.#bytes[at] = name.length;
    this.#bytes.write(name, at + 1, 'latin1');
  }

  blob(value: Uint8Array): void {
    this.u32(value.length);
    const at = this.#room(value.length);
    this.#bytes.set(value, at);
  }

  finish(): Uint8Array[] {
    return [...this.#pieces, this.#bytes.subarray(0, this.#at)];
  }

  /** Place for `bytes` bytes (names and values are far smaller than a piece); take it before the buffer, which it may change. */
  #room(bytes: number): number {
    if (this.#at + bytes > PIECE_BYTES) {
      this.#pieces.push(this.#bytes.subarray(0, this.#at));
      this.#bytes = Buffer.allocUnsafeSlow(PIECE_BYTES);
      this.#view = new DataView(this.#bytes.buffer);
      this.#at = 0;
    }
    const at = this.#at;
    this.#at += bytes;
    return at;
  }
}

class PieceReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  u32(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4, true);
  }

  u64(): number {
    const low = this.u32();
    return low + this.u32() * 2 ** 32;
  }

  i64(): number {
    const low = this.u32();
    return low + (this.u32() | 0) * 2 ** 32;
  }

  f64(): number {
    this.#at += 8;
    return this.#view.getFloat64(this.#at - 8, true);
  }

  name(): string {
    const length = this.#bytes[this.#at]!;
    this.#at += 1 + length;
    return this.#bytes.toString('latin1', this.#at - length, this.#at);
  }

  blob(): Uint8Array {
    const length = this.u32();
    this.#at += length;
    return Uint8Array.prototype.slice.call(this.#bytes, this.#at - length, this.#at);
  }
}
