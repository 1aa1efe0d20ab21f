import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isPgError } from '../../mdm/error.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import { buildTree } from '../../layers/build.ts';
import { compareTrees } from '../../layers/compare.ts';
import { resolveTreePath, walkTree } from '../../layers/tree-path.ts';
import { openTree, type Tree } from '../../layers/tree.ts';
import type { Store } from '../../store/store.ts';
import { Place } from '../store/fixture.ts';
import { mergeTars } from './merging.ts';
import { type RawEntry, tarBytes } from './tar-builder.ts';

async function treeOf(store: Store, entries: readonly RawEntry[]): Promise<Tree> {
  const { tree, contents } = await mergeTars([tarBytes(entries)]);
  for (const [row, data] of contents) {
    if (data === '') continue;
    tree.setSize(row, data.length);
    tree.setRoot(row, Buffer.from(bufferRoot(Buffer.from(data, 'latin1'))));
  }
  return openTree(store, buildTree(store, tree));
}

const pathsOf = (tree: Tree, at = '/'): string[] =>
  [...walkTree(tree, resolveTreePath(tree, at))].map(({ path }) => path);

/** A tree as a test sees it: contents by path; undefined is a directory. */
type Model = Map<string, string | undefined>;

const entriesFor = (model: Model): RawEntry[] =>
  [...model].map(([path, data]) =>
    data === undefined ? { name: `${path.slice(1)}/`, type: '5' } : { name: path.slice(1), data },
  );

/** What differs, from the two models alone. */
function plainChanges(before: Model, after: Model): string[] {
  const parent = (path: string): string => path.slice(0, path.lastIndexOf('/'));
  const changes: string[] = [];
  for (const path of new Set([...before.keys(), ...after.keys()])) {
    const isIn = (model: Model): boolean => path === '' || model.has(path);
    const hadParent = parent(path) === '' || (before.has(parent(path)) && before.get(parent(path)) === undefined);
    const hasParent = parent(path) === '' || (after.has(parent(path)) && after.get(parent(path)) === undefined);
    if (!hadParent || !hasParent) continue; // stands in a directory that is itself new or gone
    if (!isIn(before)) changes.push(`A ${path}`);
    else if (!isIn(after)) changes.push(`D ${path}`);
    else if (before.get(path) !== after.get(path)) changes.push(`C ${path}`);
  }
  return changes.toSorted();
}

/** Up to three levels of a few names, so that two trees have much in common. */
const models = fc
  .array(
    fc.tuple(fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 }), fc.constantFrom('', 'x', 'y')),
    {
      maxLength: 12,
    },
  )
  .map((files) => {
    const model: Model = new Map();
    for (const [names, data] of files) {
      const path = `/${names.join('/')}`;
      const above = names.slice(0, -1).map((_, i) => `/${names.slice(0, i + 1).join('/')}`);
      if (model.has(path) || above.some((directory) => model.get(directory) !== undefined)) continue;
      for (const directory of above) model.set(directory, undefined);
      model.set(path, data);
    }
    return model;
  });

