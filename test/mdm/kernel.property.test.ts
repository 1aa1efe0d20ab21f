import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Accumulator } from '../../mdm/accumulator.ts';
import { isPgError } from '../../mdm/error.ts';
import { input } from '../../mdm/kernel/kernel.ts';
import * as merkle from '../../mdm/merkle.ts';
import { buildRangeProof, verifyRangeProof } from '../../mdm/range-proof.ts';
import { Fold, subtreesOf } from '../../mdm/subtrees.ts';
import { CASES, pattern } from './programs.ts';
import { twinFold, twinLeaves, twinRoot } from './twin.ts';
import { hex } from './vectors.ts';

const SECTOR = merkle.SECTOR_BYTES;
const runs = (fast: number, share: number): { numRuns: number } => ({
  numRuns: Math.max(fast, Math.floor(CASES * share)),
});
const sizes = fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: 12_000 }));

/** Cuts `data` into pieces of the given lengths, over and over. */
function* pieces(data: Uint8Array, lengths: number[]): Generator<Uint8Array> {
  for (let at = 0, i = 0; at < data.length; i++) {
    // Never so short that a case takes long.
    const length = Math.max(1, Math.ceil(data.length / 100), lengths[i % lengths.length]!);
    yield data.subarray(at, at + length);
    at += length;
  }
}

