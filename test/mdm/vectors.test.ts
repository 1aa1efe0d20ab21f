import assert from 'node:assert/strict';
import { Accumulator } from '../../mdm/accumulator.ts';
import { input } from '../../mdm/kernel/kernel.ts';
import * as merkle from '../../mdm/merkle.ts';
import { buildRangeProof, type LeafRange, proofSubtrees, verifyRangeProof } from '../../mdm/range-proof.ts';
import { Fold, subtreesOf, zeroRoot } from '../../mdm/subtrees.ts';
import { twinFold, twinLeaves, twinRoot } from './twin.ts';
import { generate, generateRoots, hex, unhex, vectors } from './vectors.ts';

const SECTOR = merkle.SECTOR_BYTES;

/** The roots of subtrees over `data`. */
const over = (data: Uint8Array) => (t: LeafRange) => merkle.bufferRoot(data.subarray(t.from * 64, t.to * 64));
/** The same over a list of roots. */
const overRoots = (roots: Uint8Array[]) => (t: LeafRange) => merkle.rootOfRoots(roots.slice(t.from, t.to));
const perfect = (from: number, to: number): LeafRange[] =>
  [...subtreesOf(from, to)].map(({ leaf, height }) => ({ from: leaf, to: leaf + 2 ** height }));
const joined = (hashes: string[]): Uint8Array => unhex(hashes.join(''));

describe("Sia's vectors", () => {
  it('leaf and node hashes', () => {
    for (const v of vectors.primitives) {
      const data = unhex(v.data64);
      assert.equal(hex(merkle.leafHash(data)), v.leafHash);
      assert.equal(hex(merkle.nodeHash(data.subarray(0, 32), data.subarray(32))), v.nodeHash);
    }
    for (const v of vectors.shortLeaves) assert.equal(hex(merkle.leafHash(unhex(v.data))), v.leafHash);
    for (const v of vectors.zeroSubtrees) assert.equal(hex(zeroRoot(v.height)), v.root);
  });

  it('roots of buffers, at once, accumulated, and as content of a sector', () => {
    for (const v of vectors.bufferRoots) {
      const data = generate(v.gen, v.size);
      assert.equal(hex(merkle.bufferRoot(data)), v.root, `${v.size} bytes`);
      if (v.size < 100_000) assert.equal(hex(twinRoot(data)), v.root, `${v.size} bytes, twin`);
      const accumulator = new Accumulator();
      for (let at = 0; at < v.size; at += 1000) accumulator.append(data.subarray(at, at + 1000));
      assert.equal(hex(accumulator.root()), v.root, `${v.size} bytes, accumulated`);
      if (v.size > SECTOR) continue;
      input.set(data);
      assert.equal(hex(merkle.inputSector(v.size, [{ offset: 0, length: v.size }]).contentRoots[0]!), v.root);
    }
  });

  it('roots of sectors and of their 4 KiB blocks', () => {
    for (const v of vectors.sectorRoots) {
      const data = generate(v.gen, SECTOR);
      assert.equal(hex(merkle.sectorRoot(data)), v.root);
      const blocks = merkle.blockRoots(data);
      assert.equal(hex(blocks.subarray(0, 32)), v.subtree4k_first);
      assert.equal(hex(blocks.subarray(-32)), v.subtree4k_last);
      assert.equal(hex(merkle.foldRoots(blocks)), v.root);
    }
  });

  it('roots of files from the roots of their sectors', () => {
    for (const v of vectors.fileRoots) {
      const data = generate(v.gen, v.size);
      assert.equal(hex(merkle.bufferRoot(data)), v.root);
      const full = Math.floor(v.size / SECTOR);
      const tail = data.subarray(full * SECTOR);
      assert.equal(hex(merkle.fileRoot(v.sectorRoots.slice(0, full).map(unhex), tail)), v.root);
      assert.equal(hex(merkle.rootOfRoots(v.sectorRoots.map(unhex))), v.root);
    }
    for (const v of vectors.metaRoots) assert.equal(hex(merkle.rootOfRoots(generateRoots(v.seed, v.n))), v.root);
  });

  it('range proofs in buffers, in a sector, and over sector roots', () => {
    for (const v of vectors.bufferRangeProofs) checkRanges(generate(v.gen, v.size), v.root, v.proofs);
    checkRanges(
      generate(vectors.sectorRangeProofs.gen, SECTOR),
      vectors.sectorRangeProofs.root,
      vectors.sectorRangeProofs.proofs,
    );
    for (const v of vectors.sectorRootRangeProofs) {
      const roots = generateRoots(v.seed, v.n);
      for (const { start, end, proof } of v.proofs) {
        assert.equal(hex(buildRangeProof(v.n, { from: start, to: end }, overRoots(roots))), proof.join(''));
        const inside = Buffer.concat(roots.slice(start, end));
        assert.ok(verifyRangeProof(unhex(v.root), v.n, { from: start, to: end }, inside, joined(proof), true));
        inside[0]! ^= 1;
        assert.ok(!verifyRangeProof(unhex(v.root), v.n, { from: start, to: end }, inside, joined(proof), true));
      }
    }
  });

  it('proofs of single leaves, from leaf to root', () => {
    for (const v of vectors.leafProofs) {
      const data = generate(v.gen, v.size);
      for (const { index, leafLen, proofLeafToRoot, proofLeftToRight } of v.proofs) {
        const range = { from: index, to: index + 1 };
        const proof = buildRangeProof(v.leaves, range, over(data));
        assert.equal(hex(proof), proofLeftToRight.join(''));
        // Left siblings come highest first, right ones lowest first: both by distance from the leaf.
        const siblings = [...proofSubtrees(v.leaves, [range])];
        assert.deepEqual(siblings.map(over(data)).map(hex).toSorted(), proofLeafToRoot.toSorted());
        const leaf = data.subarray(index * 64, index * 64 + leafLen);
        assert.ok(verifyRangeProof(unhex(v.root), v.leaves, range, leaf, proof));
      }
    }
  });

  it('proofs of several ranges', () => {
    for (const v of vectors.multiRangeProofs) {
      const data = generate(v.gen, v.size);
      assert.equal(hex(merkle.bufferRoot(data)), v.root);
      const ranges = v.ranges.map(([from, to]) => ({ from, to }));
      assert.deepEqual([...proofSubtrees(v.leaves, ranges)].map(over(data)).map(hex), v.multiRangeProof);
      // Sia's diff proofs cut the ragged end into perfect subtrees, as the machine's opening plans do.
      const starts = [0, ...ranges.map(({ to }) => to)];
      const outside = starts.flatMap((from, i) => perfect(from, ranges[i]?.from ?? v.leaves));
      assert.deepEqual(outside.map(over(data)).map(hex), v.diffProof);
      const inside = v.ranges.flatMap(([from, to]) => perfect(from, to)).map(over(data));
      assert.deepEqual(inside.map(hex), v.compressedRangeHashes);
    }
  });

  it('sectors appended, swapped, trimmed and freed', () => {
    for (const v of vectors.appendProofs) {
      const roots = generateRoots(v.seed, v.n + v.k);
      assert.deepEqual(perfect(0, v.n).map(overRoots(roots)).map(hex).toReversed(), v.subtreeRoots);
      const fold = new Fold();
      for (const { height } of subtreesOf(0, v.n)) fold.subtree(height, unhex(v.subtreeRoots.pop()!));
      assert.equal(hex(fold.root()), v.oldRoot);
      for (const root of roots.slice(v.n)) fold.subtree(0, root);
      assert.equal(hex(fold.root()), v.newRoot);
    }
    for (const v of vectors.sectorDiffProofs) {
      const roots = generateRoots(v.seed, v.n);
      assert.equal(hex(twinFold(roots)), v.oldRoot);
      checkOpened(roots, v.leafHashes, v.treeHashes);
      for (const action of v.actions) {
        if (action.type === 'append') roots.push(unhex(action.root));
        if (action.type === 'trim') roots.length -= action.n;
        if (action.type === 'swap') [roots[action.i], roots[action.j]] = [roots[action.j]!, roots[action.i]!];
      }
      assert.equal(roots.length, v.newN);
      assert.equal(hex(merkle.rootOfRoots(roots)), v.newRoot);
    }
    for (const v of vectors.freeSectorProofs) {
      const roots = generateRoots(v.seed, v.n);
      assert.equal(hex(merkle.rootOfRoots(roots)), v.oldRoot);
      checkOpened(roots, v.leafHashes, v.treeHashes);
    }
  });

  it('leaves of the twin are leaves of the kernel', () => {
    const data = generate({ kind: 'xorshift32', seed: 3 }, 1000);
    twinLeaves(data).forEach((leaf, i) => {
      assert.equal(hex(merkle.leafHash(data.subarray(64 * i, 64 * i + 64))), hex(leaf));
    });
  });
});