describe('paths in an image', () => {
  let place: Place;
  let store: Store;
  beforeEach(() => {
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  it('lead through symlinks, never out of the image', async () => {
    const tree = await treeOf(store, [
      { name: 'usr/bin/', type: '5' },
      { name: 'usr/bin/sh', data: 'x' },
      { name: 'bin', type: '2', linkName: 'usr/bin' },
      { name: 'usr/up', type: '2', linkName: '../../../bin/.././bin/sh' },
      { name: 'abs', type: '2', linkName: '/usr' },
      { name: 'nowhere', type: '2', linkName: 'gone' },
      { name: 'loop', type: '2', linkName: 'loop' },
    ]);
    const at = (path: string, follow = true): string => resolveTreePath(tree, path, follow).path;
    assert.equal(at('/bin/sh'), '/usr/bin/sh');
    assert.equal(at('bin//./sh'), '/usr/bin/sh');
    assert.equal(at('/usr/up'), '/usr/bin/sh');
    assert.equal(at('/usr/up', false), '/usr/up');
    assert.equal(at('/bin/', false), '/usr/bin');
    assert.equal(at('/abs/bin/../../../..'), '/');
    const fails = (path: string, code: string, words: RegExp): void =>
      assert.throws(
        () => at(path),
        (error) => isPgError(error, code) && words.test(error.message),
      );
    fails('/nowhere', 'PATH_NOT_FOUND', /^\/nowhere is not in the image: there is no \/gone$/);
    fails('/usr/bin/sh/x', 'NOT_A_DIRECTORY', /\/usr\/bin\/sh is not a directory$/);
    fails('/usr/bin/sh/', 'NOT_A_DIRECTORY', /\/usr\/bin\/sh is not a directory$/);
    fails('/loop', 'SYMLINK_LOOP', /too many symlinks/);
    fails('/a\x1b[2J', 'PATH_NOT_FOUND', /^\/a\\x1b\[2J is not in the image$/);
  });

  it('are walked in byte order, a directory before what is in it', async () => {
    const tree = await treeOf(store, [
      { name: 'b/', type: '5' },
      { name: 'b/z', data: '1' },
      { name: 'b/a', data: '' },
      { name: 'a', data: '2' },
      { name: 'b\xff', data: '3' },
    ]);
    assert.deepEqual(pathsOf(tree), ['/', '/a', '/b', '/b/a', '/b/z', '/b\xff']);
    assert.deepEqual(pathsOf(tree, '/b/z'), ['/b/z']);
    assert.deepEqual(pathsOf(openTree(store, null)), ['/']);
  });

  it('of two images are compared as their listings would be', async () => {
    await fc.assert(
      fc.asyncProperty(models, models, async (before, after) => {
        const trees = [await treeOf(store, entriesFor(before)), await treeOf(store, entriesFor(after))] as const;
        const changes = [...compareTrees(...trees)].map(({ kind, path }) => `${kind} ${path}`);
        assert.deepEqual(changes.toSorted(), plainChanges(before, after));
      }),
      { numRuns: 60 },
    );
  });

  it('see a mode, an owner and a target change, and no change in times', async () => {
    const one = await treeOf(store, [
      { name: 'mode', data: 'x' },
      { name: 'owner', data: 'x' },
      { name: 'link', type: '2', linkName: 'a' },
      { name: 'time', data: 'x' },
    ]);
    const two = await treeOf(store, [
      { name: 'mode', data: 'x', mode: 0o600 },
      { name: 'owner', data: 'x', uid: 7 },
      { name: 'link', type: '2', linkName: 'b' },
      { name: 'time', data: 'x', mtime: 77 },
    ]);
    assert.deepEqual(
      [...compareTrees(one, two)].map(({ kind, path }) => `${kind} ${path}`),
      ['C /link', 'C /mode', 'C /owner'],
    );
  });

  it('are not looked for where two images are the same', async () => {
    const many = Array.from({ length: 300 }, (_, i) => ({ name: `same/${i % 10}/${i}`, data: 'x' }));
    const one = await treeOf(store, [...many, { name: 'other/f', data: 'x' }]);
    const two = await treeOf(store, [...many, { name: 'other/f', data: 'y' }]);
    let looked = 0;
    const counted: Tree = { ...bound(one), entryAt: (ino, index) => (looked++, one.entryAt(ino, index)) };
    assert.deepEqual([...compareTrees(counted, two)], [{ kind: 'C', path: '/other/f' }]);
    assert.ok(looked < 8, `${looked} entries were looked at`);
  });
});

/** The methods of a tree, each of which can be replaced. */
const bound = (tree: Tree): Tree => ({
  inodeCount: tree.inodeCount,
  get: (ino) => tree.get(ino),
  lookup: (ino, name) => tree.lookup(ino, name),
  entryAt: (ino, index) => tree.entryAt(ino, index),
  subdirs: (ino) => tree.subdirs(ino),
  parentOf: (ino) => tree.parentOf(ino),
  nodeOf: (ino) => tree.nodeOf(ino),
});