describe('the Merkle kernel', function () {
  this.timeout(CASES > 0 ? 0 : 60_000);

  it('agrees with the slow twin on any bytes', () => {
    fc.assert(
      fc.property(sizes, fc.nat(), (size, seed) => {
        const data = pattern(size, seed);
        assert.equal(hex(merkle.bufferRoot(data)), hex(twinRoot(data)));
      }),
      runs(150, 0.5),
    );
  });

  it('agrees with it on folds of any number of roots', () => {
    fc.assert(
      fc.property(fc.oneof(fc.nat({ max: 40 }), fc.constantFrom(2047, 2048, 2049, 4097)), fc.nat(), (count, seed) => {
        const roots = pattern(32 * count, seed);
        const list = Array.from({ length: count }, (_, i) => roots.subarray(32 * i, 32 * i + 32));
        assert.equal(hex(merkle.rootOfRoots(list)), hex(twinFold(list)));
      }),
      runs(60, 0.05),
    );
  });

  it('an accumulator has the root of its bytes, however they came, also saved and restored', () => {
    const lengths = fc.array(fc.oneof(fc.nat({ max: 130 }), fc.nat({ max: 100_000 })), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(fc.oneof(fc.nat({ max: 100 }), fc.nat({ max: 300_000 })), fc.nat(), lengths, (size, seed, cut) => {
        const data = pattern(size, seed);
        let accumulator = new Accumulator();
        let at = 0;
        for (const piece of pieces(data, cut)) {
          const old = accumulator.clone();
          accumulator.append(piece);
          assert.equal(hex(old.root()), hex(merkle.bufferRoot(data.subarray(0, at))), 'the clone is its own');
          at += piece.length;
          accumulator = Accumulator.restore(accumulator.serialize());
          if (at > 20_000 && at < size) continue;
          assert.equal(accumulator.size, at);
          assert.equal(hex(accumulator.root()), hex(merkle.bufferRoot(data.subarray(0, at))));
        }
      }),
      runs(40, 0.05),
    );
  });

  it('refuses what is not the state of an accumulator', () => {
    const accumulator = new Accumulator();
    accumulator.append(pattern(1000, 1));
    const bytes = accumulator.serialize();
    const others = [
      bytes.subarray(1),
      Buffer.concat([bytes, Uint8Array.of(0)]),
      new Uint8Array(7),
      new Uint8Array(8).fill(255),
    ];
    for (const other of others)
      assert.throws(
        () => Accumulator.restore(other),
        (error) => isPgError(error, 'BAD_ACCUMULATOR'),
      );
  });

  it('the root over leaves is the root over sector roots', () => {
    for (const size of [SECTOR - 1, SECTOR, SECTOR + 1, 2 * SECTOR, 2 * SECTOR + 12_345, 3 * SECTOR]) {
      const data = pattern(size, size);
      const full = Math.floor(size / SECTOR);
      const roots = Array.from({ length: full }, (_, i) =>
        merkle.sectorRoot(data.subarray(i * SECTOR, (i + 1) * SECTOR)),
      );
      assert.equal(hex(merkle.fileRoot(roots, data.subarray(full * SECTOR))), hex(merkle.bufferRoot(data)));
    }
  });

  it('hashes a sector and the contents packed in it in one pass', () => {
    const contents = fc.array(
      fc.record({
        length: fc.oneof(fc.nat({ max: 300 }), fc.nat({ max: 70_000 }), fc.nat({ max: SECTOR })),
        unit: fc.constantFrom(64, 64, 4096, 65_536),
      }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(contents, fc.nat(), (list, seed) => {
        const spans: { offset: number; length: number }[] = [];
        let used = 0;
        for (const { length, unit } of list) {
          const offset = Math.ceil(used / unit) * unit;
          if (offset + length > SECTOR) continue;
          spans.push({ offset, length });
          used = offset + length;
        }
        input.fill(0xee);
        const bytes = pattern(used, seed);
        let end = 0;
        for (const { offset, length } of spans) {
          bytes.fill(0, end, offset);
          end = offset + length;
        }
        input.set(bytes);
        // What follows a content up to its next leaf is the kernel's to clear.
        for (const span of spans)
          input.fill(0xee, span.offset + span.length, Math.ceil((span.offset + span.length) / 64) * 64);
        const hashed = merkle.inputSector(used, spans);
        const sector = new Uint8Array(SECTOR);
        sector.set(bytes);
        assert.equal(hex(hashed.root), hex(merkle.sectorRoot(sector)));
        assert.equal(hex(merkle.foldRoots(hashed.blockRoots())), hex(hashed.root));
        for (const [i, { offset, length }] of spans.entries()) {
          assert.equal(hex(hashed.contentRoots[i]!), hex(merkle.bufferRoot(sector.subarray(offset, offset + length))));
        }
      }),
      runs(25, 0.01),
    );
  });

  it('range proofs prove their range and nothing else', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.nat(), fc.nat(), fc.nat(), (size, seed, a, b) => {
        const data = pattern(size, seed);
        const leaves = Math.ceil(size / 64);
        const from = a % leaves;
        const range = { from, to: from + 1 + (b % (leaves - from)) };
        const root = merkle.bufferRoot(data);
        const proof = buildRangeProof(leaves, range, (t) => merkle.bufferRoot(data.subarray(t.from * 64, t.to * 64)));
        const inside = data.slice(range.from * 64, range.to * 64);
        assert.ok(verifyRangeProof(root, leaves, range, inside, proof));
        const hashes = Buffer.concat(twinLeaves(inside));
        assert.ok(verifyRangeProof(root, leaves, range, hashes, proof, true));
        assert.ok(!verifyRangeProof(root, leaves + 64, range, inside, proof));
        if (range.to < leaves)
          assert.ok(!verifyRangeProof(root, leaves, { from: range.from + 1, to: range.to + 1 }, inside, proof));
        inside[seed % inside.length]! ^= 1;
        assert.ok(!verifyRangeProof(root, leaves, range, inside, proof));
        if (proof.length > 0) {
          proof[seed % proof.length]! ^= 1;
          assert.ok(!verifyRangeProof(root, leaves, range, data.subarray(range.from * 64, range.to * 64), proof));
        }
      }),
      runs(200, 0.5),
    );
  });

  it('cuts any range of leaves into perfect subtrees that fold to its root', () => {
    fc.assert(
      fc.property(fc.nat({ max: 2 ** 42 }), fc.nat({ max: 2 ** 42 }), fc.nat({ max: 45 }), (a, b, cap) => {
        const [from, to] = a < b ? [a, b] : [b, a];
        let at = from;
        const limit = Math.max(cap, 30);
        for (const { leaf, height } of subtreesOf(from, to, limit)) {
          assert.ok(leaf === at && height <= limit && leaf % 2 ** height === 0);
          at = leaf + 2 ** height;
        }
        assert.equal(at, to);
      }),
      runs(200, 0.5),
    );
    const fold = new Fold();
    fold.zerosTo(2 ** 41 + 12_345);
    assert.equal(fold.leaves, 2 ** 41 + 12_345);
  });
});
