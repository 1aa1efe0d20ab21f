/** Layers made to do harm: a stated end for each, nothing outside, and a store that is as it was. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { importImage } from '../../layers/import.ts';
import { listImages, loadLayer, removeImage } from '../../layers/images.ts';
import { imagesReachable } from '../../layers/reachable.ts';
import { recipeTar } from '../../layers/recipe.ts';
import { openTree } from '../../layers/tree.ts';
import { isPgError } from '../../mdm/error.ts';
import type { Store } from '../../store/store.ts';
import { noise, Place } from '../store/fixture.ts';
import { END, headerOf, packed, type Piece, some } from './bombs.ts';
import { treeListing, writeLayout } from './listing.ts';
import { layerOf, type RawEntry, tarBytes } from './tar-builder.ts';
import { sampleImage, type SampleLayer } from './transport/samples.ts';

const pax = (...records: [string, string][]): RawEntry => ({ name: 'x', data: 'd', pax: records });
const hole = (name: string, size: number): RawEntry => ({
  name,
  pax: [
    ['GNU.sparse.size', `${size}`],
    ['GNU.sparse.map', `${size},0`],
  ],
});
const oldSparse =
  (runs: [string, string][], realSize = '1000') =>
  (block: Buffer): void => {
    runs.forEach(([offset, length], i) =>
      block.write(`${offset.padStart(11, '0')}\0${length.padStart(11, '0')}\0`, 386 + i * 24, 'latin1'),
    );
    block.write(`${realSize.padStart(11, '0')}\0`, 483, 'latin1');
  };
const sparse10 = (map: string, realsize = '4096'): RawEntry => ({
  name: 'x',
  data: Buffer.concat([Buffer.from(map.padEnd(512, '\0')), Buffer.alloc(10, 'd')]),
  pax: [
    ['GNU.sparse.major', '1'],
    ['GNU.sparse.minor', '0'],
    ['GNU.sparse.realsize', realsize],
  ],
});
const many = (count: number, entry: (i: number) => RawEntry): Buffer =>
  some(Array.from({ length: count }, (_, i) => entry(i)));

/** What is refused, and how. */
const REFUSED: Record<string, [code: string, layer: () => SampleLayer]> = {
  'a file of 2^60 bytes, in base 256': ['TAR_BAD_HEADER', () => layerOf(tarBytes([{ name: 'x', size: 2 ** 60 }]))],
  'a file of 2^60 bytes, in PAX': ['TAR_BAD_HEADER', () => layerOf(tarBytes([pax(['size', `${2n ** 60n}`])]))],
  'a file of 2^50 bytes': ['TAR_BAD_HEADER', () => layerOf(tarBytes([pax(['size', `${2 ** 50}`])]))],
  'a file of 3 TiB that is not there': ['TAR_TRUNCATED', () => layerOf(tarBytes([pax(['size', `${3 * 2 ** 40}`])]))],
  'a PAX header of 1 GiB': ['TAR_BAD_HEADER', () => layerOf(tarBytes([{ name: 'x', type: 'x', size: 2 ** 30 }]))],
  'a PAX header of 1 GiB that is all there': [
    'TAR_BAD_HEADER',
    () =>
      packed([
        [some([{ name: 'x', type: 'x', size: 2 ** 30 }]), 1],
        [Buffer.alloc(1 << 20), 64],
      ]),
  ],
  'long names without end': [
    'TAR_BAD_HEADER',
    () =>
      packed([
        [some([{ name: '././@LongLink', type: 'L', magic: 'gnu', data: Buffer.alloc(1 << 20, 'a') }]), 100],
        END,
      ]),
  ],
  'PAX headers that follow one another': [
    'TAR_BAD_HEADER',
    () => packed([[some([{ name: 'x', type: 'x', data: '6 a=b\n' }]), 1000], END]),
  ],
  'a name of a MiB that comes to little': [
    'TAR_BAD_PATH',
    () => layerOf(tarBytes([{ name: 'x', longName: `${'./'.repeat(500_000)}x` }])),
  ],
  'a size below zero in base 256': ['TAR_BAD_HEADER', () => layerOf(tarBytes([{ name: 'x', size: -512 }]))],
  'a size below zero in PAX': ['TAR_BAD_HEADER', () => layerOf(tarBytes([pax(['size', '-1'])]))],
  'digits that are not octal': [
    'TAR_BAD_HEADER',
    () => layerOf(tarBytes([{ name: 'x', edit: (b) => void b.write('00000000099\0', 124, 'latin1') }])),
  ],
  'an octal size of twelve sevens': [
    'TAR_TRUNCATED',
    () => layerOf(tarBytes([{ name: 'x', edit: (b) => void b.write('777777777777', 124, 'latin1') }])),
  ],
  'old GNU sparse runs that overlap': [
    'TAR_BAD_HEADER',
    () =>
      layerOf(
        tarBytes([
          {
            name: 'x',
            type: 'S',
            magic: 'gnu',
            data: Buffer.alloc(16),
            edit: oldSparse([
              ['0', '10'],
              ['4', '10'],
            ]),
          },
        ]),
      ),
  ],
  'old GNU sparse runs that go backwards': [
    'TAR_BAD_HEADER',
    () =>
      layerOf(
        tarBytes([
          {
            name: 'x',
            type: 'S',
            magic: 'gnu',
            data: Buffer.alloc(16),
            edit: oldSparse([
              ['400', '10'],
              ['0', '10'],
            ]),
          },
        ]),
      ),
  ],
  'old GNU sparse runs beyond the end': [
    'TAR_BAD_HEADER',
    () =>
      layerOf(
        tarBytes([{ name: 'x', type: 'S', magic: 'gnu', data: Buffer.alloc(8), edit: oldSparse([['777', '10']]) }]),
      ),
  ],
  'sparse 0.0 that does not alternate': [
    'TAR_BAD_HEADER',
    () =>
      layerOf(
        tarBytes([
          pax(
            ['GNU.sparse.size', '9'],
            ['GNU.sparse.numblocks', '1'],
            ['GNU.sparse.numbytes', '1'],
            ['GNU.sparse.offset', '0'],
          ),
        ]),
      ),
  ],
  'sparse 0.1 that overlaps': [
    'TAR_BAD_HEADER',
    () => layerOf(tarBytes([pax(['GNU.sparse.size', '9'], ['GNU.sparse.map', '0,1,0,0'])])),
  ],
  'sparse 0.1 of 2^53 bytes and one': [
    'TAR_BAD_HEADER',
    () => layerOf(tarBytes([pax(['GNU.sparse.size', '9007199254740993'], ['GNU.sparse.map', '0,1'])])),
  ],
  'sparse 1.0 whose count lies': ['TAR_BAD_HEADER', () => layerOf(tarBytes([sparse10('99999999\n0\n10\n')]))],
  'sparse 1.0 that is no list': ['TAR_BAD_HEADER', () => layerOf(tarBytes([sparse10('one\n0\n10\n')]))],
  'sparse 1.0 with more data than its map': ['TAR_BAD_HEADER', () => layerOf(tarBytes([sparse10('1\n0\n9\n')]))],
  'sparse 1.0 whose map is longer than the data': [
    'TAR_BAD_HEADER',
    () => layerOf(tarBytes([{ ...sparse10('1\n0\n10\n'), data: '1\n' }])),
  ],
  'holes of 12 TiB in three files': [
    'TAR_BAD_HEADER',
    () => layerOf(tarBytes([1, 2, 3].map((i) => hole(`h${i}`, 2 ** 42)))),
  ],
  'attributes of a gigabyte': [
    'IMAGE_TOO_LARGE',
    () =>
      packed([
        ...Array.from({ length: 300 }, (_, i): Piece => {
          const records = Array.from({ length: 15 }, (_, k): [string, string] => [
            `SCHILY.xattr.user.${k}`,
            'v'.repeat(65_000),
          ]);
          return [some([{ name: `f${i}`, pax: records }]), 1];
        }),
        END,
      ]),
  ],
  'directories by the million in few bytes': [
    'IMAGE_TOO_LARGE',
    () =>
      layerOf(
        tarBytes(Array.from({ length: 800 }, (_, i) => ({ name: 'x', longName: `p${i}/${'d/'.repeat(1900)}f` }))),
      ),
  ],
  'gzip that goes on after its end': [
    'BLOB_DAMAGED',
    () => blobOf(Buffer.concat([gzipSync(tarBytes([{ name: 'x' }])), Buffer.from('rubbish')])),
  ],
  'zstd that goes on after its end': [
    'BLOB_DAMAGED',
    () => blobOf(Buffer.concat([zstdCompressSync(tarBytes([{ name: 'x' }])), Buffer.from('rubbish')])),
  ],
  'gzip within gzip': ['DIGEST_MISMATCH', () => blobOf(gzipSync(gzipSync(tarBytes([{ name: 'x' }]))))],
  'a tar that is another than the config says': [
    'DIGEST_MISMATCH',
    () => ({ ...layerOf(tarBytes([{ name: 'x' }])), diffId: `sha256:${'0'.repeat(64)}` }),
  ],
  'a whiteout of the directory above': ['HOSTILE_PATH', () => layerOf(tarBytes([{ name: 'd/.wh...' }]))],
  'a whiteout of its own directory': ['HOSTILE_PATH', () => layerOf(tarBytes([{ name: 'd/.wh..' }]))],
  'a whiteout of nothing': ['HOSTILE_PATH', () => layerOf(tarBytes([{ name: 'd/.wh.' }]))],
};

