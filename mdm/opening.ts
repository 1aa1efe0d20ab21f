import { machineError } from './instruction.ts';
import { LEAF_BYTES, ROOT_BYTES } from './kernel/kernel.ts';
import type { LeafRange } from './range-proof.ts';
import { Fold, leafCount, type Subtree, subtreesOf } from './subtrees.ts';

/**
 * Proofs by opening plan. The plan says, from an instruction and the file's size alone, which of the old tree's leaves
 * a proof shows: some as their bytes, some through the output, all others as roots of perfect subtrees. Folding what is
 * shown gives the old root; putting in what the instruction changes and folding again gives the new one. A proof has
 * exactly the plan's length: docs/formats/mdm.md.
 */

/**
 * Leaves shown in one way. `hashes`: subtrees no higher than `cap`. `output`: whole leaves at `at` bytes into the
 * output.
 */
export type Piece =
  | (LeafRange & { kind: 'hashes'; cap: number })
  | (LeafRange & { kind: 'bytes' })
  | (LeafRange & { kind: 'output'; at: number });

/** What a proof shows of a tree over `size` bytes: all its leaves, left to right. */
export interface Plan {
  size: number;
  pieces: Piece[];
}

/**
 * What decides a plan, all of it in leaves; ranges may be empty, and may overlap: bytes go before output, output before
 * hashes.
 */
export interface PlanShape {
  /** Leaves shown as their old bytes. */
  bytes?: LeafRange[];
  /** Leaves shown by the output, which starts at byte `outputOffset` of the file. */
  output?: LeafRange;
  outputOffset?: number;
  /** Ranges that no subtree reaches across. */
  cuts?: LeafRange[];
  /** Ranges that are cuts and whose subtrees are no higher than `cap`. */
  capped?: LeafRange[];
  cap?: number;
}

/** The plan of that shape for a tree over `size` bytes. */
export function makePlan(size: number, shape: PlanShape): Plan {
  const leaves = leafCount(size);
  const { bytes = [], output, cuts = [], capped = [], cap = Infinity } = shape;
  const ranges = [...bytes, ...cuts, ...capped, ...(output === undefined ? [] : [output])].filter((r) => r.from < r.to);
  const bounds = [...new Set([0, leaves, ...ranges.flatMap((r) => [r.from, r.to])])].toSorted((a, b) => a - b);
  const pieces: Piece[] = [];
  for (const [i, to] of bounds.slice(1).entries()) {
    const from = bounds[i]!;
    if (bytes.some((r) => within(r, from))) pieces.push({ kind: 'bytes', from, to });
    else if (output !== undefined && within(output, from)) {
      pieces.push({ kind: 'output', from, to, at: from * LEAF_BYTES - (shape.outputOffset ?? 0) });
    } else pieces.push({ kind: 'hashes', from, to, cap: capped.some((r) => within(r, from)) ? cap : Infinity });
  }
  return { size, pieces };
}

const within = (range: LeafRange, leaf: number): boolean => range.from <= leaf && leaf < range.to;

/** How the bytes [offset, offset + length) lie on the leaves of a file of `size` bytes. */
export interface Coverage {
  /** The leaves wholly within them (a short last leaf that they cover to the file's end is one); may be empty. */
  whole: LeafRange;
  /** The leaves partly within them: at most one before and one after `whole`. */
  edges: LeafRange[];
  /** All leaves they touch. */
  touched: LeafRange;
}

/** The coverage of [offset, offset + length), which is not empty and lies within [0, size). */
export function coverage(offset: number, length: number, size: number): Coverage {
  const end = offset + length;
  const touched = { from: Math.floor(offset / LEAF_BYTES), to: Math.ceil(end / LEAF_BYTES) };
  const from = Math.ceil(offset / LEAF_BYTES);
  const to = end === size ? touched.to : Math.floor(end / LEAF_BYTES);
  if (from >= to) return { whole: { from, to: from }, edges: [touched], touched };
  const edges = [
    { from: touched.from, to: from },
    { from: to, to: touched.to },
  ].filter((r) => r.from < r.to);
  return { whole: { from, to }, edges, touched };
}

