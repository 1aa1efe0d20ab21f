import assert from 'node:assert/strict';
import fc from 'fast-check';
import { CID } from 'multiformats/cid';
import { ADDRESS_HEAD, addressOf, isAddressPrefix, rootOfAddress } from '../../layers/address.ts';
import { buildTree } from '../../layers/build.ts';
import { compareTrees } from '../../layers/compare.ts';
import {
  completeAddresses,
  completeEntries,
  completeIds,
  completeNames,
  completeRoots,
} from '../../layers/complete.ts';
import { findImage, putImage } from '../../layers/images.ts';
import { entriesOf, resolveTreePath } from '../../layers/tree-path.ts';
import { openTree, type Tree } from '../../layers/tree.ts';
import { isPgError } from '../../mdm/error.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import type { Store } from '../../store/store.ts';
import { importAll, Place, prose } from '../store/fixture.ts';
import { mergeTars } from './merging.ts';
import { type RawEntry, tarBytes } from './tar-builder.ts';

/** The root of what these layers come to. */
async function rootOf(store: Store, ...layers: RawEntry[][]): Promise<Uint8Array> {
  const { tree, contents } = await mergeTars(layers.map((entries) => tarBytes(entries)));
  for (const [row, data] of contents) {
    if (data === '') continue;
    tree.setSize(row, data.length);
    tree.setRoot(row, Buffer.from(bufferRoot(Buffer.from(data, 'latin1'))));
  }
  return buildTree(store, tree);
}

function putSample(store: Store, digit: string, treeRoot: Uint8Array, names: string[]): string {
  const id = `sha256:${digit.repeat(64)}`;
  const image = {
    id,
    treeRoot,
    configBytes: Buffer.from('{}'),
    layers: [],
    platform: 'linux/amd64',
    importedMs: 0,
    size: 0,
  };
  store.transaction(() => putImage(store, image, names));
  return id;
}

describe('addresses', () => {
  it('are CIDs that others read: version 1, raw, BLAKE2b-256, and back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (root) => {
        const address = addressOf(root);
        const cid = CID.parse(address);
        assert.deepEqual([cid.version, cid.code, cid.multihash.code], [1, 0x55, 0xb220]);
        assert.deepEqual(Buffer.from(cid.multihash.digest), Buffer.from(root));
        assert.deepEqual(Buffer.from(rootOfAddress(address)!), Buffer.from(root));
        assert.ok(isAddressPrefix(address.slice(0, 10)) && address.startsWith(ADDRESS_HEAD));
      }),
    );
    for (const other of ['', 'nginx', 'bafk2bzace', 'bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy'])
      assert.equal(rootOfAddress(other), undefined);
  });
});

