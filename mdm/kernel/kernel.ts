import assert from 'node:assert';
import { KERNEL_WASM_BASE64 } from './kernel-bytes.ts';

/**
 * The wasm kernel of this thread: BLAKE2b-256 Merkle hashing two lanes at a time (mdm/kernel/assembly). Everything here
 * is synchronous and works on the kernel's own memory of 13 MiB, of which only touched pages are resident. One instance
 * per thread, made when this module is first imported.
 */

export const LEAF_BYTES = 64;
export const ROOT_BYTES = 32;
export const SECTOR_BYTES = 4_194_304;
/** What one call takes of leaves or hashes outside the sector input. */
const CHUNK_BYTES = 65_536;
const SECTOR_LEAVES = SECTOR_BYTES / LEAF_BYTES;
/** Peaks of a file of 2^48 bytes: 2^42 leaves. */
export const MAX_PEAKS = 43;

/** The part of WebAssembly used here; Node's types leave it to the DOM's. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: unknown };
};

interface Address {
  readonly value: number;
}

interface Exports {
  memory: { buffer: ArrayBuffer };
  PEAKS: Address;
  RESULT: Address;
  CHUNK: Address;
  INPUT: Address;
  SPANS: Address;
  ROOTS: Address;
  start(): void;
  leaf(length: number): void;
  hashChunk(count: number, prefix: number): void;
  foldChunk(count: number): void;
  absorb(at: number, count: number, leaves: number): void;
  root(leaves: number, tail: number): void;
  hashInput(used: number): void;
  levelAt(k: number): number;
  zeroPadding(count: number): void;
  contentRoots(count: number): void;
  inputAnchors(from: number, to: number, apart: number, below: number): number;
}

function instantiate(): Exports {
  const wasm = new WebAssembly.Module(Buffer.from(KERNEL_WASM_BASE64, 'base64'));
  const exports = new WebAssembly.Instance(wasm).exports as Exports;
  exports.start();
  return exports;
}

const wasm = instantiate();
const memory = new Uint8Array(wasm.memory.buffer);
const view = (at: number, length: number): Uint8Array => memory.subarray(at, at + length);
const chunk = view(wasm.CHUNK.value, CHUNK_BYTES);
const peaks = view(wasm.PEAKS.value, MAX_PEAKS * ROOT_BYTES);
const result = view(wasm.RESULT.value, ROOT_BYTES);
const spans = new Uint32Array(wasm.memory.buffer, wasm.SPANS.value, 2 * SECTOR_LEAVES);

/** H(0x00 || data): the hash of a leaf of 1 to 64 bytes. */
export function leafHash(data: Uint8Array): Uint8Array {
  assert(data.length <= LEAF_BYTES);
  chunk.set(data);
  wasm.leaf(data.length);
  return result.slice();
}

/** H(0x01 || left || right), both 32 bytes. */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  assert(left.length === ROOT_BYTES && right.length === ROOT_BYTES);
  chunk.set(left);
  chunk.set(right, ROOT_BYTES);
  wasm.hashChunk(1, 1);
  return chunk.slice(0, ROOT_BYTES);
}

/**
 * The root over hashes that lie one after another in `hashes` (at most 2,048; none: 32 zero bytes), in RFC 6962's
 * shape.
 */
export function foldHashes(hashes: Uint8Array): Uint8Array {
  assert(hashes.length % ROOT_BYTES === 0 && hashes.length <= CHUNK_BYTES);
  if (hashes.length === 0) return new Uint8Array(ROOT_BYTES);
  chunk.set(hashes);
  wasm.foldChunk(hashes.length / ROOT_BYTES);
  return chunk.slice(0, ROOT_BYTES);
}

/**
 * Adds the whole leaves of `data` (a multiple of 64 bytes, any number) to the tree whose peaks are `tree` (MAX_PEAKS x
 * 32 bytes, changed in place) and which has `leaves` leaves already.
 */
export function absorbLeaves(tree: Uint8Array, leaves: number, data: Uint8Array): void {
  assert(data.length % LEAF_BYTES === 0 && tree.length === peaks.length);
  peaks.set(tree);
  absorb(leaves, data);
  tree.set(peaks);
}