/** The bytes that the leaves of `range` have in a file of `size` bytes. */
export function leafBytes(range: LeafRange, size: number): number {
  return Math.min(range.to * LEAF_BYTES, size) - range.from * LEAF_BYTES;
}

/** The exact length of a proof with this plan, in bytes; or, once it is known to be more than `limit`, some such number. */
export function proofLength(plan: Plan, limit = Infinity): number {
  let length = 0;
  for (const piece of plan.pieces) {
    if (piece.kind === 'bytes') length += leafBytes(piece, plan.size);
    if (piece.kind !== 'hashes') continue;
    for (const _ of subtreesOf(piece.from, piece.to, piece.cap)) {
      length += ROOT_BYTES;
      if (length > limit) return length;
    }
  }
  return length;
}

/** A tree that proofs can be built from. */
export interface ProofSource {
  readAt(into: Uint8Array, offset: number): void;
  /** The root of a perfect subtree. */
  subtreeRoot(subtree: Subtree): Uint8Array;
}

/** A proof must fit into memory, and into a message. */
const MAX_PROOF_BYTES = 2 ** 31;

/** The proof of `plan` from the tree it is a plan of; `MDM_PROOF_TOO_LARGE` beyond 2 GiB. */
export function buildProof(plan: Plan, source: ProofSource): Uint8Array {
  const length = proofLength(plan, MAX_PROOF_BYTES);
  if (length > MAX_PROOF_BYTES) throw machineError('MDM_PROOF_TOO_LARGE', 'the proof would have more than 2^31 bytes');
  const proof = new Uint8Array(length);
  let at = 0;
  for (const piece of plan.pieces) {
    if (piece.kind === 'bytes') {
      const length = leafBytes(piece, plan.size);
      source.readAt(proof.subarray(at, at + length), piece.from * LEAF_BYTES);
      at += length;
    }
    if (piece.kind !== 'hashes') continue;
    for (const subtree of subtreesOf(piece.from, piece.to, piece.cap)) {
      proof.set(source.subtreeRoot(subtree), at);
      at += ROOT_BYTES;
    }
  }
  return proof;
}

/** Part of an opened tree: the root of a perfect subtree, or the bytes of one or more leaves. */
export type Tile =
  | { leaf: number; leaves: number; height: number; hash: Uint8Array }
  | { leaf: number; leaves: number; bytes: Uint8Array };

/** Bytes that an instruction puts at `offset`. */
export interface Edit {
  offset: number;
  bytes: Uint8Array;
}

/** Leaves that an instruction fills with the old leaves from `source` on. */
export interface Move {
  source: number;
  range: LeafRange;
}

/** An old tree as far as a proof and an output show it. */
export class Opening {
  readonly plan: Plan;
  /** Left to right, without a gap. */
  readonly #tiles: Tile[] = [];

  /**
   * `MDM_PROOF_LENGTH` unless the proof is exactly as long as the plan says. The output must be as long as the
   * instruction says.
   */
  constructor(plan: Plan, proof: Uint8Array, output: Uint8Array) {
    this.plan = plan;
    if (proof.length !== proofLength(plan, proof.length)) {
      throw machineError('MDM_PROOF_LENGTH', `a proof of ${proof.length} bytes does not have the plan's length`);
    }
    let at = 0;
    const take = (length: number): Uint8Array => proof.subarray(at, (at += length));
    for (const piece of plan.pieces) {
      const { from, to } = piece;
      const length = leafBytes(piece, plan.size);
      if (piece.kind === 'bytes') this.#tiles.push({ leaf: from, leaves: to - from, bytes: take(length) });
      else if (piece.kind === 'output') {
        this.#tiles.push({ leaf: from, leaves: to - from, bytes: output.subarray(piece.at, piece.at + length) });
      } else {
        for (const { leaf, height } of subtreesOf(from, to, piece.cap)) {
          this.#tiles.push({ leaf, leaves: 2 ** height, height, hash: take(ROOT_BYTES) });
        }
      }
    }
  }

  /** The root of the old tree, or of the leaves of `range` taken as a tree of their own. */
  rootBefore(range: LeafRange = { from: 0, to: leafCount(this.plan.size) }): Uint8Array {
    const fold = new Fold();
    for (const tile of this.tiles(range)) addTile(fold, tile);
    return fold.root();
  }

