import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import type { ContentRef, Store } from '../../store/store.ts';
import { importAll, noise, Place, prose, readAll } from './fixture.ts';

describe('store: sectors that are dead in part', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  const mark = (refs: readonly ContentRef[]) => () => refs.map((ref) => ({ kind: 'content' as const, ref }));

  for (const packed of [false, true]) {
    it(`give their space back${packed ? ' when they are packed' : ''}; what is needed of them stays readable throughout`, async () => {
      const contents = Array.from({ length: 90 }, (_, i) => (packed ? prose : noise)(90_000 + 777 * i, i + 1));
      const refs = await importAll(store, contents);
      if (packed) await store.pack();
      const kept = refs.filter((_, i) => i % 5 === 0);
      const reader = place.open();
      const early = kept.map((ref) => reader.openContent(ref)); // not read yet: no file of theirs is open
      await store.collect(mark(kept));
      const before = store.usage().diskBytes;
      const { sectors } = await store.repack();
      assert.ok(sectors >= 2);
      assert.deepEqual((await store.verify()).problems, []);
      await store.collect(mark(kept));
      await store.pack();
      const after = store.usage();
      assert.ok(after.diskBytes < before / 3, `${after.diskBytes} of ${before}`);
      assert.equal(after.contents, kept.length);
      kept.forEach((ref, i) => {
        const bytes = contents[5 * i]!;
        assert.ok(readAll(store, ref).equals(bytes));
        const into = Buffer.alloc(bytes.length);
        assert.equal(early[i]!.readAt(into, 0), bytes.length);
        assert.ok(into.equals(bytes));
      });
      assert.deepEqual((await store.verify()).problems, []);
      assert.equal((await store.repack()).sectors, 0, 'and it is done with');
    });
  }

  it('keep large contents whole that lie in pieces in several of them', async () => {
    const first = noise(6_000_000, 1);
    const second = Buffer.concat([
      noise(500, 2),
      first.subarray(1_000_000, 2_500_000),
      noise(300_000, 3),
      first.subarray(5_000_000),
    ]);
    await importAll(store, [first]);
    const [two] = await importAll(store, [second]);
    await store.collect(mark([two!]));
    await store.repack();
    await store.collect(mark([two!]));
    assert.ok(store.usage().diskBytes < second.length * 1.1);
    assert.ok(readAll(store, two!).equals(second) && readAll(place.open(), two!).equals(second));
    assert.deepEqual((await store.verify()).problems, []);
    const before = store.usage().diskBytes;
    await importAll(store, [Buffer.concat([Buffer.from('x'), second])]);
    assert.ok(store.usage().diskBytes - before < 200_000, 'what was moved is found again');
  });

  it('are left alone when they cannot be read, or nothing much would be gained', async () => {
    const contents = Array.from({ length: 30 }, (_, i) => noise(100_000, i + 1));
    const refs = await importAll(store, contents);
    await store.collect(mark(refs.slice(2)));
    assert.equal((await store.repack()).sectors, 0);
    await store.collect(mark(refs.slice(0, 9)));
    const path = store.sectorPath(store.contentExtents(refs[3]!)![0]!.sector);
    const file = readFileSync(path);
    file[store.contentExtents(refs[3]!)![0]!.offset + 5]! ^= 1;
    writeFileSync(path, file);
    assert.equal((await place.open().repack()).sectors, 0);
    assert.ok(readAll(place.open(), refs[2]!).equals(contents[2]!));
  });
});
