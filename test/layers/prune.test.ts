import assert from 'node:assert/strict';
import { findImage, listImages, putImage, removeImage } from '../../layers/images.ts';
import { isPinned, pinImage, unpinImage } from '../../layers/pins.ts';
import { pruneImages, type PruneWish } from '../../layers/prune.ts';
import { isPgError } from '../../mdm/error.ts';
import type { Store } from '../../store/store.ts';
import { Place } from '../store/fixture.ts';

const DANGLING: PruneWish = { all: false, labels: [], withoutLabels: [] };
const ALL: PruneWish = { ...DANGLING, all: true };

describe('pruning', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  function put(digit: string, names: string[], created: string, labels: Record<string, string> = {}): string {
    const id = `sha256:${digit.repeat(64)}`;
    const configBytes = Buffer.from(JSON.stringify({ created, config: { Labels: labels } }));
    const image = {
      id,
      treeRoot: Buffer.alloc(32),
      configBytes,
      layers: [],
      platform: 'linux/amd64',
      importedMs: 0,
      size: 0,
    };
    store.transaction(() => putImage(store, image, names));
    return id;
  }

  const left = (): string[] =>
    listImages(store)
      .map(({ id }) => id[7]!)
      .toSorted();
  const prune = (wish: PruneWish, used: string[] = []): string[] =>
    pruneImages(store, wish, ({ id }) => used.includes(id))
      .map(({ deleted }) => deleted![7]!)
      .toSorted();

  it('takes what has no name, or with all what no container uses', () => {
    put('a', ['nginx:1'], '2020-01-01T00:00:00Z');
    const used = put('b', ['nginx:2'], '2020-01-01T00:00:00Z');
    put('c', [], '2020-01-01T00:00:00Z');
    const usedToo = put('d', [], '2020-01-01T00:00:00Z');
    assert.deepEqual(prune(DANGLING, [used, usedToo]), ['c']);
    assert.deepEqual(left(), ['a', 'b', 'd']);
    assert.deepEqual(prune(ALL, [used, usedToo]), ['a']);
    assert.deepEqual(left(), ['b', 'd']);
    assert.equal(findImage(store, 'nginx:1'), undefined);
  });

  it('looks at age and labels', () => {
    const old = '2020-01-01T00:00:00Z';
    put('a', ['a'], old, { keep: 'yes' });
    put('b', ['b'], old, { keep: 'no' });
    put('c', ['c'], '2024-01-01T00:00:00Z');
    put('d', ['d'], old);
    const before = Date.parse('2022-01-01T00:00:00Z');
    assert.deepEqual(prune({ ...ALL, before, labels: ['keep=no'] }), ['b']);
    assert.deepEqual(prune({ ...ALL, before, withoutLabels: ['keep'] }), ['d']);
    assert.deepEqual(prune({ ...ALL, before, labels: ['keep'], withoutLabels: ['keep=no'] }), ['a']);
    assert.deepEqual(left(), ['c']);
  });

  it('leaves what is pinned, as rmi does unless it is forced; the pin goes with the image', () => {
    const id = put('a', ['nginx:1', 'other:1'], '2020-01-01T00:00:00Z');
    assert.ok(pinImage(store, id));
    assert.ok(!pinImage(store, id));
    assert.deepEqual(prune(ALL), []);
    removeImage(store, 'other:1', () => []);
    assert.throws(
      () => removeImage(store, 'nginx:1', () => []),
      (error) => isPgError(error, 'IMAGE_PINNED') && error.hint !== undefined,
    );
    assert.ok(unpinImage(store, id) && !unpinImage(store, id));
    pinImage(store, id);
    removeImage(store, 'nginx:1', () => [], true);
    assert.ok(!isPinned(store, id));
    put('a', [], '2020-01-01T00:00:00Z');
    assert.deepEqual(prune(ALL), ['a']);
  });
});
