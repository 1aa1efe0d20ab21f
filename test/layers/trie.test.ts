import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isPgError } from '../../mdm/error.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import { buildTree } from '../../layers/build.ts';
import { MergedTree } from '../../layers/merge.ts';
import { openTree, type Tree } from '../../layers/tree.ts';
import {
  directoryHead,
  DirectoryNode,
  encodeDirectory,
  encodeLinks,
  type Entry,
  LinkTable,
  S_IFDIR,
  S_IFLNK,
  S_IFREG,
} from '../../layers/trie.ts';
import type { Store } from '../../store/store.ts';
import { Place } from '../store/fixture.ts';

const META = { uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 };

/** A file of one byte whose content's root is made up: the tree does not look at contents. */
function addFile(tree: MergedTree, directory: number, name: string, byte = 1): number {
  const row = tree.add({ ...META, mode: S_IFREG | 0o644 });
  tree.setSize(row, 1);
  tree.setRoot(row, Buffer.alloc(32, byte));
  tree.link(directory, name, row, 0);
  return row;
}

function addDirectory(tree: MergedTree, parent: number, name: string): number {
  const row = tree.add({ ...META, mode: S_IFDIR | 0o755 });
  tree.link(parent, name, row, 0);
  return row;
}

describe('trie nodes', () => {
  it('are these bytes (docs/formats/trie.md)', () => {
    const file: Entry = {
      name: 'a\xff',
      rel: 1,
      mode: 0o100644,
      uid: 1,
      gid: 2,
      mtimeSec: -1,
      mtimeNsec: 5,
      size: 3,
      root: Buffer.alloc(32, 0xaa),
      rdev: 0,
      linkId: 0x010203,
      xattrs: new Map([
        ['user.b', Buffer.from('B')],
        ['user.a', Buffer.from('')],
      ]),
    };
    const link: Entry = {
      ...META,
      name: 'b',
      rel: 2,
      mode: 0o120777,
      size: 1,
      symlink: Buffer.from('t'),
      rdev: 0,
      linkId: 0,
    };
    const bytes = encodeDirectory([file, link]);
    const expected = [
      '50476431 6e037585 02000000 02000000 00000000 b1000000', // magic, CRC32, entries, inodes, subdirectories, bytes
      '20000000 8d000000', // where the records are
      '01000000 a4810000 01000000 02000000 ffffffffffffffff 05000000 0200 0300 61ff', // the file: attributes and name
      `0300000000000000 ${'aa'.repeat(32)}`, // size, root
      '0302010000000000', // hard-link group
      '0200 0600 00000000 757365722e61 0600 01000000 757365722e62 42', // extended attributes by name
      '02000000 ffa10000 00000000 00000000 0000000000000000 00000000 0100 0000 62 0100 74', // the symlink
    ].join('');
    assert.equal(bytes.toString('hex'), expected.replaceAll(' ', ''));
    const node = new DirectoryNode(bytes);
    assert.deepEqual(
      [node.count, node.subdirs, node.find('a\xff'), node.find('b'), node.find('a'), node.find('c')],
      [2, 0, 0, 1, -1, -1],
    );
    assert.deepEqual(
      { ...node.entry(0), xattrs: [...node.entry(0).xattrs!].toSorted() },
      { ...file, xattrs: [...file.xattrs!].toSorted() },
    );
    assert.deepEqual(node.entry(1), link);
    assert.deepEqual(directoryHead(bytes), { count: 2, bytes: bytes.length });
    const older = Buffer.from(expected.replaceAll(' ', '').replace('6e037585', '979b6d63'), 'hex').fill(0, 20, 24);
    assert.deepEqual(new DirectoryNode(older).entry(1), link, 'nodes that do not say how long they are');
    assert.deepEqual(directoryHead(older), { count: 2, bytes: 0 });
  });

  it('find names in byte order, and where a completion begins', () => {
    const names = ['', 'A', 'a', 'a.', 'aa', 'b', '\x7f', '\x80', '\xff'].slice(1);
    const node = new DirectoryNode(
      encodeDirectory(
        names.map((name, i) => ({ ...META, name, rel: i + 1, mode: 0o10644, size: 0, rdev: 0, linkId: 0 })),
      ),
    );
    for (const [i, name] of names.entries())
      assert.deepEqual([node.find(name), node.lowerBound(name), node.name(i)], [i, i, name]);
    assert.equal(node.lowerBound('a'), 1);
    assert.equal(node.name(node.lowerBound('ab')), 'b');
    assert.equal(node.lowerBound('\xff\xff'), names.length);
  });

  it('notice every flipped bit', () => {
    const bytes = encodeDirectory([{ ...META, name: 'p', rel: 1, mode: 0o10644, size: 0, rdev: 0, linkId: 0 }]);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const bad = Buffer.from(bytes);
      bad[bit >> 3]! ^= 1 << (bit & 7);
      assert.throws(
        () => new DirectoryNode(bad),
        (error) => isPgError(error, 'CORRUPT_NODE'),
      );
    }
    assert.throws(
      () => new DirectoryNode(bytes.subarray(0, 10)),
      (error) => isPgError(error, 'CORRUPT_NODE'),
    );
  });

  it('hold the hard-link groups of an image', () => {
    const groups = [3, 500, 2 ** 47].map((id, i) => ({ id, ino: i + 10, nlink: i + 2 }));
    const table = new LinkTable(encodeLinks(groups));
    for (const group of groups) assert.deepEqual(table.find(group.id), group);
    assert.equal(table.find(4), undefined);
  });
});