function checkRanges(data: Uint8Array, root: string, proofs: { start: number; end: number; proof: string[] }[]): void {
  const leaves = Math.ceil(data.length / 64);
  assert.equal(hex(merkle.bufferRoot(data)), root);
  for (const { start, end, proof } of proofs) {
    const range = { from: start, to: end };
    assert.equal(hex(buildRangeProof(leaves, range, over(data))), proof.join(''));
    const inside = data.slice(64 * start, 64 * end);
    const bytes = joined(proof);
    const accepts = (piece: Uint8Array, given: Uint8Array): boolean =>
      verifyRangeProof(unhex(root), leaves, range, piece, given);
    assert.ok(accepts(inside, bytes));
    assert.ok(!accepts(inside.subarray(1), bytes));
    assert.ok(!accepts(inside, Buffer.concat([bytes, new Uint8Array(32)])), 'a surplus hash');
    if (bytes.length > 0) assert.ok(!accepts(inside, bytes.subarray(32)), 'a missing hash');
    inside[inside.length >> 1]! ^= 128;
    assert.ok(!accepts(inside, bytes));
  }
}

/** Every hash Sia's proof opens is a root of ours, and together with the others gives the old root. */
function checkOpened(roots: Uint8Array[], leafHashes: string[], treeHashes: string[]): void {
  const opened = roots.flatMap((root, i) => (leafHashes.includes(hex(root)) ? [i] : []));
  assert.equal(opened.length, leafHashes.length);
  const ranges = opened.map((i) => ({ from: i, to: i + 1 }));
  const outside = [...proofSubtrees(roots.length, ranges)].map(overRoots(roots)).map(hex);
  assert.deepEqual(outside, treeHashes);
}