describe('the trie', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  it('has one root for the same files, however they were cut into layers and in whatever order they came', async () => {
    const file = fc.record({
      directory: fc.constantFrom('a', 'b', 'a/c'),
      name: fc.constantFrom('x', 'y', 'z', '0'),
      data: fc.constantFrom('', 'one', 'two'),
      layer: fc.integer({ min: 0, max: 2 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(file, { selector: ({ directory, name }) => `${directory}/${name}` }),
        async (files) => {
          const directories: RawEntry[] = ['a/', 'b/', 'a/c/'].map((name) => ({ name }));
          const entry = ({ directory, name, data }: (typeof files)[number]): RawEntry => ({
            name: `${directory}/${name}`,
            data,
          });
          const whole = await rootOf(store, [...directories, ...files.map(entry)]);
          const cut = await rootOf(
            store,
            [...directories, { name: 'b/gone', data: 'x' }, ...files.filter(({ layer }) => layer === 0).map(entry)],
            [
              { name: 'b/.wh.gone' },
              ...files
                .filter(({ layer }) => layer === 1)
                .toReversed()
                .map(entry),
            ],
            files.filter(({ layer }) => layer === 2).map(entry),
          );
          assert.equal(Buffer.from(cut).toString('hex'), Buffer.from(whole).toString('hex'));
        },
      ),
      { numRuns: 40 },
    );
  });

  it('is read, when two images are compared, only where they differ', async () => {
    const many = (changed: string): RawEntry[] =>
      Array.from({ length: 3000 }, (_, i) => ({
        name: `d${i % 10}/e${i % 100}/f${i % 1000}/${i}`,
        data: i === 1234 ? changed : 'x',
      }));
    const roots = [await rootOf(store, many('x')), await rootOf(store, many('y'))] as const;
    let reads = 0;
    const counting = new Proxy(store, {
      get(target, property) {
        if (property !== 'table') return Reflect.get(target, property) as unknown;
        return (name: string) => ({ get: (key: Uint8Array) => (reads++, target.table(name).get(key)) });
      },
    });
    const trees = roots.map((root) => openTree(counting, root)) as [Tree, Tree];
    assert.deepEqual([...compareTrees(...trees)], [{ kind: 'C', path: '/d4/e34/f234/1234' }]);
    assert.equal(reads, 2 * 5, 'of each the root record, /, d4, e34 and f234');
    reads = 0;
    assert.deepEqual([...compareTrees(openTree(counting, roots[0]), openTree(counting, roots[0]))], []);
    assert.equal(reads, 2, 'of equal ones the root records');
  });

  it('completes names in a directory by what lies under the prefix', async () => {
    const names = ['b', 'ba', 'bab', 'bb', 'c', '\xff'];
    const tree = openTree(
      store,
      await rootOf(
        store,
        names.map((name) => ({ name: `d/${name}`, data: 'x' })),
      ),
    );
    const directory = resolveTreePath(tree, '/d');
    for (const prefix of ['', 'b', 'ba', 'bab', 'babb', 'a', 'c', '\xff', 'd']) {
      const found = [...completeEntries(tree, directory, prefix)].map(({ name }) => name);
      assert.deepEqual(
        found,
        names.filter((name) => name.startsWith(prefix)),
        `'${prefix}'`,
      );
    }
    assert.equal([...entriesOf(tree, directory)].length, names.length);
    assert.deepEqual([...completeEntries(tree, resolveTreePath(tree, '/d/b'), '')], []);
  });

  it('of an image is its address, which names it wherever a name does; so does its beginning', async () => {
    const [one, two] = [
      await rootOf(store, [{ name: 'a', data: '1' }]),
      await rootOf(store, [{ name: 'a', data: '2' }]),
    ];
    const first = putSample(store, 'a', one, ['nginx:1']);
    const second = putSample(store, 'b', two, ['nginx:2', 'example.com/x/redis:7']);
    assert.equal(findImage(store, addressOf(one))?.id, first);
    assert.equal(findImage(store, addressOf(two).slice(0, 20))?.id, second);
    assert.equal(findImage(store, addressOf(bufferRoot(Buffer.from('x')))), undefined);
    assert.throws(
      () => findImage(store, ADDRESS_HEAD),
      (error) => isPgError(error, 'IMAGE_AMBIGUOUS'),
    );
    assert.deepEqual(completeAddresses(store, addressOf(one).slice(0, 25)), [addressOf(one)]);
    assert.equal(completeAddresses(store, 'ba').length, 2);
    assert.deepEqual(completeAddresses(store, 'x'), []);
  });

  it('and names and ids are completed by a scan under the prefix', async () => {
    const root = await rootOf(store, [{ name: 'a', data: '1' }]);
    putSample(store, 'a', root, ['nginx:1', 'docker.io/team/ng:2']);
    putSample(store, 'b', root, ['example.com/x/redis:7']);
    assert.deepEqual(completeNames(store, 'ng'), ['nginx:1']);
    assert.deepEqual(completeNames(store, 'nginx:1'), ['nginx:1']);
    assert.deepEqual(completeNames(store, 'team/n'), ['team/ng:2']);
    assert.deepEqual(completeNames(store, 'docker.io/library/n'), ['docker.io/library/nginx:1']);
    assert.deepEqual(completeNames(store, 'e'), ['example.com/x/redis:7']);
    assert.deepEqual(completeNames(store, ''), ['example.com/x/redis:7', 'nginx:1', 'team/ng:2']);
    assert.deepEqual(completeIds(store, 'b'), ['b'.repeat(64)]);
    assert.deepEqual(completeIds(store, 'sha256:a'), [`sha256:${'a'.repeat(64)}`]);
    assert.deepEqual(completeIds(store, 'c'), []);
  });

  it('and contents too, by the digits of their roots', async () => {
    const refs = await importAll(
      store,
      Array.from({ length: 40 }, (_, i) => prose(100 + i, i + 1)),
    );
    const all = refs.map(({ root }) => Buffer.from(root).toString('hex')).toSorted();
    for (const digits of ['', all[3]!.slice(0, 1), all[3]!.slice(0, 5), all[7]!])
      assert.deepEqual(
        completeRoots(store, digits, 100),
        all.filter((root) => root.startsWith(digits)),
        digits,
      );
    assert.equal(completeRoots(store, '', 7).length, 7);
  });
});
