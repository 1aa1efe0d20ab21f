// The Merkle tree of Sia (RFC 6962's shape over BLAKE2b-256) on this module's own memory. mdm/kernel/kernel.ts is its
// only caller and checks every argument; nothing is checked here. All hashing is a run of hashThree over 64-byte
// blocks: a leaf's block is its data, a node's block is its two children side by side, and a level of hashes is thus
// the next level's input.
import { find } from './anchors';
import { hashThree } from './blake2b';

// Where things lie in memory. kernel.ts reads these through the exported globals.
/**
 * One running tree: peak k (32 bytes at 32 k) is the root of the perfect subtree of 2^k leaves, meaningful when bit k
 * of the leaf count is set.
 */
export const PEAKS: usize = 0x2000;
/** Where calls put the one hash they answer with. */
export const RESULT: usize = 0x3000;
const ZEROS: usize = 0x3400; // roots of the all-zero subtrees of 2^0 .. 2^16 leaves
const FULL: u64 = 65; // message length of a node or a full leaf
const LEAF: u64 = 0;
const NODE: u64 = 1;
/** Small inputs (leaves for `absorb`, hashes for `fold`): up to 64 KiB. */
export const CHUNK: usize = 0x4000;
const CHUNK_HASHES: usize = 0x14020; // 1,024 hashes and a peak before them
/** One sector: 4 MiB. */
export const INPUT: usize = 0x20000;
/** Level 0 is 65,536 leaf hashes; level k follows level k - 1; the last is the root: 131,071 hashes. */
const LEVELS: usize = 0x420040;
const SCRATCH: usize = 0x820040; // 65,536 hashes and one
/** Up to 65,536 pairs of u32: a content's first byte (a multiple of 64) and its length. */
export const SPANS: usize = 0xa20080;
/** The root of each span. */
export const ROOTS: usize = 0xaa0080;

const SECTOR_LEAVES: u32 = 65536;

// @ts-ignore: decorator
@inline
function level(k: u32): usize {
  // 65,536 + 32,768 + ... hashes come before level k.
  return LEVELS + ((<usize>(0x20000 - (0x20000 >> k))) << 5);
}

/** Bulk memory.copy is a call out of wasm; two moves are not. */
// @ts-ignore: decorator
@inline
function copyHash(to: usize, from: usize): void {
  v128.store(to, v128.load(from));
  v128.store(to, v128.load(from, 16), 16);
}

/**
 * H(prefix || the bytes at `from`) to `to`; `length` is that of the message with its prefix, and the rest of 64 bytes
 * is zero.
 */
function hashOne(from: usize, to: usize, prefix: u64, length: u64): void {
  hashThree(from, from, from, to, to, to, prefix, length);
}

/**
 * dst[i] = H(prefix || 64 bytes at src + 64 i) for `count` blocks; `dst` may be `src` or lie less than 64 bytes past
 * it.
 */
function hashBlocks(src: usize, dst: usize, count: u32, prefix: u64): void {
  for (; count >= 3; count -= 3) {
    hashThree(src, src + 64, src + 128, dst, dst + 32, dst + 64, prefix, FULL);
    src += 192;
    dst += 96;
  }
  if (count === 2) hashThree(src, src + 64, src, dst, dst + 32, dst, prefix, FULL);
  else if (count === 1) hashOne(src, dst, prefix, FULL);
}

/**
 * The root over `count` >= 1 hashes at `at`, which are overwritten; an odd last one moves up unchanged (RFC 6962's
 * shape). Answers at `at`.
 */
function foldAt(at: usize, count: u32): void {
  while (count > 1) {
    const pairs = count >> 1;
    hashBlocks(at, at, pairs, NODE);
    if (count & 1) {
      copyHash(at + (<usize>pairs << 5), at + (<usize>(count - 1) << 5));
      count = pairs + 1;
    } else count = pairs;
  }
}

/** Computes the all-zero subtrees; to be called once. */
export function start(): void {
  memory.fill(CHUNK, 0, 64);
  hashOne(CHUNK, ZEROS, LEAF, FULL);
  for (let k: usize = 0; k < 16; k++) {
    copyHash(CHUNK, ZEROS + (k << 5));
    copyHash(CHUNK + 32, ZEROS + (k << 5));
    hashOne(CHUNK, ZEROS + ((k + 1) << 5), NODE, FULL);
  }
}

/** RESULT = the leaf hash of the `length` (at most 64) bytes at CHUNK; the bytes after them are zeroed. */
export function leaf(length: u32): void {
  memory.fill(CHUNK + length, 0, 64 - length);
  hashOne(CHUNK, RESULT, LEAF, length + 1);
}

/** The `count` blocks of 64 bytes at CHUNK become `count` hashes at CHUNK. */
export function hashChunk(count: u32, prefix: u32): void {
  hashBlocks(CHUNK, CHUNK, count, prefix);
}

/** The root over `count` hashes at CHUNK, left at CHUNK. */
export function foldChunk(count: u32): void {
  foldAt(CHUNK, count);
}

/**
 * Adds the `count` (at most 1,024) full leaves at `at` to the tree in PEAKS, which has `leaves` leaves (a whole number)
 * already.
 */
export function absorb(at: usize, count: u32, leaves: f64): void {
  let position = <u64>leaves;
  let peak = PEAKS;
  hashBlocks(at, CHUNK_HASHES, count, LEAF);
  while (count > 0) {
    let first = CHUNK_HASHES;
    if (position & 1) {
      // The peak waiting at this height is the left sibling of the first new node.
      first -= 32;
      count += 1;
      copyHash(first, peak);
    }
    const pairs = count >> 1;
    if (count & 1) copyHash(peak, first + (<usize>(count - 1) << 5));
    hashBlocks(first, CHUNK_HASHES, pairs, NODE);
    count = pairs;
    position >>= 1;
    peak += 32;
  }
}

