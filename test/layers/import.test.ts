import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { isPgError } from '../../mdm/error.ts';
import { findImage, getImage, listImages, loadLayer, removeImage, tagImage } from '../../layers/images.ts';
import { importImage } from '../../layers/import.ts';
import type { ProgressSink } from '../../layers/progress.ts';
import { imagesReachable } from '../../layers/reachable.ts';
import { recipeTar } from '../../layers/recipe.ts';
import { openTree } from '../../layers/tree.ts';
import type { Store } from '../../store/store.ts';
import { noise, Place, readAll } from '../store/fixture.ts';
import { treeListing, writeLayout } from './listing.ts';
import { imageOf, layerOf, type RawEntry, tarBytes } from './tar-builder.ts';
import { sampleImage, type SampleImage, sampleLayer } from './transport/samples.ts';

const fails =
  (code: string, words = /./) =>
  (error: unknown): boolean =>
    isPgError(error, code) && words.test(error.message);

/** Buffers too large for assert to show where they differ. */
function same(actual: Buffer, expected: Buffer): void {
  assert.ok(actual.equals(expected), `${actual.length} bytes, not the ${expected.length} expected, or others`);
}

/** A layer's tar as the store gives it back. */
function tarOf(store: Store, diffId: string): Buffer {
  return Buffer.concat(Array.from(recipeTar(store, loadLayer(store, diffId)!.recipe), (chunk) => Buffer.from(chunk)));
}

const BASE: RawEntry[] = [
  { name: 'etc/' },
  { name: 'etc/hosts', data: 'localhost\n' },
  { name: 'big', data: noise(9_000_001, 1) },
  { name: 'bin/sh', data: noise(5000, 2), mode: 0o755 },
  { name: 'bin/dash', type: '1', linkName: 'bin/sh', mode: 0o755 },
  { name: 'sh', type: '2', linkName: 'bin/sh' },
  { name: 'empty' },
];
const TOP: RawEntry[] = [{ name: 'etc/' }, { name: 'etc/.wh.hosts' }, { name: 'etc/motd', data: 'hi\n' }];

