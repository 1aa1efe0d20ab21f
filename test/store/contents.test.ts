import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isPgError } from '../../mdm/error.ts';
import { bufferRoot, fileRoot, SECTOR_BYTES, sectorRoot } from '../../mdm/merkle.ts';
import { isZeroSector, ZERO_SECTOR_ROOT } from '../../store/content.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { importAll, noise, Place, readAll } from './fixture.ts';

const MiB = 1 << 20;

/** The name of a content, by the slow way. */
function refOf(bytes: Buffer): ContentRef {
  const full = Math.floor(bytes.length / SECTOR_BYTES);
  const roots = Array.from({ length: full }, (_, i) =>
    sectorRoot(bytes.subarray(i * SECTOR_BYTES, (i + 1) * SECTOR_BYTES)),
  );
  return { root: fileRoot(roots, bytes.subarray(full * SECTOR_BYTES)), size: bytes.length };
}

describe('store: contents', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  it('gives back what it took, under the name it must have', async () => {
    const sizes = [
      0,
      1,
      63,
      64,
      65,
      4095,
      4096,
      4097,
      12_345,
      100_000,
      SECTOR_BYTES - 1,
      SECTOR_BYTES,
      SECTOR_BYTES + 1,
      9 * MiB + 77,
    ];
    const contents = sizes.map((size, i) => noise(size, i + 1));
    const refs = await importAll(store, contents);
    contents.forEach((bytes, i) => {
      assert.deepEqual(refs[i], refOf(bytes));
      assert.ok(store.hasContent(refs[i]!));
      assert.ok(readAll(store, refs[i]!).equals(bytes), `content of ${bytes.length} bytes`);
    });
  });

  it('reads any range of any content (property)', async function () {
    this.timeout(120_000);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(fc.nat(300), fc.nat(20_000), fc.nat(5 * MiB)), { minLength: 1, maxLength: 12 }),
        fc.array(fc.tuple(fc.nat(), fc.nat(), fc.nat(70_000)), { minLength: 20, maxLength: 20 }),
        fc.nat(1000),
        async (sizes, reads, seed) => {
          const contents = sizes.map((size, i) => noise(size, seed * 100 + i));
          const refs = await importAll(store, contents);
          for (const [which, from, length] of reads) {
            const bytes = contents[which % contents.length]!;
            const offset = from % (bytes.length + 10);
            const into = Buffer.alloc(length, 0xee);
            const count = store.openContent(refs[which % refs.length]!).readAt(into, offset);
            const want = bytes.subarray(offset, offset + length);
            assert.equal(count, want.length);
            assert.ok(into.subarray(0, count).equals(want), `${length} bytes at ${offset} of ${bytes.length}`);
          }
        },
      ),
      { numRuns: 25 },
    );
  });

  it('stores a content once, across imports and within one', async () => {
    const [small, middle, large] = [noise(3000, 1), noise(200_000, 2), noise(6 * MiB, 3)];
    await importAll(store, [small, middle, large, small, middle, large]);
    const before = store.usage();
    const disk = small.length + middle.length + large.length + 32_768;
    assert.ok(before.diskBytes < disk, `${before.diskBytes} bytes on disk`);
    const writer = store.writer();
    for (const bytes of [large, middle, small]) await writer.put(bytes.length, [bytes]);
    await writer.finish();
    assert.deepEqual({ ...store.usage(), indexBytes: 0 }, { ...before, indexBytes: 0 });
    assert.equal(writer.stats.knownBytes, small.length + middle.length + large.length);
    assert.equal(writer.stats.sectors, 0);
  });

  it('stores only what is new of a mixed import, whatever the mix', async () => {
    const pieces = Array.from({ length: 300 }, (_, i) => noise(40_000 + i, i + 1));
    await importAll(
      store,
      pieces.filter((_, i) => i % 3 === 0),
    );
    const refs = await importAll(store, pieces);
    await importAll(store, pieces.slice(100, 200));
    refs.forEach((ref, i) => assert.ok(readAll(store, ref).equals(pieces[i]!)));
    const report = await store.verify();
    assert.deepEqual(report.problems, []);
    const usage = store.usage();
    assert.equal(
      usage.usedBytes,
      pieces.reduce((sum, piece) => sum + piece.length, 0),
    );
    assert.ok(usage.diskBytes < usage.usedBytes * 1.25, `${usage.diskBytes} bytes on disk for ${usage.usedBytes}`);
  });

  it('gives zeros no place on disk', async () => {
    const bytes = Buffer.alloc(13 * MiB);
    noise(5000, 1).copy(bytes, 5 * MiB);
    const [zeros, island, few] = await importAll(store, [Buffer.alloc(9 * MiB), bytes, Buffer.alloc(100)]);
    assert.deepEqual(store.contentExtents(zeros!), [
      { sector: Buffer.from(ZERO_SECTOR_ROOT), offset: 0, length: 9 * MiB },
    ]);
    assert.ok(readAll(store, zeros!).equals(Buffer.alloc(9 * MiB)));
    assert.ok(readAll(store, island!).equals(bytes));
    assert.ok(readAll(store, few!).equals(Buffer.alloc(100)));
    assert.ok(store.usage().diskBytes < 64 * 1024);
    const opened = store.openContent(island!);
    assert.ok(opened.isHole(0, 4 * MiB) && !opened.isHole(4 * MiB, 1) && opened.isHole(8 * MiB, 5 * MiB));
    assert.ok(store.hasSector(ZERO_SECTOR_ROOT) && isZeroSector(ZERO_SECTOR_ROOT));
    assert.ok(Buffer.compare(sectorRoot(new Uint8Array(SECTOR_BYTES)), ZERO_SECTOR_ROOT) === 0);
  });

  it('takes a sparse terabyte without looking at it', async () => {
    const writer = store.writer();
    const size = 2 ** 40;
    const sink = writer.add(size);
    await sink.writeZeros(size - 10);
    await sink.write(Buffer.from('0123456789'));
    await writer.finish();
    const ref = await sink.ref;
    const tail = Buffer.alloc(20);
    assert.equal(store.readContentAt(ref, tail, size - 15), 15);
    assert.equal(tail.toString('latin1', 0, 15), '\0\0\0\0\x000123456789');
    assert.equal(store.contentExtents(ref)!.length, 2);
  });

  it('keeps several contents apart that are written at once, more of them than there are buffers', async () => {
    const contents = Array.from({ length: 30 }, (_, i) => noise(i % 2 ? 5 * MiB + i : 9000 + i, i + 1));
    const writer = store.writer();
    const sinks = contents.map((bytes) => writer.add(bytes.length));
    const longest = Math.max(...contents.map((bytes) => bytes.length));
    for (let at = 0; at < longest; at += 300_000) {
      for (const [i, bytes] of contents.entries()) {
        if (at < bytes.length) await sinks[i]!.write(bytes.subarray(at, at + 300_000));
      }
    }
    await writer.finish();
    for (const [i, bytes] of contents.entries()) assert.ok(readAll(store, await sinks[i]!.ref).equals(bytes));
  });

  it('shows nothing before finish, nothing after abort, and runs `also` with the rest or not at all', async () => {
    const bytes = noise(50_000, 1);
    const ref = refOf(bytes);
    const aborted = store.writer();
    await aborted.put(bytes.length, [bytes]);
    await aborted.flush();
    assert.ok(!store.hasContent(ref));
    await aborted.abort();
    assert.ok(!store.hasContent(ref));
    const failing = store.writer();
    await failing.put(bytes.length, [bytes]);
    const also = (): void => {
      store.table('images').put('x', Buffer.from('y'));
      throw new Error('no');
    };
    await assert.rejects(failing.finish(also), /^Error: no$/);
    assert.ok(!store.hasContent(ref) && store.table('images').get('x') === undefined);
    await importAll(store, [bytes]);
    assert.ok(store.hasContent(ref));
  });

  it('refuses a stream that is too short or too long', async () => {
    const short = store.writer();
    await assert.rejects(short.put(1000, [noise(999, 1)]), (error) => isPgError(error, 'TRUNCATED'));
    await assert.rejects(short.finish(), (error) => isPgError(error, 'TRUNCATED'));
    const long = store.writer();
    await assert.rejects(long.put(1000, [noise(999, 1), noise(2, 1)]), (error) => isPgError(error, 'TOO_LONG'));
    await long.abort();
  });

  it('names a content that is not there', () => {
    const ref = { root: bufferRoot(Buffer.from('x')), size: 1 };
    assert.throws(
      () => store.openContent(ref),
      (error) => isPgError(error, 'UNKNOWN_CONTENT'),
    );
  });
});

