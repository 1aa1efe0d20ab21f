import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isPgError } from '../../mdm/error.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import { indexDir } from '../../store/paths.ts';
import { openStore } from '../../store/store.ts';
import { importAll, noise, Place, readAll } from './fixture.ts';

describe('a damaged index', () => {
  let place: Place;
  beforeEach(() => (place = new Place()));
  afterEach(() => place.remove());

  /** Flips a bit of every copy of these bytes in the index, which nobody has open. */
  function damage(bytes: Buffer, at: number): void {
    const path = join(indexDir(place.roots), 'data.mdb');
    const file = readFileSync(path);
    let found = 0;
    for (let i = file.indexOf(bytes); i >= 0; i = file.indexOf(bytes, i + 1)) {
      file[i + at]! ^= 1;
      found++;
    }
    assert.ok(found > 0, 'the bytes are in the index');
    writeFileSync(path, file);
  }

  it('gives an error that names the table and the key for any byte of a value; the rest is served', async () => {
    const values = Array.from({ length: 20 }, (_, i) => noise(40 + i * 37, i + 1));
    const store = openStore(place.roots);
    const table = store.table('images');
    values.forEach((value, i) => table.put(`sha256:${i}`, value));
    await store.close();
    for (const at of [0, 7, values[5]!.length - 1]) {
      damage(values[5]!, at);
      const again = openStore(place.roots);
      const images = again.table('images');
      assert.throws(
        () => images.get('sha256:5'),
        (error) => isPgError(error, 'CORRUPT_INDEX') && error.message.includes('images, sha256:5'),
      );
      assert.throws(
        () => [...images.range()],
        (error) => isPgError(error, 'CORRUPT_INDEX'),
      );
      values.forEach((value, i) => i === 5 || assert.ok(images.get(`sha256:${i}`)!.equals(value)));
      const told: string[] = [];
      assert.equal([...images.range({ onDamaged: (key) => told.push(key.toString()) })].length, 19);
      assert.deepEqual(told, ['sha256:5']);
      images.put('sha256:5', values[5]!);
      assert.ok(images.get('sha256:5')!.equals(values[5]!), 'what is put again is whole again');
      await again.close();
    }
  });

  it('that tells wrong places of a content does not make other bytes of it, and verify says so', async () => {
    const store = openStore(place.roots);
    const [first, second] = await importAll(store, [noise(100_000, 1), noise(200_000, 2)]);
    const node = noise(300, 3);
    store.table('nodes').put(bufferRoot(node), node);
    const [extent] = store.contentExtents(second!)!;
    await store.close();
    // The offset within the sector, which follows the sector's root in the value.
    const value = Buffer.alloc(44);
    value.set(extent!.sector);
    value.writeUInt32LE(extent!.offset, 32);
    value.writeUInt32LE(extent!.length, 36);
    damage(value, 33);
    damage(node, 100);
    const again = openStore(place.roots);
    assert.throws(
      () => readAll(again, second!),
      (error) => isPgError(error, 'CORRUPT_INDEX'),
    );
    assert.throws(
      () => again.table('nodes').get(bufferRoot(node)),
      (error) => isPgError(error, 'CORRUPT_INDEX'),
    );
    assert.ok(readAll(again, first!).equals(noise(100_000, 1)));
    const { problems } = await again.verify();
    assert.deepEqual(problems.map(({ kind }) => kind).toSorted(), ['content', 'node']);
    await again.close();
  });
});
