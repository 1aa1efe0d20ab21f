import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { importImage } from '../../layers/import.ts';
import { spaceOf } from '../../layers/space.ts';
import type { Store } from '../../store/store.ts';
import { noise, Place, prose } from '../store/fixture.ts';
import { writeLayout } from './listing.ts';
import { imageOf, tarBytes } from './tar-builder.ts';

describe('the space that images take', () => {
  let place: Place;
  let store: Store;
  let dir: string;
  beforeEach(() => {
    place = new Place();
    store = place.open();
    dir = mkdtempSync('/var/tmp/pg-test-');
  });
  afterEach(async () => {
    await place.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  let count = 0;
  const bring = async (files: Record<string, Buffer>) => {
    const tar = tarBytes(Object.entries(files).map(([name, data]) => ({ name, data })));
    return (await importImage(store, await writeLayout(join(dir, String(count++)), imageOf(tar)))).image;
  };

  it('is told apart by who needs it, to the byte, also within files', async () => {
    const [base, own, big] = [noise(2_000_000, 1), noise(300_000, 2), noise(3_000_000, 3)];
    const newer = Buffer.concat([big.subarray(0, 1_500_000), noise(70_000, 4), big.subarray(1_500_000)]);
    const one = await bring({ base, own, big });
    const two = await bring({ base, big: newer });
    const three = await bring({ else: prose(400_000, 5) });
    await store.pack();
    const [a, b, c] = spaceOf(store, [one, two, three]);
    const near = (got: number, want: number, what: string): void =>
      assert.ok(Math.abs(got - want) < 70_000, `${what}: ${got}, not ${want}`);
    near(a!.shared.plain, 5_000_000, 'shared of the first');
    near(a!.unique.plain, 300_000, 'its own');
    near(b!.shared.plain, 5_000_000, 'shared of the second');
    near(b!.unique.plain, 70_000, 'its own');
    near(c!.unique.plain, 400_000, 'the third');
    assert.ok(c!.unique.disk < 300_000, 'which is compressed');
    for (const { total, shared, unique } of [a!, b!, c!]) {
      assert.equal(total.plain, shared.plain + unique.plain);
      assert.ok(Math.abs(total.disk - shared.disk - unique.disk) < 1);
    }
    assert.deepEqual(
      a!.sharedWith.map(({ image, bytes }) => [image.id, bytes.plain]),
      [[two.id, a!.shared.plain]],
    );
    assert.equal(a!.shared.plain, b!.shared.plain);
    assert.deepEqual(c!.sharedWith, []);
    const all = a!.unique.disk + b!.unique.disk + c!.unique.disk + a!.shared.disk;
    const { diskBytes } = store.usage();
    assert.ok(all <= diskBytes * 1.01 && all > diskBytes * 0.9, `${all} of ${diskBytes}`);
    const [alone] = spaceOf(store, [one]);
    assert.equal(alone!.unique.plain, a!.total.plain);
  });
});
