import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import { ContentsTaker } from '../../grid/contents-take.ts';
import { planImage, shipImage } from '../../grid/image-offer.ts';
import { imageServices } from '../../grid/image-take.ts';
import { isPgError } from '../../mdm/error.ts';
import { exportImage } from '../../layers/export.ts';
import { findImage, listImages, loadLayer, tagImage, type ImageRecord } from '../../layers/images.ts';
import { importImage } from '../../layers/import.ts';
import { openTree } from '../../layers/tree.ts';
import { contentKey, encodeExtents } from '../../store/content.ts';
import { openStore, type Store } from '../../store/store.ts';
import { startPair, writeArchive, type Layer, type Pair } from './pair.ts';

const quiet = { start: (): void => {}, advance: (): void => {}, done: (): void => {} };

describe('an image on its way to another node', () => {
  let pair: Pair;
  let store: Store;
  /** b's store while no connection has it. */
  let target: Store;
  let base: Layer;
  const go = new AbortController().signal;

  before(async () => {
    base = { 'etc/': null, 'etc/link': '../bin/tool', zero: Buffer.alloc(5 << 20), empty: Buffer.alloc(0) };
    for (let i = 0; i < 200; i++) base[`usr/share/${i % 10}/file${i}`] = randomBytes(1 + ((i * 7919) % 60_000));
    base['bin/tool'] = randomBytes(9_000_000);
  });
  beforeEach(async () => {
    pair = await startPair((b) => {
      const itsStore = openStore(b);
      const taker = new ContentsTaker(itsStore, 'test');
      const close = async (): Promise<void> => {
        await taker.close();
        await itsStore.close();
      };
      return { services: { contents: { ...taker.services, ...imageServices(itsStore, taker) } }, close };
    });
    store = openStore(pair.a);
    target = openStore(pair.b);
  });
  afterEach(async () => {
    await store.close();
    await target.close();
    await pair.end();
  });

  async function imported(name: string, layers: Layer[]): Promise<ImageRecord> {
    const path = join(pair.dir, 'image.tar');
    await writeArchive(path, name, layers);
    return (await importImage(store, `docker-archive:${path}`)).image;
  }

  async function ship(image: ImageRecord): Promise<number> {
    const before = pair.connection.traffic.sentBytes;
    await shipImage(pair.connection, store, image, await planImage(pair.connection, store, image), quiet, go);
    return pair.connection.traffic.sentBytes - before;
  }

  it('arrives whole: same tree, same archive out of it, same name', async () => {
    const hidden: Layer = {
      'etc/.wh.link': Buffer.alloc(0),
      'usr/share/1/.wh..wh..opq': Buffer.alloc(0),
      new: Buffer.from('new'),
    };
    const image = await imported('app:1', [base, hidden]);
    await ship(image);
    const there = findImage(target, 'app:1')!;
    assert.equal(there.id, image.id);
    assert.deepEqual(there.treeRoot, image.treeRoot);
    assert.deepEqual(there.layers, image.layers);
    sameTree(store, target, image.treeRoot);
    for (const [from, to] of [
      [store, 'a.tar'],
      [target, 'b.tar'],
    ] as const) {
      await exportImage(from, there, `docker-archive:${join(pair.dir, to)}:app:1`, { progress: quiet });
    }
    assert.ok(readFileSync(join(pair.dir, 'a.tar')).equals(readFileSync(join(pair.dir, 'b.tar'))));
  });

  it('is not sent again, nor what another image brought', async () => {
    const first = await imported('app:1', [base]);
    const all = await ship(first);
    assert.ok(all > 9_000_000);
    assert.ok((await ship(first)) < 500);
    const second = await imported('app:2', [base, { 'usr/share/3/more': randomBytes(50_000) }]);
    const plan = await planImage(pair.connection, store, second);
    assert.ok(plan.lacking.sectors.length <= 2);
    // Its root record, and the nodes of /, /usr, /usr/share and /usr/share/3.
    assert.equal(plan.lacking.nodes.length, 5);
    assert.ok((await ship(second)) < 50_000 + 40_000);
    sameTree(store, target, second.treeRoot);
  });

  it('does not take a name from another image', async () => {
    await imported('app:1', [base]).then(ship);
    const other = await imported('app:1', [{ x: Buffer.from('other') }]);
    await ship(other);
    assert.notEqual(findImage(target, 'app:1')!.id, other.id);
    assert.deepEqual(findImage(target, other.id)!.names, []);
    tagImage(target, other.id, 'app:2');
    assert.equal(listImages(target).length, 2);
  });

  it('is not there until all of it is', async () => {
    const image = await imported('app:1', [base]);
    const plan = await planImage(pair.connection, store, image);
    const half = { ...plan, lacking: { ...plan.lacking, contents: plan.lacking.contents.slice(1) } };
    await assert.rejects(shipImage(pair.connection, store, image, half, quiet, go), { code: 'IMAGE_INCOMPLETE' });
    assert.equal(listImages(target).length, 0);
    await pair.redial();
    const again = await ship(image);
    assert.ok(again < 1 << 20, `${again} bytes: the sectors were there already`);
    assert.equal(listImages(target).length, 1);
  });

  it('is refused when a byte of it is another', async () => {
    const image = await imported('app:1', [base]);
    const { lacking } = await planImage(pair.connection, store, image);
    const root = lacking.sectors[0]!;
    const sector = store.readSector(root);
    sector[4711]! ^= 1;
    await pair.connection.request('contents', 'sector', { root }, sector);
    await assert.rejects(pair.connection.request('contents', 'settle'), { code: 'BAD_SECTOR' });
    const node = lacking.nodes[0]!;
    const bytes = Buffer.from(store.table('nodes').get(node)!);
    bytes[bytes.length - 1]! ^= 1;
    const length = Buffer.alloc(4);
    length.writeUInt32LE(bytes.length);
    const record = Buffer.concat([node, length, bytes]);
    await assert.rejects(pair.connection.request('contents', 'nodes', {}, record), { code: 'BAD_MESSAGE' });
    assert.equal(target.hasSector(root), false);
    assert.equal(target.table('nodes').has(node), false);
  });

  it('with a content that is not what it is called is refused', async () => {
    const image = await imported('app:1', [base]);
    const { lacking } = await planImage(pair.connection, store, image);
    for (const root of lacking.sectors)
      await pair.connection.request('contents', 'sector', { root }, store.readSector(root));
    await pair.connection.request('contents', 'settle');
    const [one, two] = lacking.contents.filter(({ size }) => size > 4096 && size < 60_000);
    // The root of one, with the size and the extents of another.
    const lie = contentKey({ root: one!.root, size: two!.size });
    const extents = encodeExtents(store.contentExtents(two!)!);
    const count = Buffer.alloc(4);
    count.writeUInt32LE(extents.length / 44);
    const bulk = Buffer.concat([lie, count, extents]);
    await pair.connection.request('contents', 'contents', {}, bulk);
    await assert.rejects(pair.connection.request('contents', 'settle'), { code: 'BAD_CONTENT' });
  });

  it('that says of itself what is not so, or of one that is here, changes nothing', async () => {
    const image = await imported('app:1', [base]);
    await ship(image);
    const evil = await imported('evil:1', [{ x: Buffer.from('of the peer') }]);
    await ship(evil);
    const config = Buffer.from(JSON.stringify({ ...evil.config, author: 'another' }));
    const id = `sha256:${createHash('sha256').update(config).digest('hex')}`;
    const [layer] = evil.layers;
    const keys = Buffer.concat(loadLayer(store, layer!.diffId)!.recipe.map(contentKey));
    const recipe = { diffId: layer!.diffId, recipe: keys, tarBytes: 1, contentBytes: 1, entries: 1 };
    const manifest = { bytes: Buffer.from('{}'), digest: '', mediaType: 'm' };
    const body = {
      id,
      config,
      treeRoot: evil.treeRoot,
      platform: 'linux/amd64',
      size: 1,
      names: [],
      recipes: [],
      layers: [{ ...layer! }],
    };
    const offer = (changed: object): Promise<unknown> =>
      pair.connection.request('contents', 'image', { ...body, ...changed });
    const outside = 'sha256:../../../../tmp/outside';
    const words = Buffer.from('no JSON');
    for (const lie of [
      { manifest: { ...manifest, digest: outside } },
      { manifest: { ...manifest, digest: layer!.diffId } },
      { layers: [{ ...layer!, digest: outside }] },
      { layers: [{ ...layer!, diffId: outside }] },
      { layers: [] },
      { recipes: [{ ...recipe, diffId: outside }] },
      { config: words, id: `sha256:${createHash('sha256').update(words).digest('hex')}` },
    ])
      await assert.rejects(offer(lie), (e) => isPgError(e), JSON.stringify(Object.keys(lie)));
    assert.equal(findImage(target, id), undefined);
    const before = [findImage(target, image.id), loadLayer(target, image.layers[0]!.diffId)];
    const ofFirst = { id: image.id, config: image.configBytes, layers: image.layers.map((one) => ({ ...one })) };
    await offer({ ...ofFirst, recipes: [{ ...recipe, diffId: image.layers[0]!.diffId }] });
    assert.deepEqual([findImage(target, image.id), loadLayer(target, image.layers[0]!.diffId)], before);
  });

  it('can be broken off', async () => {
    const image = await imported('app:1', [base]);
    const plan = await planImage(pair.connection, store, image);
    const stop = AbortSignal.abort(new Error('enough'));
    await assert.rejects(shipImage(pair.connection, store, image, plan, quiet, stop), { message: 'enough' });
  });

  it('with nonsense for names is refused', async () => {
    for (const [kind, bytes] of [
      ['nodes', 31],
      ['contents', 39],
      ['toString', 32],
      ['', 0],
    ] as const) {
      await assert.rejects(
        pair.connection.request('contents', 'lacking', { kind }, Buffer.alloc(bytes)),
        (e) => isPgError(e, 'BAD_MESSAGE'),
        kind,
      );
    }
    assert.equal((await pair.connection.request('contents', 'lacking', { kind: 'nodes' })).bulk.length, 0);
  });
});

/** Every inode of the tree is the same, and every byte of every file, read from either store. */
function sameTree(one: Store, two: Store, root: Uint8Array): void {
  const trees = [openTree(one, root), openTree(two, root)] as const;
  assert.equal(trees[0].inodeCount, trees[1].inodeCount);
  for (let ino = 1; ino <= trees[0].inodeCount; ino++) {
    const inode = trees[0].get(ino);
    assert.deepEqual(trees[1].get(ino), inode);
    if (inode?.content === undefined) continue;
    const [x, y] = [Buffer.alloc(inode.size), Buffer.alloc(inode.size)];
    assert.equal(one.readContentAt(inode.content, x, 0), inode.size);
    assert.equal(two.readContentAt(inode.content, y, 0), inode.size);
    assert.ok(x.equals(y));
  }
}