describe('an image tree', () => {
  let place: Place;
  let store: Store;

  before(() => {
    place = new Place();
    store = place.open();
  });

  after(() => place.remove());

  it('is one empty directory without an image', () => {
    const tree = openTree(store, null);
    assert.equal(tree.inodeCount, 1);
    assert.deepEqual(
      [tree.get(1)!.mode, tree.get(1)!.nlink, tree.get(2), tree.lookup(1, 'a'), tree.entryAt(1, 0)],
      [0o40755, 2, undefined, undefined, undefined],
    );
  });

  it('is numbered in preorder, with one number for all names of a file', () => {
    const merged = new MergedTree();
    const b = addDirectory(merged, 0, 'b');
    const x = addFile(merged, b, 'x');
    addFile(merged, 0, 'c');
    merged.link(0, 'd', x, 0);
    addFile(merged, 0, 'a');
    const tree = openTree(store, buildTree(store, merged));
    assert.equal(tree.inodeCount, 6);
    const names = (ino: number): unknown[] =>
      Array.from({ length: tree.get(ino)!.children! }, (_, i) => tree.entryAt(ino, i));
    assert.deepEqual(names(1), [
      { name: 'a', ino: 2, mode: 0o100644 },
      { name: 'b', ino: 3, mode: 0o40755 },
      { name: 'c', ino: 5, mode: 0o100644 },
      { name: 'd', ino: 4, mode: 0o100644 },
    ]);
    assert.deepEqual(names(3), [{ name: 'x', ino: 4, mode: 0o100644 }]);
    assert.deepEqual([tree.get(4)!.nlink, tree.get(2)!.nlink, tree.get(3)!.nlink, tree.get(1)!.nlink], [2, 1, 2, 3]);
    assert.deepEqual([tree.subdirs(1), tree.subdirs(3), tree.subdirs(2)], [1, 0, 0]);
    assert.deepEqual([tree.parentOf(4), tree.parentOf(3), tree.parentOf(1), tree.parentOf(7)], [3, 1, 1, undefined]);
    assert.deepEqual(
      [tree.get(0), tree.get(7), tree.get(-1), tree.get(1.5), tree.lookup(2, 'x'), tree.entryAt(2, 0)],
      Array.from({ length: 6 }),
    );
  });

  it('shares the nodes of directories that are equal', () => {
    const build = (extra: boolean): Uint8Array => {
      const merged = new MergedTree();
      const d = addDirectory(merged, 0, 'd');
      for (let i = 0; i < 10; i++) addFile(merged, addDirectory(merged, d, `${i}`), 'f', i);
      merged.link(d, 'hard', addFile(merged, d, 'link'), 0);
      if (extra) addFile(merged, 0, 'a');
      return buildTree(store, merged);
    };
    const before = store.table('nodes').count();
    const first = build(false);
    const between = store.table('nodes').count();
    assert.deepEqual(build(false), first);
    assert.equal(store.table('nodes').count(), between, 'nothing new for the same tree');
    build(true);
    assert.equal(between - before, 14, 'ten directories, the one above, the root, links, the root record');
    assert.equal(
      store.table('nodes').count() - between,
      3,
      'only the root directory, links (numbers moved) and root record differ',
    );
  });

  it('says what is missing or damaged', () => {
    const merged = new MergedTree();
    addFile(merged, addDirectory(merged, 0, 'd'), 'f');
    const root = buildTree(store, merged);
    const empty = new Place();
    assert.throws(
      () => openTree(empty.open(), root),
      (error) => isPgError(error, 'NODE_NOT_FOUND'),
    );
    const bytes = store.table('nodes').get(root)!;
    assert.deepEqual(bufferRoot(bytes), new Uint8Array(root));
    const other = empty.open();
    other.table('nodes').put(root, bytes.subarray(0, 60));
    assert.throws(
      () => openTree(other, root),
      (error) => isPgError(error, 'CORRUPT_NODE'),
    );
    other.table('nodes').put(root, bytes);
    assert.throws(
      () => openTree(other, root).lookup(1, 'd'),
      (error) => isPgError(error, 'NODE_NOT_FOUND'),
    );
    return empty.remove();
  });

  it('finds everything in a directory of 100,000 files, with next to no cache', () => {
    const merged = new MergedTree();
    const big = addDirectory(merged, 0, 'big');
    for (let i = 0; i < 100_000; i++) addFile(merged, big, `file-${i}`, i % 255);
    addFile(merged, 0, 'z');
    const tree = openTree(store, buildTree(store, merged), { cacheBytes: 0 });
    assert.equal(tree.get(2)!.children, 100_000);
    for (let i = 0; i < 100_000; i += 997) {
      const ino = tree.lookup(2, `file-${i}`)!;
      assert.equal(tree.get(ino)!.content!.root[0], i % 255);
      assert.equal(tree.parentOf(ino), 2);
    }
    assert.equal(tree.lookup(1, 'z'), 100_003);
    assert.equal(tree.get(100_003)!.ino, 100_003);
  });

  it('agrees with a plain model, whatever the tree', () => {
    const name = fc.string({
      unit: fc.integer({ min: 1, max: 255 }).map((c) => String.fromCharCode(c === 47 ? 48 : c)),
      minLength: 1,
      maxLength: 6,
    });
    const step = fc.record({
      parent: fc.nat(),
      name,
      kind: fc.constantFrom('file', 'directory', 'symlink', 'link', 'unlink'),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.constantFrom(0, 1 << 20), (steps, cacheBytes) => {
        const merged = new MergedTree();
        const directories = [0];
        const files: number[] = [];
        for (const { parent, name: given, kind } of steps) {
          const directory = directories[parent % directories.length]!;
          if (merged.lookup(directory, given) !== undefined) {
            if (kind === 'unlink' && !merged.isDirectory(merged.lookup(directory, given)!.inode))
              merged.unlink(directory, given);
            continue;
          }
          if (kind === 'directory') directories.push(addDirectory(merged, directory, given));
          else if (kind === 'file') files.push(addFile(merged, directory, given));
          else if (kind === 'link' && files.length > 0) merged.link(directory, given, files[parent % files.length]!, 0);
          else if (kind === 'symlink') {
            const row = merged.add({ ...META, mode: S_IFLNK | 0o777 });
            merged.setSymlink(row, Buffer.from(given, 'latin1'));
            merged.link(directory, given, row, 0);
          }
        }
        compare(merged, openTree(store, buildTree(store, merged), { cacheBytes }));
      }),
      { numRuns: 150 },
    );
  });
});

/** Walks both, counting: the number of an inode is the count when its first name is met. */
function compare(merged: MergedTree, tree: Tree): void {
  let count = 0;
  const numbers = new Map<number, number>();
  const checks: (() => void)[] = [];
  const visit = (row: number, parent: number): number => {
    count++;
    const ino = numbers.get(row) ?? count;
    if (!numbers.has(row)) {
      numbers.set(row, ino);
      checks.push(() => assert.equal(tree.parentOf(ino), parent));
    }
    checks.push(() => {
      const inode = tree.get(ino)!;
      assert.deepEqual([inode.ino, inode.mode], [ino, merged.mode(row)]);
      if (!merged.isDirectory(row)) assert.equal(inode.nlink, merged.names(row));
    });
    if (merged.isDirectory(row)) {
      for (const [i, { name, inode }] of merged.sorted(row).entries()) {
        const child = visit(inode, ino);
        checks.push(() => {
          assert.equal(tree.lookup(ino, name), child);
          assert.deepEqual(tree.entryAt(ino, i), { name, ino: child, mode: merged.mode(inode) });
        });
      }
    }
    return ino;
  };
  visit(0, 1);
  assert.equal(tree.inodeCount, count);
  for (const check of [...checks, ...checks.toReversed()]) check();
}
