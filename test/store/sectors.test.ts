import assert from 'node:assert/strict';
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';
import { isPgError, type PgError } from '../../mdm/error.ts';
import { SECTOR_BYTES, sectorRoot } from '../../mdm/merkle.ts';
import type { ContentRef, Store } from '../../store/store.ts';
import { importAll, noise, Place, readAll } from './fixture.ts';

function flip(path: string, at: number): void {
  const file = readFileSync(path);
  file[at]! ^= 0x10;
  writeFileSync(path, file);
}

/** The error of a read that must fail, with nothing of the content in the buffer. */
function failure(store: Store, ref: ContentRef, length: number, offset: number): PgError {
  const into = Buffer.alloc(length);
  try {
    store.readContentAt(ref, into, offset);
  } catch (error) {
    assert.ok(isPgError(error), String(error));
    return error;
  }
  return assert.fail('the read succeeded');
}

describe('store: sector files', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  /** The file of the sector that a content is in. */
  const fileOf = (ref: ContentRef): string => store.sectorPath(store.contentExtents(ref)![0]!.sector);

  it('are as docs/formats/sector.md says', async () => {
    const bytes = noise(10_000, 1);
    const [ref] = await importAll(store, [bytes]);
    const file = readFileSync(fileOf(ref!));
    const data = Buffer.concat([bytes], SECTOR_BYTES);
    assert.equal(file.length, 4_198_400);
    assert.ok(file.subarray(0, SECTOR_BYTES).equals(data));
    for (let block = 0; block < 1024; block++) {
      assert.equal(
        file.readUInt32LE(SECTOR_BYTES + 4 * block),
        crc32(data.subarray(block * 4096, (block + 1) * 4096)),
        `block ${block}`,
      );
    }
    const name = Buffer.from(sectorRoot(data)).toString('hex');
    assert.equal(fileOf(ref!), `${place.dir}/sectors/${name.slice(0, 2)}/${name}`);
    assert.ok(statSync(fileOf(ref!)).blocks * 512 <= 20_480, 'the zero tail takes no space');
  });

  it('start contents at leaves, those of a block or more at blocks, and use the gaps', async () => {
    const refs = await importAll(
      store,
      [5000, 100, 5000, 3000, 65, 4096].map((size, i) => noise(size, i + 1)),
    );
    const offsets = refs.map((ref) => store.contentExtents(ref)![0]!.offset);
    assert.deepEqual(offsets, [0, 5056, 8192, 5184, 13_248, 16_384]);
  });

  it('have the root they are named by when some of what was to be in them is known', async () => {
    const known = noise(20_000, 1);
    await importAll(store, [known]);
    await importAll(store, [noise(1_000_000, 2), known]);
    assert.deepEqual((await store.verify()).problems, []);
  });

  it('are zero between contents, whatever was in the buffer before', async () => {
    const first = Array.from({ length: 13 }, (_, i) => noise(SECTOR_BYTES, i + 1));
    const second = Array.from({ length: 60 }, (_, i) => noise(5000, i + 100));
    const refs = await importAll(store, [...first, ...second]);
    for (const ref of refs.slice(first.length)) {
      const { offset, length } = store.contentExtents(ref)![0]!;
      const slack = readFileSync(fileOf(ref)).subarray(offset + length, Math.ceil((offset + length) / 4096) * 4096);
      assert.ok(slack.equals(Buffer.alloc(slack.length)), `after the content at ${offset}`);
    }
    assert.deepEqual((await store.verify()).problems, []);
  });

  it('give an error that names sector, block and file for any flipped bit; other contents are served', async () => {
    const [first, second] = [noise(50_000, 1), noise(50_000, 2)];
    const [a, b] = await importAll(store, [first, second]);
    const path = fileOf(a!);
    flip(path, 3 * 4096 + 17);
    for (const [length, offset] of [
      [50_000, 0],
      [4096, 12_288],
      [1, 12_305],
      [20_000, 12_300],
      [131_072, 0],
      [9000, 5000],
    ] as const) {
      const error = failure(place.open(), a!, length, offset);
      assert.equal(error.code, 'CORRUPT_SECTOR');
      assert.match(error.message, /block 3 does not have its checksum/);
      assert.ok(error.message.includes(path));
    }
    const rest = Buffer.alloc(8192);
    assert.equal(store.readContentAt(a!, rest, 16_384), 8192);
    assert.ok(rest.equals(first.subarray(16_384, 24_576)));
    assert.ok(readAll(store, b!).equals(second));
  });

  it('never give wrong bytes, whichever byte is damaged', async () => {
    const bytes = noise(20_000, 1);
    const [ref] = await importAll(store, [bytes]);
    const path = fileOf(ref!);
    for (const at of [0, 4095, 4096, 19_999, SECTOR_BYTES, SECTOR_BYTES + 16]) {
      flip(path, at);
      const into = Buffer.alloc(20_000);
      assert.throws(
        () => place.open().readContentAt(ref!, into, 0),
        (error) => isPgError(error, 'CORRUPT_SECTOR'),
      );
      assert.ok(into.equals(Buffer.alloc(20_000)), 'nothing unchecked is left in the buffer');
      flip(path, at);
    }
    assert.ok(readAll(place.open(), ref!).equals(bytes));
  });

  it('give an error when cut off or gone', async () => {
    const [ref] = await importAll(store, [noise(20_000, 1)]);
    const path = fileOf(ref!);
    truncateSync(path, SECTOR_BYTES + 4000);
    assert.match(failure(place.open(), ref!, 100, 0).message, /is cut off/);
    truncateSync(path, 10_000);
    assert.match(failure(place.open(), ref!, 20_000, 0).message, /is cut off/);
    rmSync(path);
    const error = failure(place.open(), ref!, 100, 0);
    assert.equal(error.code, 'MISSING_SECTOR');
    assert.ok(error.message.includes(path));
  });

  it('are all found by verify', async () => {
    const contents = Array.from({ length: 6 }, (_, i) => noise(3_000_000 + i, i + 1));
    const refs = await importAll(store, [...contents, noise(9 << 20, 99)]);
    const seen: number[] = [];
    assert.deepEqual((await store.verify(({ sectors }) => seen.push(sectors))).problems, []);
    assert.deepEqual(
      seen,
      [...seen.keys()].map((i) => i + 1),
    );
    const [flipped, cut, gone] = [fileOf(refs[0]!), fileOf(refs[3]!), fileOf(refs[6]!)];
    assert.equal(new Set([flipped, cut, gone]).size, 3);
    flip(flipped, 5000);
    truncateSync(cut, 100);
    rmSync(gone);
    const { problems } = await store.verify();
    const words = problems.map(({ message }) => message).join('\n');
    assert.match(words, /block 1 does not have its checksum/);
    assert.match(words, /the file has the wrong size/);
    assert.match(words, /no such file/i);
    for (const path of [flipped, cut, gone]) assert.ok(words.includes(path));
    assert.equal(problems.filter(({ kind }) => kind === 'sector').length, 3);
  });

  it('and the index are compared by verify', async () => {
    const [ref, other] = await importAll(store, [noise(5000, 1), noise(5000, 2)]);
    const [key] = [...store.table('contents').keys({ prefix: ref!.root })];
    const [otherKey] = [...store.table('contents').keys({ prefix: other!.root })];
    store.table('contents').put(key!, store.table('contents').get(otherKey!)!);
    store.table('nodes').put('not a hash', Buffer.from('node'));
    const { problems } = await store.verify();
    assert.deepEqual(
      problems.map(({ kind }) => kind),
      ['content', 'node'],
    );
  });
});
