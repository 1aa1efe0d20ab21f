import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Extents } from '../../../fs/view/extents.ts';
import { LiveSectors } from '../../../fs/view/live-sectors.ts';
import {
  deltaOf,
  isLog,
  logSource,
  lowerIno,
  lowerSource,
  payloadBytesOf,
  ZEROS,
} from '../../../fs/view/run-source.ts';

const SIZE = 2000;

/** What every byte of a file is, one array cell a byte: the slow twin. */
class Cells {
  readonly cells: string[] = Array.from({ length: SIZE }, () => 'hole');

  set(start: number, length: number, describe: (i: number) => string): void {
    for (let i = 0; i < length; i++) this.cells[start + i] = describe(i);
  }
}

/** The extents' bytes in the same words. */
function cellsOf(extents: Extents): string[] {
  const cells = new Cells();
  let last = 0;
  extents.visit(0, SIZE, (start, length, place, source) => {
    assert.ok(start >= last && length > 0, 'runs are in order');
    last = start + length;
    cells.set(start, length, (i) => describeByte(place, source, i));
  });
  return cells.cells;
}

function describeByte(place: number, source: number, i: number): string {
  if (source === ZEROS) return 'zero';
  if (isLog(source)) return `log ${place + i} ${deltaOf(source) + i} of ${payloadBytesOf(source)}`;
  return `lower ${lowerIno(source)} ${place + i}`;
}

const range = fc
  .tuple(fc.nat(SIZE - 1), fc.nat(SIZE))
  .map(([start, length]) => ({ start, length: Math.max(1, Math.min(length, SIZE - start)) }));
const small = fc
  .tuple(fc.nat(SIZE / 4 - 1), fc.constantFrom(1, 2, 3, 4))
  .map(([block, blocks]) => ({ start: block * 4, length: Math.min(blocks * 4, SIZE - block * 4) }));
const step = fc.tuple(
  fc.constantFrom('log', 'log', 'log', 'lower', 'zero', 'clear', 'fill', 'truncate'),
  fc.oneof({ weight: 1, arbitrary: range }, { weight: 8, arbitrary: small }),
);

describe('extents', () => {
  it('are what an array of bytes would be', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 700, size: 'max' }), (steps) => {
        const live = new LiveSectors();
        const extents = new Extents(live);
        const cells = new Cells();
        let place = 0;
        let then: [Extents, string[]] | undefined;
        for (const [i, [kind, { start, length }]] of steps.entries()) {
          if (i % 100 === 50) {
            if (then !== undefined) assert.deepEqual(cellsOf(then[0]), then[1], 'a frozen copy stays as it is');
            then = [extents.frozen(new LiveSectors()), cells.cells.slice()];
          }
          if (kind === 'clear' || kind === 'truncate') {
            const bytes = kind === 'clear' ? length : SIZE - start;
            if (kind === 'clear') extents.clear(start, length);
            else extents.truncate(start);
            cells.set(start, bytes, () => 'hole');
            continue;
          }
          if (kind === 'fill') {
            extents.fillGaps(start, length);
            cells.set(start, length, (i) => (cells.cells[start + i] === 'hole' ? 'zero' : cells.cells[start + i]!));
            continue;
          }
          const source = kind === 'log' ? logSource(0, length) : kind === 'lower' ? lowerSource(7) : ZEROS;
          const at = kind === 'zero' ? 0 : kind === 'lower' ? start : (place += 10_000);
          extents.set(start, length, at, source);
          cells.set(start, length, (i) => describeByte(at, source, i));
        }
        assert.deepEqual(cellsOf(extents), cells.cells);
        assert.equal(extents.allocated, cells.cells.filter((cell) => cell !== 'hole').length);
        const counted = new LiveSectors();
        for (const [, length, at, source] of extents.runs()) counted.count(length, at, source, 1);
        assert.deepEqual([live.total, live.sectors()], [counted.total, counted.sectors()]);
        if (then !== undefined) assert.deepEqual(cellsOf(then[0]), then[1], 'a frozen copy stays as it is');
        assert.deepEqual(cellsOf(extents.frozen(new LiveSectors())), cells.cells);
        extents.release();
        assert.deepEqual([live.total, live.sectors()], [0, []]);
      }),
      { numRuns: 150 },
    );
  });

  it('join what is written one after another while the entry grows, also over older runs', () => {
    const extents = new Extents(new LiveSectors());
    for (let i = 0; i < 10; i++) extents.set(i * 100, 100, 5000 + i * 1000, logSource(0, 100));
    assert.equal(extents.count, 10);
    for (let i = 0; i < 10; i++) extents.set(i * 100, 100, 90_000 + i * 100, logSource(i * 100, (i + 1) * 100));
    assert.equal(extents.count, 1);
    extents.visit(0, 1000, (start, length, place, source) => {
      assert.deepEqual([start, length, place, source], [0, 1000, 90_000, logSource(0, 1000)]);
    });
  });

  it('hold a million runs, found and replaced one by one', () => {
    const extents = new Extents(new LiveSectors());
    for (let i = 0; i < 1_000_000; i++)
      extents.set(((i * 7919) % 1_000_000) * 8192, 8192, i * 9000, logSource(0, 8192));
    assert.equal(extents.count, 1_000_000);
    assert.equal(extents.allocated, 1_000_000 * 8192);
    extents.set(123_456 * 8192, 8192, 42, logSource(0, 8192));
    assert.equal(extents.count, 1_000_000);
    extents.visit(123_456 * 8192 + 5, 123_456 * 8192 + 6, (start, length, place, source) => {
      assert.deepEqual([start, length, place, deltaOf(source)], [123_456 * 8192 + 5, 1, 47, 5]);
    });
    extents.truncate(0);
    assert.deepEqual([extents.count, extents.allocated], [0, 0]);
  });
});
