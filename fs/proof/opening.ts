import { PgError } from '../../mdm/error.ts';
import { LEAF_BYTES, MAX_SIZE } from '../../mdm/merkle.ts';
import { buildProof, Opening, type Plan, proofLength, type ProofSource } from '../../mdm/opening.ts';
import type { LeafRange } from '../../mdm/range-proof.ts';
import { leafCount } from '../../mdm/subtrees.ts';

/**
 * An opening shows some leaves of a Merkle tree and the roots of what lies between them: docs/formats/proof.md. Its layout is that of the machine's proofs
 * (docs/formats/mdm.md) with the shown leaves as R.
 */

/** Bytes of an opening before its ranges: size of the tree, number of ranges. */
const HEAD_BYTES = 12;
const RANGE_BYTES = 16;

/** Why a proof is not accepted. */
export const refuted = (what: string): PgError => new PgError('PROOF_REFUTED', `the proof does not hold: ${what}`);

/** Some bytes, of which a proof shows some. Asking for others is `PROOF_REFUTED`. */
export interface ShownBytes {
  readonly size: number;
  /** The bytes [offset, offset + length). Good until the next call. */
  read(offset: number, length: number): Uint8Array;
  /** Has the bytes shown that are part of what is proved; they are read later, if at all. */
  show(offset: number, length: number): void;
}

/** The leaves that were asked for. */
export class Touched {
  readonly #ranges: LeafRange[] = [];

  /** Adds the leaves of [offset, offset + length) of a tree over `size` bytes. PROOF_REFUTED when they are not in it. */
  add(offset: number, length: number, size: number): void {
    if (!(offset >= 0 && length >= 0 && offset + length <= size))
      throw refuted('something is said to lie outside of its file');
    if (length === 0) return;
    const range = { from: Math.floor(offset / LEAF_BYTES), to: Math.ceil((offset + length) / LEAF_BYTES) };
    const last = this.#ranges.at(-1);
    // What is read in order is one range.
    if (last !== undefined && range.from >= last.from && range.from <= last.to) last.to = Math.max(last.to, range.to);
    else this.#ranges.push(range);
  }

  /** All of them in order, apart from each other. */
  ranges(): LeafRange[] {
    const merged: LeafRange[] = [];
    for (const { from, to } of this.#ranges.toSorted((a, b) => a.from - b.from)) {
      const last = merged.at(-1);
      if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to);
      else merged.push({ from, to });
    }
    return merged;
  }
}

/** The plan of an opening; ranges in order and apart. */
function planOf(size: number, ranges: readonly LeafRange[]): Plan {
  const plan: Plan = { size, pieces: [] };
  let at = 0;
  for (const { from, to } of ranges) {
    if (from > at) plan.pieces.push({ kind: 'hashes', from: at, to: from, cap: Infinity });
    plan.pieces.push({ kind: 'bytes', from, to });
    at = to;
  }
  const leaves = leafCount(size);
  if (leaves > at) plan.pieces.push({ kind: 'hashes', from: at, to: leaves, cap: Infinity });
  return plan;
}

/** The bytes of the opening of `ranges` in the tree over `size` bytes that `source` has. */
export function encodeOpening(size: number, ranges: readonly LeafRange[], source: ProofSource): Uint8Array[] {
  const head = Buffer.alloc(HEAD_BYTES + RANGE_BYTES * ranges.length);
  head.writeBigUInt64LE(BigInt(size), 0);
  head.writeUInt32LE(ranges.length, 8);
  for (const [i, { from, to }] of ranges.entries()) {
    head.writeBigUInt64LE(BigInt(from), HEAD_BYTES + RANGE_BYTES * i);
    head.writeBigUInt64LE(BigInt(to), HEAD_BYTES + RANGE_BYTES * i + 8);
  }
  return [head, buildProof(planOf(size, ranges), source)];
}

/** An opening as it was read from a proof: the tree's root follows from it. */
export class ShownTree implements ShownBytes {
  readonly size: number;
  readonly root: Uint8Array;
  readonly #ranges: LeafRange[];
  /** The bytes of each range. */
  readonly #bytes: Uint8Array[] = [];
  readonly #touched = new Touched();

  constructor(size: number, ranges: LeafRange[], proof: Uint8Array) {
    this.size = size;
    this.#ranges = ranges;
    const opening = new Opening(planOf(size, ranges), proof, new Uint8Array(0));
    this.root = opening.rootBefore();
    for (const range of ranges)
      for (const tile of opening.tiles(range)) if ('bytes' in tile) this.#bytes.push(tile.bytes);
  }

  read(offset: number, length: number): Uint8Array {
    this.#touched.add(offset, length, this.size);
    if (length === 0) return new Uint8Array(0);
    const leaf = Math.floor(offset / LEAF_BYTES);
    let [low, high] = [0, this.#ranges.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ranges[middle]!.to <= leaf) low = middle + 1;
      else high = middle;
    }
    const range = this.#ranges[low];
    if (range === undefined || range.from > leaf || range.to * LEAF_BYTES < offset + length)
      throw refuted('it does not show all it needs');
    const at = offset - range.from * LEAF_BYTES;
    return this.#bytes[low]!.subarray(at, at + length);
  }

  show(offset: number, length: number): void {
    this.read(offset, length);
  }

  /** PROOF_REFUTED if leaves are shown that nobody needed: a proof has one form. */
  checkUsed(): void {
    const used = this.#touched.ranges();
    const same =
      used.length === this.#ranges.length &&
      used.every(({ from, to }, i) => from === this.#ranges[i]!.from && to === this.#ranges[i]!.to);
    if (!same) throw refuted('it shows more than it needs');
  }
}

/** Reads the opening at `at` of `bytes`; where the next one starts. PROOF_REFUTED. */
export function decodeOpening(bytes: Buffer, at: number): { tree: ShownTree; end: number } {
  const short = (): PgError => refuted('it ends too early');
  if (at + HEAD_BYTES > bytes.length) throw short();
  const size = Number(bytes.readBigUInt64LE(at));
  const count = bytes.readUInt32LE(at + 8);
  const start = at + HEAD_BYTES + RANGE_BYTES * count;
  if (start > bytes.length) throw short();
  if (size === 0 || size > MAX_SIZE) throw refuted('a tree cannot have that size');
  const ranges: LeafRange[] = [];
  let least = -1;
  for (let i = 0; i < count; i++) {
    const range = {
      from: Number(bytes.readBigUInt64LE(at + HEAD_BYTES + RANGE_BYTES * i)),
      to: Number(bytes.readBigUInt64LE(at + HEAD_BYTES + RANGE_BYTES * i + 8)),
    };
    if (!(least < range.from && range.from < range.to && range.to <= leafCount(size)))
      throw refuted('leaves are out of order');
    least = range.to;
    ranges.push(range);
  }
  const length = proofLength(planOf(size, ranges), bytes.length - start);
  if (start + length > bytes.length) throw short();
  return { tree: new ShownTree(size, ranges, bytes.subarray(start, start + length)), end: start + length };
}