describe('store: sectors and contents of others', () => {
  let place: Place;
  let store: Store;
  let source: Place;
  let theirs: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
    source = new Place();
    theirs = source.open();
  });
  afterEach(() => Promise.all([place.remove(), source.remove()]));

  it('takes a sector only under its own root', () => {
    const data = noise(10_000, 1);
    const whole = Buffer.concat([data], SECTOR_BYTES);
    const root = sectorRoot(whole);
    assert.throws(
      () => store.putSector(bufferRoot(data), data),
      (error) => isPgError(error, 'BAD_SECTOR'),
    );
    store.putSector(root, data);
    store.putSector(root, data);
    assert.ok(store.readSector(root).equals(whole));
    assert.equal(store.sectorBytes(root), 10_000);
    assert.throws(
      () => store.readSector(bufferRoot(data)),
      (error) => isPgError(error, 'MISSING_SECTOR'),
    );
  });

  it('copies contents from another store, sector by sector', async () => {
    const contents = [noise(100, 1), noise(70_000, 2), noise(9 * MiB, 3), Buffer.alloc(6 * MiB)];
    const refs = await importAll(theirs, contents);
    const writer = store.writer();
    for (const ref of refs) {
      const extents = theirs.contentExtents(ref)!;
      for (const { sector } of extents)
        if (!isZeroSector(sector)) await writer.putSector(sector, theirs.readSector(sector));
      writer.putExtents(ref, extents);
    }
    await writer.finish();
    refs.forEach((ref, i) => assert.ok(readAll(store, ref).equals(contents[i]!)));
  });

  it('refuses contents that do not have their root, or whose sectors are missing', async () => {
    const [ref, other] = await importAll(theirs, [noise(70_000, 2), noise(70_000, 3)]);
    const extents = theirs.contentExtents(ref!)!;
    const wrong = store.writer();
    const sector = extents[0]!.sector;
    await wrong.putSector(sector, theirs.readSector(sector));
    wrong.putExtents(other!, extents);
    await assert.rejects(wrong.finish(), (error) => isPgError(error, 'BAD_CONTENT'));
    assert.throws(
      () => store.putContentExtents(ref!, extents),
      (error) => isPgError(error, 'MISSING_SECTOR'),
    );
    const lacking = store.writer();
    lacking.putExtents(ref!, extents);
    await assert.rejects(lacking.finish(), (error) => isPgError(error, 'MISSING_SECTOR'));
    store.putSector(sector, theirs.readSector(sector));
    assert.throws(
      () => store.putContentExtents(other!, extents),
      (error) => isPgError(error, 'BAD_CONTENT'),
    );
    store.putContentExtents(ref!, extents);
    assert.ok(readAll(store, ref!).equals(noise(70_000, 2)));
  });

  it('stops an import at a sector that has another root', async () => {
    const writer = store.writer();
    await writer.putSector(bufferRoot(Buffer.from('x')), noise(5000, 1));
    await assert.rejects(writer.finish(), (error) => isPgError(error, 'BAD_SECTOR'));
  });
});