/**
 * RESULT = the root of the tree in PEAKS with `leaves` full leaves and then `tail` (0 to 63) bytes, which lie at CHUNK.
 */
export function root(leaves: f64, tail: u32): void {
  let position = <u64>leaves;
  let some = tail > 0;
  if (some) leaf(tail);
  else memory.fill(RESULT, 0, 32);
  for (let peak = PEAKS; position > 0; position >>= 1, peak += 32) {
    if ((position & 1) === 0) continue;
    if (some) {
      copyHash(CHUNK, peak);
      copyHash(CHUNK + 32, RESULT);
      hashOne(CHUNK, RESULT, NODE, FULL);
    } else {
      copyHash(RESULT, peak);
      some = true;
    }
  }
}

/**
 * Hashes the first `used` leaves of INPUT to level 0 and builds levels 1 to 16 over them; the leaves after them are
 * taken as zero. The root is level 16. Goes 1,024 leaves at a time for the first ten levels, so that they stay in the
 * near caches.
 */
export function hashInput(used: u32): void {
  const parts = (used + 1023) >> 10;
  for (let part: u32 = 0; part < parts; part++) {
    let count = min(<u32>1024, used - (part << 10));
    hashBlocks(INPUT + (<usize>part << 16), level(0) + (<usize>part << 15), count, LEAF);
    for (let k: u32 = 0; k < 10; k++) count = pairUp(k, part << (10 - k), count);
  }
  let count = parts;
  for (let k: u32 = 10; k < 16; k++) count = pairUp(k, 0, count);
  if (used === 0) copyHash(level(16), ZEROS + 16 * 32);
}

/**
 * Hashes `count` nodes of level k from index `first` (even) on to level k + 1, an odd last one with a zero subtree;
 * answers how many came out.
 */
function pairUp(k: u32, first: u32, count: u32): u32 {
  const at = level(k) + (<usize>first << 5);
  if (count & 1) copyHash(at + (<usize>count << 5), ZEROS + (<usize>k << 5));
  const pairs = (count + 1) >> 1;
  hashBlocks(at, level(k + 1) + ((<usize>first >> 1) << 5), pairs, NODE);
  return pairs;
}

/** Where the nodes of level k lie. */
export function levelAt(k: u32): usize {
  return level(k);
}

/**
 * ROOTS[i] = the root of content SPANS[i] for `count` contents in INPUT, which is hashed (`hashInput`) with the padding
 * after each content zero (`zeroPadding`). The sector's own nodes are used wherever a content's subtrees coincide with
 * them.
 */
export function contentRoots(count: u32): void {
  for (let i: u32 = 0; i < count; i++) {
    const offset = load<u32>(SPANS + (<usize>i << 3));
    const length = load<u32>(SPANS + (<usize>i << 3), 4);
    contentRoot(offset >> 6, length >> 6, INPUT + offset + (length & ~63), length & 63);
    copyHash(ROOTS + (<usize>i << 5), SCRATCH);
  }
}

/** SCRATCH = the root of `full` leaves from leaf `first` on, and a last short one of `tail` bytes at `tailAt`. */
function contentRoot(first: u32, full: u32, tailAt: usize, tail: u32): void {
  if (full === 0) {
    if (tail === 0) memory.fill(SCRATCH, 0, 32);
    else hashOne(tailAt, SCRATCH, LEAF, tail + 1);
    return;
  }
  // A subtree of 2^k of our leaves is a node of the sector when our first leaf is a multiple of 2^k.
  const k: u32 = min(ctz<u32>(first | SECTOR_LEAVES), 31 - clz<u32>(full));
  const nodes = full >> k;
  let rest = full & ((1 << k) - 1);
  const restAt = SCRATCH + (<usize>nodes << 5);
  memory.copy(SCRATCH, level(k) + ((<usize>first >> k) << 5), <usize>nodes << 5);
  let some = tail > 0;
  if (some) hashOne(tailAt, restAt, LEAF, tail + 1);
  let end = first + full;
  for (let j: u32 = 0; rest > 0; j++) {
    const bit: u32 = 1 << j;
    if ((rest & bit) === 0) continue;
    rest ^= bit;
    end -= bit;
    const node = level(j) + ((<usize>end >> j) << 5);
    if (some) {
      copyHash(CHUNK, node);
      copyHash(CHUNK + 32, restAt);
      hashOne(CHUNK, restAt, NODE, FULL);
    } else {
      copyHash(restAt, node);
      some = true;
    }
  }
  foldAt(SCRATCH, some ? nodes + 1 : nodes);
}

/** Zeroes what follows each of the `count` contents in SPANS up to its next multiple of 64. */
export function zeroPadding(count: u32): void {
  for (let i: u32 = 0; i < count; i++) {
    const end = load<u32>(SPANS + (<usize>i << 3)) + load<u32>(SPANS + (<usize>i << 3), 4);
    if (end & 63) memory.fill(INPUT + end, 0, 64 - (end & 63));
  }
}

/** Writes the anchors (anchors.ts) of INPUT in [from, to) to SPANS, counted from the beginning of INPUT; answers how many. */
export function inputAnchors(from: u32, to: u32, apart: u32, below: u32): u32 {
  return find(INPUT, INPUT + from, INPUT + to, apart, below, SPANS);
}