function absorb(leaves: number, data: Uint8Array): void {
  for (let at = 0; at < data.length; at += CHUNK_BYTES) {
    const part = data.subarray(at, at + CHUNK_BYTES);
    chunk.set(part);
    wasm.absorb(wasm.CHUNK.value, part.length / LEAF_BYTES, leaves + at / LEAF_BYTES);
  }
}

/**
 * The root of the tree with peaks `tree`, `leaves` leaves and then a last short leaf `tail` (0 to 63 bytes; 0 is none).
 */
export function rootOfPeaks(tree: Uint8Array, leaves: number, tail: Uint8Array): Uint8Array {
  assert(tail.length < LEAF_BYTES);
  peaks.set(tree);
  return peaksRoot(leaves, tail);
}

function peaksRoot(leaves: number, tail: Uint8Array): Uint8Array {
  chunk.set(tail);
  wasm.root(leaves, tail.length);
  return result.slice();
}

/** The Merkle root of `data`, of any length. */
export function hashBuffer(data: Uint8Array): Uint8Array {
  const full = data.length - (data.length % LEAF_BYTES);
  absorb(0, data.subarray(0, full));
  return peaksRoot(full / LEAF_BYTES, data.subarray(full));
}

/**
 * The kernel's input: 4 MiB of its memory, the same view for ever, that a caller fills (a file can be read straight
 * into it) and hashes by the `input...` functions below. No other function touches it; whoever fills it must finish
 * before anyone else of this thread starts.
 */
export const input: Uint8Array = view(wasm.INPUT.value, SECTOR_BYTES);

/** A content in the input: starts at a multiple of 64 bytes; `length` bytes. */
export interface Span {
  offset: number;
  length: number;
}

/** Zeroes the bytes of the input between the end of each content and the next multiple of 64. */
export function inputZeroPadding(contents: readonly Span[]): void {
  setSpans(contents);
  wasm.zeroPadding(contents.length);
}

/**
 * Hashes the input as a sector whose first `used` bytes (a multiple of 64) are meant and whose rest is zero, whatever
 * lies there. Returns its root.
 */
export function inputRoot(used: number): Uint8Array {
  assert(used % LEAF_BYTES === 0 && 0 <= used && used <= SECTOR_BYTES);
  wasm.hashInput(used / LEAF_BYTES);
  return view(wasm.levelAt(16), ROOT_BYTES).slice();
}

/** After `inputRoot(used)`: the 1,024 roots of the input's 4 KiB blocks, 32 KiB. */
export function inputBlockRoots(used: number): Uint8Array {
  const blocks = Math.ceil(used / 4096);
  const roots = new Uint8Array(1024 * ROOT_BYTES);
  roots.set(view(wasm.levelAt(6), blocks * ROOT_BYTES));
  for (let block = blocks; block < 1024; block++) roots.set(ZERO_BLOCK_ROOT, block * ROOT_BYTES);
  return roots;
}

/**
 * After `inputRoot`, which `inputZeroPadding` of the same contents must have gone before: the root of every content,
 * one after another (32 bytes each; an empty one's is zero). Leaf hashes are the sector's, and so are inner nodes as
 * far as a content's subtrees coincide with them: a content that starts at a multiple of 64 x 2^k shares k levels.
 */
export function inputContentRoots(contents: readonly Span[]): Uint8Array {
  setSpans(contents);
  wasm.contentRoots(contents.length);
  return view(wasm.ROOTS.value, contents.length * ROOT_BYTES).slice();
}

/**
 * Positions of the input in [from, to), the latter at least 23 bytes before its end, that depend on nothing but the eight bytes there: those whose hash is below `below`
 * (2^32 would be all of them), each at least `apart` bytes after the one before.
 */
export function inputAnchors(from: number, to: number, apart: number, below: number): Uint32Array {
  assert(from >= 0 && to + 23 <= SECTOR_BYTES && (to - from) / apart < spans.length);
  return from < to ? spans.slice(0, wasm.inputAnchors(from, to, apart, below)) : new Uint32Array(0);
}

function setSpans(contents: readonly Span[]): void {
  assert(contents.length <= SECTOR_LEAVES);
  contents.forEach(({ offset, length }, i) => {
    assert(offset % LEAF_BYTES === 0 && offset >= 0 && length >= 0 && offset + length <= SECTOR_BYTES);
    spans[2 * i] = offset;
    spans[2 * i + 1] = length;
  });
}

const ZERO_BLOCK_ROOT = hashBuffer(new Uint8Array(4096));
