import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isPgError } from '../../mdm/error.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import { indexDamage } from '../../store/index-check.ts';
import { rebuildIndex } from '../../store/index-rebuild.ts';
import { indexDir } from '../../store/paths.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { importAll, noise, Place, readAll } from './fixture.ts';

describe('mending a store', () => {
  let place: Place;
  let store: Store;
  const contents = [noise(100_000, 1), noise(50_000, 2), Buffer.concat([noise(4 << 20, 3), noise(9000, 4)])];
  let refs: ContentRef[];
  const mended: string[] = [];

  beforeEach(async () => {
    place = new Place();
    store = place.open();
    refs = await importAll(store, contents);
    mended.length = 0;
  });
  afterEach(() => place.remove());

  const sectorOf = (ref: ContentRef): Uint8Array => store.contentExtents(ref)!.at(-1)!.sector;

  /** Flips a bit of a file. */
  function flip(path: string, at: number): void {
    const bytes = readFileSync(path);
    bytes[at]! ^= 1;
    writeFileSync(path, bytes);
  }

  /** Verifies, and begins to mend what that found. */
  async function begin(): Promise<ReturnType<Store['mender']>> {
    const { problems } = await store.verify();
    const mender = store.mender((root, by) => mended.push(`${Buffer.from(root).toString('hex')} ${by}`));
    const damaged = store.damagedContents(problems);
    for (const problem of problems) if (problem.kind === 'sector') mender.add(problem.root, damaged);
    return mender;
  }

  const hex = (root: Uint8Array): string => Buffer.from(root).toString('hex');

  it('checksums are computed anew where the bytes are right', async () => {
    const root = sectorOf(refs[0]!);
    flip(store.sectorPath(root), (4 << 20) + 8);
    const mender = await begin();
    mender.mendChecksums();
    assert.deepEqual(mended, [`${hex(root)} its checksums are computed anew`]);
    assert.deepEqual((await store.verify()).problems, []);
  });

  it('a sector comes from whoever has it, one with other bytes is refused', async () => {
    const root = sectorOf(refs[0]!);
    const good = store.readSector(root);
    flip(store.sectorPath(root), 10_000);
    const mender = await begin();
    mender.mendChecksums();
    assert.ok(!mender.giveSector(root, noise(4 << 20, 9), 'a liar'));
    assert.ok(!mender.giveSector(noise(32, 1), good, 'somebody'), 'one that is whole, or not here, is left alone');
    assert.deepEqual(mended, []);
    assert.ok(mender.giveSector(root, good.subarray(0, store.sectorBytes(root)), 'a friend'));
    assert.deepEqual(mended, [`${hex(root)} a friend`]);
    assert.deepEqual((await store.verify()).problems, []);
    assert.ok(readAll(place.open(), refs[0]!).equals(contents[0]!));
  });

  it('is put together of the contents in it; a missing file too', async () => {
    const root = sectorOf(refs[0]!);
    assert.deepEqual(sectorOf(refs[1]!), root, 'both lie in one sector');
    rmSync(store.sectorPath(root));
    const mender = await begin();
    assert.equal(mender.missing.length, 1);
    mender.giveBytes(refs[0]!, 0, contents[0]!, 'one');
    assert.deepEqual(mended, []);
    mender.giveBytes(refs[1]!, 0, contents[1]!, 'two');
    mender.giveBytes(refs[2]!, 4 << 20, contents[2]!.subarray(4 << 20), 'three');
    assert.equal(mended.length, 1);
    assert.deepEqual((await store.verify()).problems, []);
  });

  it('a reader that has the damaged file open gets the bytes once it is mended', async () => {
    const root = sectorOf(refs[0]!);
    const good = store.readSector(root);
    const reader = place.open();
    flip(store.sectorPath(root), 10_000);
    assert.throws(
      () => readAll(reader, refs[0]!),
      (error) => isPgError(error, 'CORRUPT_SECTOR'),
    );
    assert.ok((await begin()).giveSector(root, good, 'a friend'));
    assert.ok(readAll(reader, refs[0]!).equals(contents[0]!));
  });

  it('entries of the index come from the copy that is kept of it', async () => {
    const node = noise(300, 3);
    store.table('nodes').put(bufferRoot(node), node);
    await store.keepIndexCopy();
    await store.close();
    const path = join(indexDir(place.roots), 'data.mdb');
    const file = readFileSync(path);
    for (let i = file.indexOf(node); i >= 0; i = file.indexOf(node, i + 1)) file[i + 100]! ^= 1;
    writeFileSync(path, file);
    store = place.open();
    const { problems } = await store.verify();
    assert.deepEqual(
      problems.map(({ kind }) => kind),
      ['node'],
    );
    await store.mendFromCopy(problems, ({ kind }) => mended.push(kind));
    assert.deepEqual(mended, ['node']);
    assert.deepEqual((await store.verify()).problems, []);
  });

  describe('an index whose pages are damaged', () => {
    /** Makes garbage of every page that is not a head, as a bad disk does: LMDB would end the process that reads it. */
    function destroy(): void {
      const path = join(indexDir(place.roots), 'data.mdb');
      const file = readFileSync(path);
      for (let page = 2; page * 4096 < file.length; page++) file.fill(0xff, page * 4096 + 8, page * 4096 + 64);
      writeFileSync(path, file);
    }

    it('is found out without reading it here, and made anew from its copy and the sectors', async () => {
      await store.keepIndexCopy();
      const [later] = await importAll(store, [noise(9 << 20, 20)]);
      await store.close();
      assert.equal(await indexDamage(place.roots), undefined);
      destroy();
      assert.notEqual(await indexDamage(place.roots), undefined);
      const { copiedAt, sectors, damaged, aside } = await rebuildIndex(place.roots);
      assert.ok(copiedAt !== undefined && existsSync(aside));
      assert.deepEqual([sectors, damaged], [3, []]);
      store = place.open();
      assert.deepEqual((await store.verify()).problems, []);
      refs.forEach((ref, i) => assert.ok(readAll(store, ref).equals(contents[i]!)));
      assert.equal(store.contentExtents(later!), undefined, 'what came after the copy is to be imported again');
      const before = files();
      const [again] = await importAll(store, [noise(9 << 20, 20)]);
      assert.deepEqual(again, later);
      assert.deepEqual(files(), before, 'its sectors were there');
    });

    it('without a copy is made of the sectors; a damaged one is left out', async () => {
      await store.close();
      destroy();
      const first = files()[0]!;
      flip(join(place.dir, 'sectors', first), 5000);
      const { copiedAt, sectors, damaged } = await rebuildIndex(place.roots);
      assert.deepEqual([copiedAt, sectors, damaged.length], [undefined, files().length - 1, 1]);
      store = place.open();
      assert.deepEqual((await store.verify()).problems, []);
    });

    it('a copy that is damaged itself is not used', async () => {
      await store.keepIndexCopy();
      await store.close();
      destroy();
      mkdirSync(join(indexDir(place.roots), 'copy'), { recursive: true });
      copyFileSync(join(indexDir(place.roots), 'data.mdb'), join(indexDir(place.roots), 'copy', 'data.mdb'));
      assert.equal((await rebuildIndex(place.roots)).copiedAt, undefined);
      store = place.open();
    });
  });

  const files = (): string[] =>
    readdirSync(join(place.dir, 'sectors'), { recursive: true, encoding: 'utf8' })
      .filter((name) => /[0-9a-f]{64}$/.test(name))
      .toSorted();
});