/** What is taken, and what comes of it: names, or what is to be said of them. */
const TAKEN: Record<string, [names: string[], layers: () => SampleLayer[]]> = {
  'names that differ in case, in Unicode form, or by a NUL-like byte': [
    ['/A', '/a', '/e\xcc\x81', '/\xc3\xa9', '/\xff'],
    () => [layerOf(tarBytes(['a', 'A', '\xc3\xa9', 'e\xcc\x81', '\xff'].map((name) => ({ name, data: name }))))],
  ],
  'devices and set-id bits, as attributes': [
    ['/null', '/su'],
    () => [
      layerOf(
        tarBytes([
          { name: 'null', type: '3', device: [1, 3] },
          { name: 'su', mode: 0o6755, data: 'x' },
        ]),
      ),
    ],
  ],
  'a directory that becomes a symlink to /, and a file through it in a layer above': [
    ['/etc', '/etc/passwd'],
    () => [
      layerOf(tarBytes([{ name: 'etc/' }, { name: 'etc/hosts', data: 'h' }])),
      layerOf(tarBytes([{ name: 'etc', type: '2', linkName: '/' }])),
      layerOf(tarBytes([{ name: 'etc/passwd', data: 'p' }])),
    ],
  ],
  'a symlink out of the root and a file through it, in one layer': [
    ['/out', '/tmp', '/tmp/pg-hostile'],
    () => [
      layerOf(
        tarBytes([
          { name: 'out', type: '2', linkName: '../../../tmp' },
          { name: 'out/pg-hostile', data: 'x' },
        ]),
      ),
    ],
  ],
  'an opaque marker that comes twenty thousand times over twenty thousand files': [
    Array.from({ length: 20_000 }, (_, i) => `/d/f${String(i).padStart(5, '0')}`),
    () => [
      packed([
        [many(20_000, (i) => ({ name: `d/f${String(i).padStart(5, '0')}` })), 1],
        [many(1000, (i) => ({ name: i % 2 ? 'd/.wh..wh..opq' : '.wh.d' })), 20],
        END,
      ]),
    ],
  ],
  'gzip members one after another, some of them empty': [
    ['/x'],
    () => [
      {
        ...packed([[some([{ name: 'x' }]), 1], [Buffer.alloc(0), 1000], END]),
      },
    ],
  ],
  'what a writer of Go 1.7 made of a long name': [
    [`/${'p'.repeat(120)}`, `/${'p'.repeat(120)}/x`],
    () => [layerOf(tarBytes([{ name: 'x', prefix: 'p'.repeat(120), magic: 'gnu' }]))],
  ],
};

