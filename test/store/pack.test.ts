import assert from 'node:assert/strict';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { isPgError } from '../../mdm/error.ts';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { encodeSectorRecord } from '../../store/catalog.ts';
import { packSector, PACKED_HEAD_BYTES, UNIT_BYTES, unpackSector } from '../../store/packed.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { importAll, noise, Place, prose, readAll } from './fixture.ts';

describe('store: packed sectors', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  const fileOf = (ref: ContentRef): string => store.sectorPath(store.contentExtents(ref)![0]!.sector);

  it('take less space, hold the same bytes under the same names, and are what verify expects', async () => {
    const contents = [prose(9_000_000, 1), noise(300_000, 2), prose(5000, 3), new Uint8Array(3_000_000), prose(70, 4)];
    const refs = await importAll(store, contents);
    const before = store.usage();
    const result = await store.pack();
    const after = store.usage();
    assert.ok(after.diskBytes < before.diskBytes / 2, `${after.diskBytes} of ${before.diskBytes}`);
    assert.equal(result.bytesBefore - result.bytesAfter, before.diskBytes - after.diskBytes);
    assert.equal(result.sectors, before.sectors);
    for (const reader of [store, place.open()])
      refs.forEach((ref, i) => assert.ok(readAll(reader, ref).equals(contents[i]!), `content ${i}`));
    assert.deepEqual((await store.verify()).problems, []);
    assert.equal((await store.pack()).sectors, 0, 'nothing is tried twice');
  });

  it('have all that the file has, whatever the index says of it', async () => {
    const bytes = prose(3_000_000, 1);
    const [ref] = await importAll(store, [bytes]);
    const { sector } = store.contentExtents(ref!)![0]!;
    const sectors = store.table('sectors');
    store.transaction(() => sectors.put(sector, encodeSectorRecord({ used: 100_000, form: 'plain' })));
    assert.equal((await store.pack()).packed, 1);
    assert.ok(readAll(place.open(), ref!).equals(bytes));
  });

  it('are read at any offset as what they stand for', async () => {
    const bytes = Buffer.concat([prose(1_500_000, 1), noise(200_000, 2), new Uint8Array(400_000), prose(3_000_000, 3)]);
    const [ref] = await importAll(store, [bytes]);
    await store.pack();
    const content = store.openContent(ref!);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: bytes.length }), fc.integer({ min: 0, max: 300_000 }), (offset, length) => {
        const into = Buffer.alloc(length);
        const count = content.readAt(into, offset);
        assert.ok(into.subarray(0, count).equals(bytes.subarray(offset, offset + length)));
      }),
      { numRuns: 200 },
    );
  });

  it('come while a reader has the old file open', async () => {
    const bytes = prose(4_000_000, 1);
    const [ref] = await importAll(store, [bytes]);
    const reader = place.open();
    const content = reader.openContent(ref!);
    const into = Buffer.alloc(4096);
    content.readAt(into, 0);
    await store.pack();
    content.readAt(into, 2_000_000);
    assert.ok(into.equals(bytes.subarray(2_000_000, 2_004_096)));
  });

  it('are not made of what does not compress', async () => {
    const [ref] = await importAll(store, [noise(4_000_000, 1)]);
    const file = readFileSync(fileOf(ref!));
    const { packed } = await store.pack();
    assert.equal(packed, 0);
    assert.ok(readFileSync(fileOf(ref!)).equals(file));
    assert.equal((await store.pack()).sectors, 0, 'and that is remembered');
  });

  it('are written at once where the import says so', async () => {
    const writer = store.writer('test', 1);
    const text = prose(6_000_000, 1);
    const { ref } = await writer.put(text.length, [text]);
    await writer.finish();
    assert.ok(statSync(fileOf(await ref)).size < SECTOR_BYTES / 2);
    assert.ok(readAll(store, await ref).equals(text));
    assert.equal((await store.pack()).sectors, 0);
  });

  it('never give wrong bytes, whichever byte is damaged or however they are cut', async () => {
    const bytes = prose(300_000, 1);
    const [ref] = await importAll(store, [bytes]);
    await store.pack();
    const path = fileOf(ref!);
    const good = readFileSync(path);
    const tries = fc.oneof(
      fc.record({ at: fc.integer({ min: 0, max: good.length - 1 }), bit: fc.integer({ min: 0, max: 7 }) }),
      fc.record({ at: fc.integer({ min: 0, max: PACKED_HEAD_BYTES - 1 }), bit: fc.integer({ min: 0, max: 7 }) }),
      fc.record({ cut: fc.integer({ min: 0, max: good.length - 1 }) }),
    );
    fc.assert(
      fc.property(tries, (damage) => {
        if ('cut' in damage) writeFileSync(path, good.subarray(0, damage.cut));
        else {
          const bad = Buffer.from(good);
          bad[damage.at]! ^= 1 << damage.bit;
          writeFileSync(path, bad);
        }
        const into = Buffer.alloc(bytes.length);
        assert.throws(
          () => place.open().readContentAt(ref!, into, 0),
          (error) => isPgError(error, 'CORRUPT_SECTOR') && error.message.includes(path),
        );
      }),
      { numRuns: 60 },
    );
    writeFileSync(path, good.subarray(0, good.length - 1));
    assert.match((await store.verify()).problems.map(({ message }) => message).join('\n'), /wrong size/);
    writeFileSync(path, good);
    assert.ok(readAll(place.open(), ref!).equals(bytes));
  });

  it('are as docs/formats/sector.md says, whatever is in them', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('prose', 'noise', 'zeros'), fc.integer({ min: 1, max: 400_000 })), {
          minLength: 1,
          maxLength: 8,
        }),
        (parts) => {
          const data = Buffer.concat(
            parts.map(([kind, size], i) =>
              kind === 'prose' ? prose(size, i + 1) : kind === 'noise' ? noise(size, i + 1) : Buffer.alloc(size),
            ),
          );
          const stale = Buffer.concat([data, noise(SECTOR_BYTES - data.length, 9)]);
          const file = packSector(stale, data.length, 1);
          if (file === undefined) return;
          assert.equal(file.toString('latin1', 0, 4), 'PGz1');
          assert.equal(file.readUInt32LE(8), file.length);
          const into = noise(SECTOR_BYTES, 7);
          assert.deepEqual(unpackSector(file, into), []);
          assert.ok(into.equals(Buffer.concat([data], SECTOR_BYTES)), 'what follows the used bytes is zero');
          for (let unit = 0; unit < 64; unit++) assert.ok(file.readUInt32LE(16 + 12 * unit + 4) <= UNIT_BYTES);
        },
      ),
      { numRuns: 25 },
    );
  });
});
