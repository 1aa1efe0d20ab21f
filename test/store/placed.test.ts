import assert from 'node:assert/strict';
import * as fc from 'fast-check';
import { contentKey, type Extent } from '../../store/content.ts';
import { PlacedContents } from '../../store/placed.ts';

const sector = fc.integer({ min: 0, max: 5 }).map((n) => Buffer.alloc(32, n));
const size = fc.integer({ min: 1, max: 3 });
/** Roots that begin alike: they meet in the table. */
const root = fc.tuple(fc.integer({ min: 0, max: 3 }), fc.nat()).map(([first, rest]) => {
  const bytes = Buffer.alloc(32, first);
  bytes.writeUInt32LE(rest, 20);
  return bytes;
});
const content = fc.record({ root, size, sector, offset: fc.nat(1 << 22), pieces: fc.integer({ min: 1, max: 3 }) });

/** The content in as many pieces. */
const extentsOf = (c: { size: number; sector: Buffer; offset: number; pieces: number }): Extent[] =>
  Array.from({ length: Math.min(c.pieces, c.size) }, (_, i, at = Math.min(c.pieces, c.size)) => ({
    sector: c.sector,
    offset: c.offset + i,
    length: i === at - 1 ? c.size - i : 1,
  }));

describe('store: contents whose places are known', () => {
  it('are found again, and come in the order of their keys', () => {
    fc.assert(
      fc.property(fc.array(content, { maxLength: 2000 }), fc.integer({ min: 1, max: 700 }), (all, most) => {
        const placed = new PlacedContents();
        const model = new Map<string, Extent[]>();
        for (const one of all) {
          const key = contentKey(one);
          assert.equal(placed.has(key), model.has(key.toString('hex')));
          if (placed.has(key)) continue;
          placed.add(key, extentsOf(one));
          model.set(key.toString('hex'), extentsOf(one));
        }
        assert.equal(placed.size, model.size);
        for (const [key, extents] of model)
          assert.deepEqual(plain(placed.find(Buffer.from(key, 'hex'))), plain(extents));
        const batches = [...placed.inOrder(most)];
        assert.ok(batches.every(({ length }) => length > 0 && length <= most));
        assert.deepEqual(
          batches.flat().map(({ key, extents }) => [key.toString('hex'), plain(extents)]),
          [...model].toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([key, extents]) => [key, plain(extents)]),
        );
      }),
      { numRuns: Number(process.env['PG_TEST_CASES'] ?? 30), endOnFailure: true },
    );
  });
});

const plain = (extents: readonly Extent[] | undefined): unknown =>
  extents?.map(({ sector: at, offset, length }) => [Buffer.from(at).toString('hex'), offset, length]);