describe('importing an image', () => {
  let place: Place;
  let store: Store;
  let dir: string;
  let samples = 0;

  beforeEach(() => {
    place = new Place();
    store = place.open();
    dir = mkdtempSync('/var/tmp/pg-test-');
    samples = 0;
  });

  afterEach(async () => {
    await place.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  const leavesNothing = async (source: string, check: (error: unknown) => boolean): Promise<void> => {
    await assert.rejects(importImage(store, source), check);
    assert.deepEqual(listImages(store), []);
    assert.equal(store.table('layers').count(), 0);
    assert.equal(store.table('contents').count(), 0);
    await store.collect(() => imagesReachable(store));
    assert.equal(sectorFiles(place.roots.data), 0);
  };

  const layout = (image: SampleImage): Promise<string> => writeLayout(join(dir, `${samples++}`), image);

  it('keeps everything: tree, config, layers bit for bit', async () => {
    const sample = imageOf(
      tarBytes(BASE),
      tarBytes(TOP, Buffer.from('no end marker, but this'.padEnd(512, '\0')).fill(0, 0, 0)).subarray(0, -512),
    );
    const { image, took, alreadyPresent } = await importImage(store, await layout(sample), { name: 'sample' });
    assert.equal(alreadyPresent, false);
    assert.match(took, /OCI directory/);
    assert.deepEqual([image.id, image.names, image.platform], [sample.configDigest, ['sample:latest'], 'linux/amd64']);
    assert.deepEqual(image.configBytes, sample.config);
    assert.equal(image.created, '2026-01-01T00:00:00Z');
    assert.equal(image.size, 10 + 9_000_001 + 5000 + 3);
    for (const { diffId, tar } of sample.layers) same(tarOf(store, diffId), tar);
    const tree = openTree(store, image.treeRoot);
    const names = treeListing(store, tree).map((line) => line.split(' ')[0]);
    assert.deepEqual(names, ['/big', '/bin', '/bin/dash', '/bin/sh', '/empty', '/etc', '/etc/motd', '/sh']);
    const big = tree.get(tree.lookup(1, 'big')!)!;
    same(readAll(store, big.content!), noise(9_000_001, 1));
  });

  it('gives every tar back, whatever is in it', async () => {
    const entry: fc.Arbitrary<RawEntry> = fc.record(
      {
        name: fc.stringMatching(/^[a-c]{1,3}\/?$/),
        data: fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes)),
        pax: fc.constant<[string, string][]>([
          ['mtime', '1.25'],
          ['comment', 'x'.repeat(600)],
        ]),
        magic: fc.constantFrom('ustar', 'gnu', 'v7'),
        edit: fc.constant((block: Buffer) => void block.fill(0xee, 500, 512)),
      },
      { requiredKeys: ['name'] },
    );
    const tail = fc.uint8Array({ maxLength: 3000 }).map((bytes) => Buffer.concat([Buffer.alloc(1024), bytes]));
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { maxLength: 8 }), tail, async (entries, end) => {
        const files = entries.map((e) => (e.name.endsWith('/') ? { ...e, data: Buffer.alloc(0) } : e));
        const sample = imageOf(tarBytes(files, end));
        const { image } = await importImage(store, await layout(sample));
        same(tarOf(store, image.layers[0]!.diffId), sample.layers[0]!.tar);
      }),
      { numRuns: 12 },
    );
  });

  it('takes sparse files apart and gives them back', async () => {
    const runs = [
      [4096, 512],
      [9_000_000, 100],
    ];
    const data = noise(612, 3);
    const pax: [string, string][] = [
      ['GNU.sparse.size', '20000000'],
      ['GNU.sparse.map', runs.flat().join(',')],
    ];
    const sample = imageOf(
      tarBytes([
        { name: 'sparse', data, pax },
        {
          name: 'hole',
          pax: [
            ['GNU.sparse.size', '5000000'],
            ['GNU.sparse.map', '5000000,0'],
          ],
        },
      ]),
    );
    const { image } = await importImage(store, await layout(sample));
    const tree = openTree(store, image.treeRoot);
    const content = readAll(store, tree.get(tree.lookup(1, 'sparse')!)!.content!);
    const expected = Buffer.alloc(20_000_000);
    data.copy(expected, 4096, 0, 512);
    data.copy(expected, 9_000_000, 512);
    assert.ok(content.equals(expected));
    assert.ok(readAll(store, tree.get(tree.lookup(1, 'hole')!)!.content!).equals(Buffer.alloc(5_000_000)));
    same(tarOf(store, image.layers[0]!.diffId), sample.layers[0]!.tar);
  });

  it('takes a file of 1 TiB that is nearly all hole', async () => {
    const size = 2 ** 40;
    const pax = (map: string, bytes = size): [string, string][] => [
      ['GNU.sparse.size', `${bytes}`],
      ['GNU.sparse.map', map],
    ];
    const sample = imageOf(tarBytes([{ name: 'vast', data: 'abcd', pax: pax(`5000000000,4,${size},0`) }]));
    const { image } = await importImage(store, await layout(sample));
    const tree = openTree(store, image.treeRoot);
    const { content } = tree.get(tree.lookup(1, 'vast')!)!;
    const into = Buffer.alloc(8);
    assert.equal(store.readContentAt(content!, into, 4_999_999_998), 8);
    assert.equal(into.toString('latin1'), '\0\0abcd\0\0');
    same(tarOf(store, image.layers[0]!.diffId), sample.layers[0]!.tar);
    const liar = imageOf(tarBytes([{ name: 'vaster', pax: pax(`${2 ** 43},0`, 2 ** 43) }]));
    await assert.rejects(importImage(store, await layout(liar)), fails('TAR_BAD_HEADER', /4 TiB/));
  });

  it('does not read again what is here', async () => {
    const source = await layout(imageOf(tarBytes(BASE), tarBytes(TOP)));
    const first = await importImage(store, source, { name: 'one' });
    rmSync(join(dir, '0', 'blobs', first.image.layers[0]!.diffId.replace(':', '/')));
    const again = await importImage(store, source, { name: 'two' });
    assert.equal(again.alreadyPresent, true);
    assert.deepEqual(again.image.names, ['one:latest', 'two:latest']);
    // Another image on the same base: the layer's blob is not there to be read.
    const other = imageOf(tarBytes(BASE), tarBytes([{ name: 'etc/passwd', data: 'root' }]));
    const otherSource = await layout(other);
    rmSync(join(dir, '1', 'blobs', other.layers[0]!.digest.replace(':', '/')));
    const notes: (string | undefined)[] = [];
    const progress: ProgressSink = { start: () => {}, advance: () => {}, done: (_, note) => void notes.push(note) };
    const { image } = await importImage(store, otherSource, { progress });
    assert.deepEqual(notes.toSorted(), ['already here', undefined]);
    const fresh = new Place();
    const whole = await importImage(fresh.open(), await layout(other));
    assert.deepEqual(image.treeRoot, whole.image.treeRoot);
    assert.equal(image.size, whole.image.size);
    await fresh.remove();
  });

  it('has the same root from any compression', async () => {
    const files = { 'a/': '', 'a/b': 'text\n'.repeat(1000), c: 'd' };
    const roots: string[] = [];
    for (const packing of ['none', 'gzip', 'zstd'] as const) {
      const fresh = new Place();
      const { image } = await importImage(fresh.open(), await layout(sampleImage([await sampleLayer(files, packing)])));
      roots.push(Buffer.from(image.treeRoot).toString('hex'));
      await fresh.remove();
    }
    assert.equal(new Set(roots).size, 1);
  });

  it('applies many layers in order although they are read at once', async () => {
    const layers = Array.from({ length: 12 }, (_, i) =>
      tarBytes([
        { name: 'last', data: `${i}` },
        { name: `own-${i}`, data: noise(i % 3 === 0 ? 500_000 : 10, i) },
        { name: `.wh.own-${i - 2}` },
      ]),
    );
    const { image } = await importImage(store, await layout(imageOf(...layers)));
    const tree = openTree(store, image.treeRoot);
    const names = Array.from({ length: tree.get(1)!.children! }, (_, i) => tree.entryAt(1, i)!.name);
    assert.deepEqual(names, ['last', 'own-10', 'own-11']);
    assert.equal(readAll(store, tree.get(tree.lookup(1, 'last')!)!.content!).toString(), '11');
  });

  describe('leaves nothing behind', () => {
    it('of a blob with a flipped bit, naming it and both digests', async () => {
      const sample = imageOf(tarBytes(BASE), tarBytes(TOP));
      const source = await layout(sample);
      const path = join(dir, '0', 'blobs', sample.layers[0]!.digest.replace(':', '/'));
      for (const at of [3, 600, 3_000_000, 9_000_000]) {
        const bad = readFileSync(path);
        bad[at]! ^= 0x10;
        const actual = createHash('sha256').update(bad).digest('hex');
        writeFileSync(path, bad);
        await leavesNothing(
          source,
          fails('DIGEST_MISMATCH', new RegExp(`layer 1 .*${sample.layers[0]!.digest}.*${actual}`)),
        );
        writeFileSync(path, sample.layers[0]!.blob);
      }
    });

    it('of a blob that is cut off', async () => {
      const sample = imageOf(tarBytes(BASE));
      const source = await layout(sample);
      const path = join(dir, '0', 'blobs', sample.layers[0]!.digest.replace(':', '/'));
      for (const length of [0, 100, 512, 5_000_000]) {
        writeFileSync(path, sample.layers[0]!.blob.subarray(0, length));
        await leavesNothing(source, fails('TRUNCATED', /layer 1/));
      }
    });

    it('of a layer that cannot be, saying which and where', async () => {
      const sample = imageOf(tarBytes(BASE), tarBytes([{ name: 'ok' }, { name: '../evil' }]));
      await leavesNothing(
        await layout(sample),
        fails('HOSTILE_PATH', new RegExp(`layer 2 \\(${sample.layers[1]!.digest}\\).*'../evil' at byte 512`)),
      );
    });

    it('of an import that is interrupted', async () => {
      const stop = new AbortController();
      const progress: ProgressSink = { start: () => {}, advance: () => stop.abort(), done: () => {} };
      const source = await layout(imageOf(tarBytes(BASE)));
      await assert.rejects(importImage(store, source, { progress, signal: stop.signal }));
      assert.deepEqual(listImages(store), []);
    });
  });

  it('makes the same of two imports at once', async () => {
    const source = await layout(imageOf(tarBytes(BASE), tarBytes(TOP)));
    const other = place.open();
    const [a, b] = await Promise.all([
      importImage(store, source, { name: 'a' }),
      importImage(other, source, { name: 'b' }),
    ]);
    assert.deepEqual(a.image.treeRoot, b.image.treeRoot);
    assert.deepEqual(getImage(store, 'a').names, ['a:latest', 'b:latest']);
  });

  it('survives the collector, and nothing else does', async () => {
    const one = await importImage(store, await layout(imageOf(tarBytes(BASE), tarBytes(TOP))), { name: 'one' });
    const before = treeListing(store, openTree(store, one.image.treeRoot));
    const two = await importImage(
      store,
      await layout(imageOf(tarBytes([...BASE, { name: 'x', data: noise(100_000, 9) }]))),
      { name: 'two' },
    );
    const full = store.table('contents').count();
    removeImage(store, 'two', () => []);
    await store.collect(() => imagesReachable(store));
    assert.ok(store.table('contents').count() < full);
    assert.throws(() => treeListing(store, openTree(store, two.image.treeRoot)), fails('NODE_NOT_FOUND'));
    assert.deepEqual(treeListing(store, openTree(store, one.image.treeRoot)), before);
    // A file that the upper layer hides is in the layer still.
    same(tarOf(store, one.image.layers[0]!.diffId), tarBytes(BASE));
  });
});

