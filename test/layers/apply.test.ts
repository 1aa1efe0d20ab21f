import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { isPgError } from '../../mdm/error.ts';
import type { Tree } from '../../layers/tree.ts';
import type { Store } from '../../store/store.ts';
import { Place } from '../store/fixture.ts';
import { CASES, type Case } from './cases.ts';
import { importSample } from './listing.ts';
import { mergeTars } from './merging.ts';
import { imageOf, type RawEntry, tarBytes } from './tar-builder.ts';

describe('layers laid over one another', () => {
  let place: Place;
  let store: Store;
  let dir: string;
  let samples = 0;

  before(() => {
    place = new Place();
    store = place.open();
    dir = mkdtempSync('/var/tmp/pg-test-');
  });

  after(async () => {
    await place.remove();
    rmSync(dir, { recursive: true, force: true });
  });

  const imported = (layers: RawEntry[][]): ReturnType<typeof importSample> =>
    importSample(store, join(dir, `${samples++}`), imageOf(...layers.map((entries) => tarBytes(entries))));
  const treeOf = async (layers: RawEntry[][]): Promise<Tree> => (await imported(layers)).tree;

  for (const [name, { layers, tree }] of Object.entries<Case>(CASES)) {
    it(name, async () => {
      if (Array.isArray(tree)) assert.deepEqual(await merged(layers), tree);
      else await assert.rejects(merged(layers), (error) => isPgError(error, tree.error));
    });
  }

  it('takes over every attribute of an entry', async () => {
    const capability = '\x01\x00\x00\x02\x00\x04\x00\x00' + '\0'.repeat(12);
    const tree = await treeOf([
      [
        { name: './', mode: 0o711, uid: 3, gid: 4, mtime: 11 },
        { name: 's', data: 'x', mode: 0o6755, uid: 4_000_000_000, gid: 70_000, mtime: 12 },
        { name: 'c', type: '3', device: [1, 3], mode: 0o600 },
        { name: 'b', type: '4', device: [259, 70_000] },
        { name: 'x', data: 'y', pax: [['SCHILY.xattr.security.capability', capability]] },
        { name: 't', data: 'y', pax: [['mtime', '-1.5']] },
      ],
    ]);
    const { mode, uid, gid, mtimeSec } = tree.get(1)!;
    assert.deepEqual([mode, uid, gid, mtimeSec], [0o40711, 3, 4, 11]);
    const s = inodeAt(tree, 's');
    assert.deepEqual([s.mode, s.uid, s.gid, s.mtimeSec, s.size], [0o106755, 4_000_000_000, 70_000, 12, 1]);
    assert.equal(inodeAt(tree, 'c').rdev, 0x103);
    assert.equal(inodeAt(tree, 'b').rdev, ((70_000 & 0xff) | (259 << 8) | ((70_000 & ~0xff) << 12)) >>> 0);
    assert.equal(Buffer.from(inodeAt(tree, 'x').xattrs!.get('security.capability')!).toString('latin1'), capability);
    const t = inodeAt(tree, 't');
    assert.deepEqual([t.mtimeSec, t.mtimeNsec], [-2, 500_000_000]);
  });

  it('gives all names of a file one inode, and forgets names that go', async () => {
    const tree = await treeOf([
      [
        { name: 'z', data: 'x' },
        { name: 'd/b', type: '1', linkName: 'z', uid: 7 },
        { name: 'a', type: '1', linkName: 'z', uid: 8, mtime: 99 },
        { name: 'gone', type: '1', linkName: 'z', uid: 8 },
      ],
      [{ name: '.wh.gone' }],
    ]);
    const a = inodeAt(tree, 'a');
    assert.deepEqual([a.nlink, a.uid, a.ino], [3, 8, 2]);
    assert.deepEqual(inodeAt(tree, 'd/b'), a);
    assert.deepEqual(inodeAt(tree, 'z'), a);
    assert.equal(tree.parentOf(a.ino), 1);
  });

  it('is the same tree, to the bit, however the layers are cut', async () => {
    const whole = await imported([
      [
        { name: 'd/', mode: 0o700 },
        { name: 'd/a', data: '1' },
        { name: 'd/b', data: '2' },
      ],
    ]);
    const parts = await imported([
      [{ name: 'd/' }, { name: 'd/b', data: '2' }, { name: 'd/c', data: '3' }],
      [{ name: 'd/', mode: 0o700 }, { name: 'd/a', data: '1' }, { name: 'd/.wh.c' }],
    ]);
    assert.deepEqual(parts.image.treeRoot, whole.image.treeRoot);
  });
});

const inodeAt = (tree: Tree, path: string): NonNullable<ReturnType<Tree['get']>> =>
  tree.get(path.split('/').reduce((ino, name) => (name === '' ? ino : tree.lookup(ino, name)!), 1))!;

/** What comes of the layers: every name with its content, target or kind, as cases.ts writes them. */
async function merged(layers: readonly RawEntry[][]): Promise<string[]> {
  const { tree, contents } = await mergeTars(layers.map((entries) => tarBytes(entries)));
  const lines: string[] = [];
  const visit = (row: number, path: string): void => {
    for (const { name, inode } of tree.sorted(row)) {
      const target = tree.symlink(inode);
      if (contents.has(inode)) lines.push(`${path}${name}=${contents.get(inode)}`);
      else if (target !== undefined) lines.push(`${path}${name}->${Buffer.from(target).toString('latin1')}`);
      else lines.push(path + name + (tree.isDirectory(inode) ? '/' : ''));
      if (tree.isDirectory(inode)) visit(inode, `${path}${name}/`);
    }
  };
  visit(0, '');
  return lines;
}
