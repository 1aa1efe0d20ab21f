import assert from 'node:assert';
import { absorbLeaves, leafHash, LEAF_BYTES, MAX_PEAKS, nodeHash, ROOT_BYTES, rootOfPeaks } from './kernel/kernel.ts';

/**
 * Perfect subtrees of the Merkle tree: how a range of leaves is cut into them, the roots of those that are all zero,
 * and how a root is folded from them. Leaf numbers reach 2^42, so nothing here uses 32-bit arithmetic on them.
 */

/** A perfect subtree: 2^height leaves from leaf number `leaf` on, which is a multiple of that. */
export interface Subtree {
  leaf: number;
  height: number;
}

/** How many leaves `size` bytes have. */
export function leafCount(size: number): number {
  return Math.ceil(size / LEAF_BYTES);
}

/** The number of zero bits below the lowest set bit of `x` (an integer >= 0); Infinity for 0. */
export function trailingZeros(x: number): number {
  if (x === 0) return Infinity;
  const low = x % 0x1_0000_0000;
  return low === 0 ? 32 + trailingZeros(x / 0x1_0000_0000) : 31 - Math.clz32(low & -low);
}

/** floor(log2(x)) of an integer x >= 1. */
export function floorLog2(x: number): number {
  return x < 0x1_0000_0000 ? 31 - Math.clz32(x) : 32 + floorLog2(Math.floor(x / 0x1_0000_0000));
}

/**
 * The maximal aligned perfect subtrees, none higher than `cap`, that make up the leaves [from, to), left to right
 * (MDM.md's canon).
 */
export function* subtreesOf(from: number, to: number, cap = Infinity): Generator<Subtree> {
  for (let leaf = from; leaf < to;) {
    const height = Math.min(trailingZeros(leaf), floorLog2(to - leaf), cap);
    yield { leaf, height };
    leaf += 2 ** height;
  }
}

const zeroRoots: Uint8Array[] = [];

/** The root of 2^height leaves of 64 zero bytes. */
export function zeroRoot(height: number): Uint8Array {
  for (let k = zeroRoots.length; k <= height; k++) {
    const below = zeroRoots[k - 1];
    zeroRoots.push(below === undefined ? leafHash(new Uint8Array(LEAF_BYTES)) : nodeHash(below, below));
  }
  return zeroRoots[height]!;
}

/** Folds a root from the subtrees and leaves of a file, given left to right without a gap. */
export class Fold {
  #leaves = 0;
  readonly #peaks = new Uint8Array(MAX_PEAKS * ROOT_BYTES);

  /** How many leaves were given so far. */
  get leaves(): number {
    return this.#leaves;
  }

  /** Adds the root of the next 2^height leaves; the leaves before must be a multiple of that. */
  subtree(height: number, root: Uint8Array): void {
    assert(this.#leaves % 2 ** height === 0, 'a subtree starts at a multiple of its size');
    let [k, hash] = [height, root];
    for (let above = this.#leaves / 2 ** height; above % 2 === 1; above = (above - 1) / 2, k++) {
      hash = nodeHash(this.#peaks.subarray(k * ROOT_BYTES, (k + 1) * ROOT_BYTES), hash);
    }
    this.#peaks.set(hash, k * ROOT_BYTES);
    this.#leaves += 2 ** height;
  }

  /** Adds the leaves that `bytes` are. Only the last leaf of all may be short. */
  bytes(bytes: Uint8Array): void {
    const full = bytes.length - (bytes.length % LEAF_BYTES);
    if (full > 0) absorbLeaves(this.#peaks, this.#leaves, bytes.subarray(0, full));
    this.#leaves += full / LEAF_BYTES;
    if (full < bytes.length) this.subtree(0, leafHash(bytes.subarray(full)));
  }

  /** Adds full leaves of zeros until there are `leaves`. */
  zerosTo(leaves: number): void {
    for (const { height } of subtreesOf(this.#leaves, leaves)) this.subtree(height, zeroRoot(height));
  }

  /** The root of all that was given; 32 zero bytes when nothing was. */
  root(): Uint8Array {
    return rootOfPeaks(this.#peaks, this.#leaves, new Uint8Array(0));
  }
}