function sectorFiles(data: string): number {
  return readdirSync(join(data, 'sectors'), { recursive: true, withFileTypes: true }).filter((e) => e.isFile()).length;
}

const users = (): [] => [];
const busy = (running: boolean) => () => [{ name: 'web', running }];

describe('names of images', () => {
  let place: Place;
  let store: Store;
  let ids: string[];
  let dir: string;

  before(async () => {
    place = new Place();
    store = place.open();
    dir = mkdtempSync('/var/tmp/pg-test-');
    ids = [];
    for (const i of [0, 1]) {
      const sample = sampleImage([layerOf(tarBytes([{ name: `file-${i}`, data: 'x' }]))]);
      ids.push((await importImage(store, await writeLayout(join(dir, `${i}`), sample), { name: `img${i}` })).image.id);
    }
  });

  after(async () => {
    await place.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  it('are found in full, in short, and by the beginning of the id', () => {
    for (const text of [
      'img0',
      'img0:latest',
      'docker.io/library/img0:latest',
      ids[0]!,
      ids[0]!.slice(7, 19),
      ids[0]!.slice(0, 20),
    ]) {
      assert.equal(findImage(store, text)?.id, ids[0], text);
    }
    for (const text of ['img', 'IMG0', 'sha256:', '', 'img0:other', 'zz'])
      assert.equal(findImage(store, text), undefined, text);
    assert.throws(() => getImage(store, 'nope'), fails('IMAGE_NOT_FOUND', /nope/));
  });

  it('move, and leave images without any', () => {
    assert.equal(tagImage(store, ids[0]!, 'localhost:5000/a/b'), 'localhost:5000/a/b:latest');
    assert.equal(tagImage(store, ids[1]!, 'img0'), 'img0:latest');
    assert.deepEqual(findImage(store, ids[0]!)!.names, ['localhost:5000/a/b:latest']);
    assert.deepEqual(findImage(store, 'img0')!.id, ids[1]);
    tagImage(store, ids[1]!, 'localhost:5000/a/b');
    assert.deepEqual(findImage(store, ids[0]!)!.names, []);
    assert.equal(listImages(store).length, 2);
    tagImage(store, ids[0]!, 'img0');
    assert.throws(() => tagImage(store, ids[0]!, 'scratch'), fails('NAME_RESERVED'));
    assert.throws(() => tagImage(store, ids[0]!, 'Upper'), fails('REFERENCE_INVALID'));
    assert.throws(() => tagImage(store, `sha256:${'0'.repeat(64)}`, 'x'), fails('IMAGE_NOT_FOUND'));
  });

  it('go one by one, and the image with the last', () => {
    assert.deepEqual(removeImage(store, 'localhost:5000/a/b', busy(true)), { untagged: ['localhost:5000/a/b:latest'] });
    assert.throws(() => removeImage(store, 'img1', busy(true), true), fails('IMAGE_IN_USE', /running container web/));
    assert.throws(() => removeImage(store, 'img1', busy(false)), fails('IMAGE_IN_USE', /container web/));
    assert.deepEqual(removeImage(store, 'img1', busy(false), true), { untagged: ['img1:latest'] });
    assert.deepEqual(findImage(store, ids[1]!)!.names, []);
    assert.deepEqual(removeImage(store, ids[1]!.slice(7, 15), users), { untagged: [], deleted: ids[1] });
    assert.equal(findImage(store, ids[1]!), undefined);
    tagImage(store, ids[0]!, 'other/name');
    assert.throws(
      () => removeImage(store, ids[0]!, users),
      fails('IMAGE_HAS_NAMES', /img0:latest, other\/name:latest/),
    );
    assert.deepEqual(removeImage(store, ids[0]!, users, true), {
      untagged: ['img0:latest', 'other/name:latest'],
      deleted: ids[0],
    });
    assert.deepEqual(
      [listImages(store).length, store.table('layers').count(), store.table('names').count()],
      [0, 0, 0],
    );
    assert.throws(() => removeImage(store, 'img0', users), fails('IMAGE_NOT_FOUND'));
  });
});
