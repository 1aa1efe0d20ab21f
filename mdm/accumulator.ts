import assert from 'node:assert';
import { absorbLeaves, LEAF_BYTES, MAX_PEAKS, ROOT_BYTES, rootOfPeaks } from './kernel/kernel.ts';
import { PgError } from './error.ts';
import { MAX_SIZE } from './merkle.ts';

/**
 * The Merkle root of a byte sequence that only grows. Keeps the roots of the perfect subtrees (one per set bit of the
 * leaf count) and the last short leaf; appending costs the new bytes and a logarithm.
 */
export class Accumulator {
  #size = 0;
  /** Bytes appended so far. */
  get size(): number {
    return this.#size;
  }
  /** Peak k at 32 k: the root of 2^k leaves, when bit k of the leaf count is set. */
  readonly #peaks = new Uint8Array(MAX_PEAKS * ROOT_BYTES);
  readonly #tail = new Uint8Array(LEAF_BYTES);

  /** Appends `bytes`, of any length. */
  append(bytes: Uint8Array): void {
    assert(this.#size + bytes.length <= MAX_SIZE);
    const filled = this.#size % LEAF_BYTES;
    let rest = bytes;
    if (filled > 0) {
      const head = bytes.subarray(0, LEAF_BYTES - filled);
      this.#tail.set(head, filled);
      this.#size += head.length;
      if (filled + head.length < LEAF_BYTES) return;
      absorbLeaves(this.#peaks, this.#size / LEAF_BYTES - 1, this.#tail);
      rest = bytes.subarray(head.length);
    }
    const full = rest.length - (rest.length % LEAF_BYTES);
    if (full > 0) absorbLeaves(this.#peaks, this.#size / LEAF_BYTES, rest.subarray(0, full));
    this.#tail.set(rest.subarray(full));
    this.#size += rest.length;
  }

  /** The root of all bytes appended so far, 32 bytes; more can be appended after. */
  root(): Uint8Array {
    const filled = this.#size % LEAF_BYTES;
    return rootOfPeaks(this.#peaks, (this.#size - filled) / LEAF_BYTES, this.#tail.subarray(0, filled));
  }

  /** An accumulator of its own with the same bytes in it. */
  clone(): Accumulator {
    const copy = new Accumulator();
    copy.#size = this.#size;
    copy.#peaks.set(this.#peaks);
    copy.#tail.set(this.#tail);
    return copy;
  }

  /**
   * The state as bytes: the size (u64 LE), the short last leaf, then the peaks of the set bits of the leaf count,
   * smallest subtree first.
   */
  serialize(): Uint8Array {
    const filled = this.#size % LEAF_BYTES;
    const heights = peakHeights(this.#size);
    const bytes = new Uint8Array(8 + filled + heights.length * ROOT_BYTES);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(this.#size), true);
    bytes.set(this.#tail.subarray(0, filled), 8);
    heights.forEach((k, i) =>
      bytes.set(this.#peaks.subarray(k * ROOT_BYTES, (k + 1) * ROOT_BYTES), 8 + filled + i * ROOT_BYTES),
    );
    return bytes;
  }

  /** The accumulator that `serialize` wrote; `BAD_ACCUMULATOR` when the length is not that of any. */
  static restore(bytes: Uint8Array): Accumulator {
    const size = bytes.length < 8 ? NaN : Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const filled = size % LEAF_BYTES;
    const heights = size <= MAX_SIZE ? peakHeights(size) : [];
    if (!(size <= MAX_SIZE) || bytes.length !== 8 + filled + heights.length * ROOT_BYTES) {
      throw new PgError('BAD_ACCUMULATOR', `${bytes.length} bytes are not the state of a Merkle accumulator`);
    }
    const restored = new Accumulator();
    restored.#size = size;
    restored.#tail.set(bytes.subarray(8, 8 + filled));
    heights.forEach((k, i) => {
      const at = 8 + filled + i * ROOT_BYTES;
      restored.#peaks.set(bytes.subarray(at, at + ROOT_BYTES), k * ROOT_BYTES);
    });
    return restored;
  }
}

/** The heights of the perfect subtrees of a sequence of `size` bytes, ascending. */
function peakHeights(size: number): number[] {
  const heights: number[] = [];
  for (let leaves = Math.floor(size / LEAF_BYTES), k = 0; leaves > 0; leaves = Math.floor(leaves / 2), k++)
    if (leaves % 2 === 1) heights.push(k);
  return heights;
}
