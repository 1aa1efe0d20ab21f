import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { input, inputAnchors } from '../../mdm/kernel/kernel.ts';
import { bufferRoot, SECTOR_BYTES } from '../../mdm/merkle.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { importAll, noise, Place, prose, readAll } from './fixture.ts';

/** A new version of `bytes`: some are inserted, cut out, overwritten in place. */
type Edit = { kind: 'insert' | 'cut' | 'overwrite'; at: number; length: number };
const edits = fc.array(
  fc.record({
    kind: fc.constantFrom('insert' as const, 'cut' as const, 'overwrite' as const),
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    length: fc.integer({ min: 1, max: 60_000 }),
  }),
  { minLength: 1, maxLength: 5 },
);

function edited(bytes: Buffer, list: readonly Edit[]): Buffer {
  return list.reduce((before, { kind, at, length }, i) => {
    const place = Math.floor(at * before.length);
    const fresh = kind === 'cut' ? Buffer.alloc(0) : noise(length, 1000 + i);
    return Buffer.concat([before.subarray(0, place), fresh, before.subarray(place + (kind === 'insert' ? 0 : length))]);
  }, bytes);
}

const changedBytes = (list: readonly Edit[]): number => list.reduce((sum, { length }) => sum + length, 0);

describe('store: bytes found again', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  async function check(contents: readonly Buffer[], refs: readonly ContentRef[]): Promise<void> {
    contents.forEach((bytes, i) => {
      assert.ok(Buffer.from(refs[i]!.root).equals(bufferRoot(bytes)), 'a content is named by its own bytes alone');
      assert.ok(readAll(store, refs[i]!).equals(bytes));
    });
    assert.deepEqual((await store.verify()).problems, []);
  }

  it('cost a new version of a large content no more than what changed, wherever it was moved to', async () => {
    const first = noise(6_000_000, 1);
    const second = Buffer.concat([
      noise(1001, 2),
      first.subarray(0, 3_000_000),
      noise(50_000, 3),
      first.subarray(3_000_777),
    ]);
    const [one] = await importAll(store, [first]);
    const before = store.usage().diskBytes;
    const [two] = await importAll(store, [second]);
    const cost = store.usage().diskBytes - before;
    assert.ok(cost < 51_001 + 4 * 32_768 + 65_536, `${cost} bytes for 52 KB`);
    await check([first, second], [one!, two!]);
  });

  it('are found whatever was changed, and read back as they should be', async () => {
    await fc.assert(
      fc.asyncProperty(edits, fc.integer({ min: 200_000, max: 2_500_000 }), fc.boolean(), async (list, size, pack) => {
        const seed = size; // not what another case has stored
        const first = pack ? prose(size, seed) : noise(size, seed);
        const second = edited(first, list);
        const [one] = await importAll(store, [first]);
        if (pack) await store.pack();
        const before = store.usage();
        const [two] = await importAll(store, [second]);
        const cost = store.usage().usedBytes - before.usedBytes;
        // Around each change up to two anchors' distance is not recognised (and 4 MiB boundaries count as one).
        assert.ok(cost <= changedBytes(list) + (list.length + 2) * 400_000, `${cost} bytes`);
        assert.ok(readAll(store, one!).equals(first) && readAll(store, two!).equals(second));
        assert.ok(Buffer.from(two!.root).equals(bufferRoot(second)));
      }),
      { numRuns: 8, endOnFailure: true },
    );
    assert.deepEqual((await store.verify()).problems, []);
  });

  it('may be the beginning of a content, which verify leaves whole behind them', async () => {
    const first = noise(1_000_000, 1);
    const second = first.subarray(0, 700_001);
    const refs = await importAll(store, [first]);
    refs.push(...(await importAll(store, [second])));
    await check([first, second], refs);
    await store.collect(() => [{ kind: 'content', ref: refs[1]! }]);
    assert.deepEqual((await store.verify()).problems, []);
  });

  it('may have nothing but zeros between them', async () => {
    const first = noise(2_000_000, 1);
    const zeros = Buffer.alloc(200_000);
    const second = Buffer.concat([first.subarray(0, 1_000_000), zeros, first.subarray(1_000_000)]);
    const refs = await importAll(store, [first]);
    refs.push(...(await importAll(store, [second])));
    await check([first, second], refs);
    assert.ok(store.openContent(refs[1]!).isHole(1_100_000, 4096));
  });

  it('are found in the same import', async () => {
    const first = noise(4_500_000, 1);
    const second = Buffer.concat([noise(100, 2), first]);
    // One after the other, so that the first is written when the second comes.
    const writer = store.writer('test');
    const sinkOne = await writer.put(first.length, [first]);
    await writer.flush();
    const sinkTwo = await writer.put(second.length, [second]);
    await writer.finish();
    await check([first, second], [await sinkOne.ref, await sinkTwo.ref]);
    assert.ok(store.usage().diskBytes < 5_500_000, String(store.usage().diskBytes));
  });

  it('are not taken from a sector that has rotted, nor from one that is gone', async () => {
    const first = noise(3_000_000, 1);
    const [one] = await importAll(store, [first]);
    const path = store.sectorPath(store.contentExtents(one!)![0]!.sector);
    const file = readFileSync(path);
    for (let at = 1000; at < 3_000_000; at += 4096) file[at]! ^= 1;
    writeFileSync(path, file);
    const second = Buffer.concat([Buffer.from('x'), first]);
    const [two] = await importAll(place.open(), [second]);
    assert.ok(readAll(place.open(), two!).equals(second));
    await store.collect(() => [{ kind: 'content', ref: two! }]);
    const third = Buffer.concat([Buffer.from('yz'), noise(3_000_000, 1)]);
    const [three] = await importAll(place.open(), [third]);
    assert.ok(readAll(place.open(), three!).equals(third));
    assert.deepEqual((await place.open().verify()).problems, []);
  });

  it('keep their sectors, and go with them', async () => {
    const first = noise(3_000_000, 1);
    const second = Buffer.concat([Buffer.from('x'), first]);
    const [one] = await importAll(store, [first]);
    const [two] = await importAll(store, [second]);
    const live = [{ kind: 'content' as const, ref: two! }];
    await store.collect(() => live);
    assert.equal(store.hasContent(one!), false);
    assert.ok(readAll(place.open(), two!).equals(second));
    assert.ok(store.table('anchors').count() > 20);
    await store.collect(() => []);
    assert.equal(store.table('anchors').count(), 0, 'no anchor leads nowhere');
    assert.equal(store.usage().diskBytes, 0);
  });

  it('begin at anchors: those that the slow twin finds', () => {
    for (const bytes of [noise(SECTOR_BYTES, 1), prose(SECTOR_BYTES, 2), createHash('sha256').update('x').digest()]) {
      input.fill(0);
      input.set(bytes);
      for (const [from, to, apart, below] of [
        [0, SECTOR_BYTES - 4096, 32_768, 2 ** 16],
        [4096, 1_000_001, 16, 2 ** 24],
        [64, 64, 5, 2 ** 31],
        [0, 3000, 7, 2 ** 31],
      ] as const) {
        const slow: number[] = [];
        const view = new DataView(input.buffer, input.byteOffset);
        for (let p = from; p < to;) {
          const hash =
            (Math.imul(view.getUint32(p, true), 0x9e3779b1) + Math.imul(view.getUint32(p + 4, true), 0x85ebca77)) >>> 0;
          if (hash < below) slow.push(p);
          p += hash < below ? apart : 1;
        }
        assert.deepEqual([...inputAnchors(from, to, apart, below)], slow);
      }
    }
  });
});