  /** The tiles of the leaves of `range`; a subtree that reaches out of it is a mistake in the plan. */
  *tiles(range: LeafRange): Generator<Tile> {
    for (let i = this.#indexOf(range.from); i < this.#tiles.length; i++) {
      const tile = this.#tiles[i]!;
      if (tile.leaf >= range.to) return;
      yield trimTile(tile, range);
    }
  }

  /** The old bytes [offset, offset + length), all of which the proof shows. */
  bytesAt(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const range = { from: Math.floor(offset / LEAF_BYTES), to: Math.ceil((offset + length) / LEAF_BYTES) };
    for (const tile of this.tiles(range)) {
      if (!('bytes' in tile)) throw new Error(`leaf ${tile.leaf} is not opened as bytes`);
      overlay({ offset, bytes }, { offset: tile.leaf * LEAF_BYTES, bytes: tile.bytes });
    }
    return bytes;
  }

  /** The root after `moves` and then `edits` were made to a file whose size stays the same. */
  rootAfter(edits: readonly Edit[], moves: readonly Move[] = []): Uint8Array {
    const { size } = this.plan;
    const fresh = edits.map((edit) => ({ edit, range: coverage(edit.offset, edit.bytes.length, size).whole }));
    const starts = [...fresh, ...moves].map(({ range }) => range).filter((r) => r.from < r.to);
    const fold = new Fold();
    while (fold.leaves < leafCount(size)) {
      const at = fold.leaves;
      const move = moves.find(({ range }) => range.from === at && at < range.to);
      const edited = fresh.find(({ range }) => range.from === at && at < range.to);
      if (move !== undefined) {
        const { source, range } = move;
        for (const tile of this.tiles({ from: source, to: source + range.to - range.from })) addTile(fold, tile);
      } else if (edited !== undefined) {
        const { offset, bytes } = edited.edit;
        const from = at * LEAF_BYTES - offset;
        fold.bytes(bytes.subarray(from, from + leafBytes(edited.range, size)));
      } else {
        const to = Math.min(leafCount(size), ...starts.filter((r) => r.from > at).map((r) => r.from));
        for (const tile of this.tiles({ from: at, to })) addTile(fold, 'bytes' in tile ? patched(tile, edits) : tile);
      }
    }
    return fold.root();
  }

  #indexOf(leaf: number): number {
    let [low, high] = [0, this.#tiles.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const tile = this.#tiles[middle]!;
      if (tile.leaf + tile.leaves <= leaf) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Adds `tile` to a fold at its turn. */
export function addTile(fold: Fold, tile: Tile): void {
  if ('bytes' in tile) fold.bytes(tile.bytes);
  else fold.subtree(tile.height, tile.hash);
}

function trimTile(tile: Tile, range: LeafRange): Tile {
  const from = Math.max(tile.leaf, range.from);
  const to = Math.min(tile.leaf + tile.leaves, range.to);
  if (from === tile.leaf && to === tile.leaf + tile.leaves) return tile;
  if (!('bytes' in tile))
    throw new Error(`the subtree at leaf ${tile.leaf} reaches out of [${range.from}, ${range.to})`);
  const bytes = tile.bytes.subarray((from - tile.leaf) * LEAF_BYTES, (to - tile.leaf) * LEAF_BYTES);
  return { leaf: from, leaves: to - from, bytes };
}

/** `tile` with the bytes of `edits` in it. */
function patched(tile: Tile & { bytes: Uint8Array }, edits: readonly Edit[]): Tile {
  const bytes = tile.bytes.slice();
  for (const edit of edits) overlay({ offset: tile.leaf * LEAF_BYTES, bytes }, edit);
  return { ...tile, bytes };
}

/** Copies to `target` what of `source` falls into it. */
export function overlay(target: Edit, source: Edit): void {
  const from = Math.max(target.offset, source.offset);
  const to = Math.min(target.offset + target.bytes.length, source.offset + source.bytes.length);
  if (from < to)
    target.bytes.set(source.bytes.subarray(from - source.offset, to - source.offset), from - target.offset);
}
