import { LEAF_BYTES } from '../merkle.ts';
import type { LeafRange } from '../range-proof.ts';
import { trailingZeros } from '../subtrees.ts';

/** Whether bytes moved between these offsets keep their place within a leaf, so that whole leaves keep their hash. */
export function congruent(a: number, b: number): boolean {
  return (a - b) % LEAF_BYTES === 0;
}

/** A byte range to or from which leaves are moved (Copy and Swap at offsets congruent modulo 64). */
export interface MovedRange {
  /** Its whole leaves of 64 bytes; may be empty. Their hashes move. */
  inner: LeafRange;
  /** Its other leaves: partly in the range, or the file's short last one. Their bytes move. */
  edges: LeafRange[];
  /** The bytes of the range in each of `edges`. */
  edgeBytes: { offset: number; length: number }[];
  /**
   * The height up to which subtrees of both ranges are aligned alike: 2^cap is the largest power of two in their
   * distance.
   */
  cap(other: MovedRange): number;
}

/** How the `length` >= 1 bytes at `offset` move. */
export function movedRanges(offset: number, length: number): MovedRange {
  const end = offset + length;
  const first = Math.floor(offset / LEAF_BYTES);
  const last = Math.floor(end / LEAF_BYTES);
  const inner = { from: Math.ceil(offset / LEAF_BYTES), to: last };
  const cap = (other: MovedRange): number => trailingZeros(Math.abs(other.inner.from - inner.from));
  if (inner.from > last) {
    // All within one leaf.
    const edges = [{ from: first, to: first + 1 }];
    return { inner: { from: inner.from, to: inner.from }, edges, edgeBytes: [{ offset, length }], cap };
  }
  const edges: LeafRange[] = [];
  const edgeBytes: MovedRange['edgeBytes'] = [];
  if (first < inner.from) {
    edges.push({ from: first, to: inner.from });
    edgeBytes.push({ offset, length: inner.from * LEAF_BYTES - offset });
  }
  if (last * LEAF_BYTES < end) {
    edges.push({ from: last, to: last + 1 });
    edgeBytes.push({ offset: last * LEAF_BYTES, length: end - last * LEAF_BYTES });
  }
  return { inner, edges, edgeBytes, cap };
}