function blobOf(blob: Buffer): SampleLayer {
  return { ...layerOf(tarBytes([{ name: 'x' }])), blob, digest: layerOf(blob).digest };
}

describe('layers made to do harm', function () {
  this.timeout(120_000);
  let place: Place;
  let store: Store;
  let dir: string;
  let found: { images: unknown; contents: number; sectors: string[] };
  let samples = 0;

  const state = (): typeof found => ({
    images: listImages(store).map(({ id, names, treeRoot }) => ({
      id,
      names,
      treeRoot: Buffer.from(treeRoot).toString('hex'),
    })),
    contents: store.table('contents').count(),
    sectors: readdirSync(join(place.roots.data, 'sectors'), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.includes('/'))
      .toSorted(),
  });

  before(async () => {
    place = new Place();
    store = place.open();
    dir = mkdtempSync('/var/tmp/pg-test-');
    const good = sampleImage([layerOf(tarBytes([{ name: 'good', data: noise(100_000, 1) }]))]);
    await importImage(store, await writeLayout(join(dir, 'good'), good), { name: 'good' });
    found = state();
  });

  after(async () => {
    await place.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  /** After the collector has been there, all is as it was before. */
  const unharmed = async (): Promise<void> => {
    await store.collect(() => imagesReachable(store));
    assert.deepEqual(state(), found);
    assert.deepEqual((await store.verify()).problems, []);
  };

  const source = (layers: SampleLayer[]): Promise<string> =>
    writeLayout(join(dir, `${samples++}`), sampleImage(layers));

  for (const [name, [code, layer]] of Object.entries(REFUSED)) {
    it(`refused: ${name}`, async () => {
      await assert.rejects(
        importImage(store, await source([layer()])),
        (error) => isPgError(error, code) || assert.fail(String(error)),
      );
      await unharmed();
    });
  }

  for (const [name, [names, layers]] of Object.entries(TAKEN)) {
    it(`taken: ${name}`, async () => {
      const { image } = await importImage(store, await source(layers()));
      const listing = treeListing(store, openTree(store, image.treeRoot)).map((line) => line.split(' ')[0]!);
      for (const each of names) assert.ok(listing.includes(each), each);
      assert.ok(listing.length <= names.length + 1, listing.slice(0, 10).join());
      removeImage(store, image.id, () => []);
      await unharmed();
    });
  }

  it('taken: a file that is a hole, again in an image on the same layer, after the first is gone', async () => {
    const base = layerOf(tarBytes([hole('vast', 10_000_001), { name: 'a', data: 'a' }]));
    const first = await importImage(store, await source([base]));
    const listing = treeListing(store, openTree(store, first.image.treeRoot));
    const above = layerOf(tarBytes([{ name: 'b', data: 'b' }]));
    const second = await importImage(store, await source([base, above]));
    removeImage(store, first.image.id, () => []);
    await store.collect(() => imagesReachable(store));
    const again = treeListing(store, openTree(store, second.image.treeRoot));
    assert.deepEqual(
      again.filter((line) => !line.startsWith('/b ')),
      listing,
    );
    removeImage(store, second.image.id, () => []);
    await unharmed();
  });

  it('taken: headers that wait for a small content, in a blob that is kept', async () => {
    // The name of `x` is known when its sector is sealed; the blob's own bytes, kept as they are, must not be in that one.
    const headers = Array.from({ length: 80 }, (_, i): Piece => {
      const comment = noise(25_000, i).toString('latin1').padEnd(900_000, 'z');
      return [some([{ name: 'y', pax: [['comment', comment]] }]), 1];
    });
    const layer = packed([headerOf('x', 3), [Buffer.from('abc'.padEnd(512, '\0')), 1], ...headers, END]);
    const { image } = await importImage(store, await source([layer]));
    removeImage(store, image.id, () => []);
    await unharmed();
  });

  for (const packing of ['gzip', 'zstd'] as const) {
    it(`refused: a bomb of ${packing}, as a layer and as an archive`, async () => {
      const bomb = packed([headerOf('x', 64 << 20), [Buffer.alloc(1 << 20), 64], END], packing);
      const unpack = { freeBytes: 1 << 20, ratio: 2 };
      const layout = await source([bomb]);
      const isBomb = (error: unknown): boolean =>
        isPgError(error, 'UNPACKS_TOO_FAR') && /unpack to more than/.test(error.message);
      await assert.rejects(importImage(store, layout, { unpack }), isBomb);
      const archive = join(dir, `bomb.${packing}`);
      writeFileSync(archive, bomb.blob);
      await assert.rejects(importImage(store, `docker-archive:${archive}`, { unpack }), isBomb);
      await unharmed();
      const { image } = await importImage(store, layout);
      assert.equal(image.size, 64 << 20);
      removeImage(store, image.id, () => []);
    });
  }

  it('refused: layers packed as pg does not unpack, saying so', async () => {
    for (const [name, bytes] of [
      ['xz', Buffer.from('fd377a585a0000', 'hex')],
      ['bzip2', Buffer.from('BZh91AY&SY')],
      ['lz4', Buffer.from('04224d1864', 'hex')],
    ] as const) {
      const layer = blobOf(Buffer.concat([bytes, noise(1000, 3)]));
      const failed = importImage(store, await source([layer]));
      await assert.rejects(failed, (error) => isPgError(error, 'COMPRESSION_UNKNOWN') && error.message.includes(name));
    }
    await unharmed();
  });

  it('taken: forty megabytes behind the end of the tar, kept to the bit', async () => {
    const layer = packed([headerOf('x', 3), [Buffer.from('abc'.padEnd(512, '\0')), 1], END, [noise(1 << 20, 7), 40]]);
    const { image } = await importImage(store, await source([layer]));
    const { recipe } = loadLayer(store, layer.diffId)!;
    const hash = createHash('sha256');
    for (const chunk of recipeTar(store, recipe)) hash.update(chunk);
    assert.equal(`sha256:${hash.digest('hex')}`, layer.diffId);
    removeImage(store, image.id, () => []);
    await unharmed();
  });
});
