import assert from 'node:assert';
import {
  absorbLeaves,
  LEAF_BYTES,
  MAX_PEAKS,
  nodeHash,
  ROOT_BYTES,
  rootOfPeaks,
  SECTOR_BYTES,
} from './kernel/kernel.ts';
import { PgError } from './error.ts';
import { MAX_SIZE } from './merkle.ts';

/** Height of a sector's root: 2^16 leaves. */
const SECTOR_HEIGHT = 16;

/**
 * The Merkle root of a byte sequence that only grows. Keeps the roots of the perfect subtrees (one per set bit of the
 * leaf count) and the last short leaf; appending costs the new bytes and a logarithm. A sector (4 MiB) is a tree of its
 * own until it is full, so that its root can be had, or be given instead of its bytes.
 */
export class Accumulator {
  #size = 0;
  /** Bytes appended so far. */
  get size(): number {
    return this.#size;
  }
  /** Peak k at 32 k: the root of 2^k leaves, when bit k of the leaf count is set; of the full sectors. */
  readonly #peaks = new Uint8Array(MAX_PEAKS * ROOT_BYTES);
  /** The same of the sector that is not full. */
  readonly #sector = new Uint8Array(MAX_PEAKS * ROOT_BYTES);
  readonly #tail = new Uint8Array(LEAF_BYTES);
  /** Told the number of every sector that becomes full and the root of its bytes; returns the root that counts. */
  onSector: ((sector: number, root: Uint8Array) => Uint8Array) | undefined;

  /** Appends `bytes`, of any length. */
  append(bytes: Uint8Array): void {
    assert(this.#size + bytes.length <= MAX_SIZE);
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + SECTOR_BYTES - (this.#size % SECTOR_BYTES));
      this.#appendWithin(part);
      at += part.length;
      if (this.#size % SECTOR_BYTES > 0) continue;
      const sector = this.#size / SECTOR_BYTES - 1;
      const root = peakAt(this.#sector, SECTOR_HEIGHT).slice();
      this.#addSector(sector, this.onSector?.(sector, root) ?? root);
    }
  }

  /** Goes on as if the bytes up to the end of the sector in hand were appended, so that it has this root; those it has count for nothing. */
  appendSector(root: Uint8Array): void {
    const sector = Math.floor(this.#size / SECTOR_BYTES);
    assert((sector + 1) * SECTOR_BYTES <= MAX_SIZE && root.length === ROOT_BYTES);
    this.#size = (sector + 1) * SECTOR_BYTES;
    this.#addSector(sector, root);
  }

  /** Appends what lies in one sector. */
  #appendWithin(bytes: Uint8Array): void {
    const filled = this.#size % LEAF_BYTES;
    let rest = bytes;
    if (filled > 0) {
      const head = bytes.subarray(0, LEAF_BYTES - filled);
      this.#tail.set(head, filled);
      this.#size += head.length;
      if (filled + head.length < LEAF_BYTES) return;
      absorbLeaves(this.#sector, leavesIn(this.#size - 1), this.#tail);
      rest = bytes.subarray(head.length);
    }
    const full = rest.length - (rest.length % LEAF_BYTES);
    if (full > 0) absorbLeaves(this.#sector, leavesIn(this.#size), rest.subarray(0, full));
    this.#tail.set(rest.subarray(full));
    this.#size += rest.length;
  }

  #addSector(sector: number, root: Uint8Array): void {
    let node = root;
    let height = SECTOR_HEIGHT;
    for (let before = sector; before % 2 === 1; before = (before - 1) / 2, height++)
      node = nodeHash(peakAt(this.#peaks, height), node);
    this.#peaks.set(node, height * ROOT_BYTES);
  }

  /** The root of all bytes appended so far, 32 bytes; more can be appended after. */
  root(): Uint8Array {
    const filled = this.#size % LEAF_BYTES;
    return rootOfPeaks(this.#allPeaks(), (this.#size - filled) / LEAF_BYTES, this.#tail.subarray(0, filled));
  }

  /** The root of the sectors that are full. */
  rootOfSectors(): Uint8Array {
    const sectors = Math.floor(this.#size / SECTOR_BYTES);
    return rootOfPeaks(this.#peaks, (sectors * SECTOR_BYTES) / LEAF_BYTES, new Uint8Array(0));
  }

  #allPeaks(): Uint8Array {
    const peaks = this.#peaks.slice();
    peaks.set(this.#sector.subarray(0, SECTOR_HEIGHT * ROOT_BYTES));
    return peaks;
  }

  /** An accumulator of its own with the same bytes in it; it tells nobody of its sectors. */
  clone(): Accumulator {
    const copy = new Accumulator();
    copy.#size = this.#size;
    copy.#peaks.set(this.#peaks);
    copy.#sector.set(this.#sector);
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
      bytes.set(peakAt(k < SECTOR_HEIGHT ? this.#sector : this.#peaks, k), 8 + filled + i * ROOT_BYTES),
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
      (k < SECTOR_HEIGHT ? restored.#sector : restored.#peaks).set(bytes.subarray(at, at + ROOT_BYTES), k * ROOT_BYTES);
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

const peakAt = (peaks: Uint8Array, height: number): Uint8Array =>
  peaks.subarray(height * ROOT_BYTES, (height + 1) * ROOT_BYTES);

/** Whole leaves of the sector that byte `size` lies in, before it. */
const leavesIn = (size: number): number => Math.floor((size % SECTOR_BYTES) / LEAF_BYTES);
