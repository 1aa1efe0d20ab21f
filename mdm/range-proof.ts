import { LEAF_BYTES, ROOT_BYTES } from './kernel/kernel.ts';
import { Fold, subtreesOf, trailingZeros } from './subtrees.ts';

/**
 * Range proofs, as Sia has them: that the leaves [start, end) of a tree of `leaves` leaves are these. The proof is the
 * roots of the maximal subtrees outside the range, left to right, 32 bytes each; how many there are follows from the
 * three numbers, and the verifier takes exactly that many. Trees over sector roots are proved alike, with roots for
 * leaves.
 */

/** The leaves from `from` up to but without `to`. */
export interface LeafRange {
  from: number;
  to: number;
}

/**
 * The subtrees whose roots make up the proof of `ranges` (ascending and apart). All but the very last one are perfect.
 */
export function* proofSubtrees(leaves: number, ranges: readonly LeafRange[]): Generator<LeafRange> {
  let at = 0;
  for (const { from, to } of ranges) {
    for (const { leaf, height } of subtreesOf(at, from)) yield { from: leaf, to: leaf + 2 ** height };
    at = to;
  }
  while (at < leaves) {
    const next = Math.min(at + 2 ** trailingZeros(at), leaves);
    yield { from: at, to: next };
    at = next;
  }
}

/**
 * The proof of the leaves of `range`, which is not empty; `subtreeRoot` answers with the root over any subtree of the
 * tree.
 */
export function buildRangeProof(
  leaves: number,
  range: LeafRange,
  subtreeRoot: (subtree: LeafRange) => Uint8Array,
): Uint8Array {
  const roots = [...proofSubtrees(leaves, [range])].map(subtreeRoot);
  const proof = new Uint8Array(roots.length * ROOT_BYTES);
  roots.forEach((root, i) => proof.set(root, i * ROOT_BYTES));
  return proof;
}

/**
 * Whether `proof` shows that the leaves of `range` in the tree with this `root` and number of `leaves` are `data`:
 * their bytes, or (`asRoots`) their hashes one after another. False for a range that is empty or not in the tree, and
 * for a proof or data of another length.
 */
export function verifyRangeProof(
  root: Uint8Array,
  leaves: number,
  { from, to }: LeafRange,
  data: Uint8Array,
  proof: Uint8Array,
  asRoots = false,
): boolean {
  if (!(0 <= from && from < to && to <= leaves)) return false;
  const unit = asRoots ? ROOT_BYTES : LEAF_BYTES;
  // Only the tree's last leaf may be short, and then it has at least one byte.
  const shortest = asRoots || to < leaves ? (to - from) * unit : (to - from - 1) * unit + 1;
  if (data.length < shortest || data.length > (to - from) * unit) return false;
  const outside = [...proofSubtrees(leaves, [{ from, to }])];
  if (proof.length !== outside.length * ROOT_BYTES) return false;
  const fold = new Fold();
  const addOutside = (i: number, subtree: LeafRange): void => {
    const hash = proof.subarray(i * ROOT_BYTES, (i + 1) * ROOT_BYTES);
    // The last one may be ragged; it joins the tree as a lone leaf would.
    const height = Math.log2(subtree.to - subtree.from);
    fold.subtree(Number.isInteger(height) ? height : 0, hash);
  };
  outside.forEach((subtree, i) => subtree.to <= from && addOutside(i, subtree));
  if (asRoots) for (let i = 0; i < data.length; i += ROOT_BYTES) fold.subtree(0, data.subarray(i, i + ROOT_BYTES));
  else fold.bytes(data);
  outside.forEach((subtree, i) => subtree.from >= to && addOutside(i, subtree));
  return Buffer.compare(fold.root(), root) === 0;
}
