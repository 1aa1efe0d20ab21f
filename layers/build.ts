import { bufferRoot } from '../mdm/merkle.ts';
import type { Store } from '../store/store.ts';
import type { MergedTree } from './merge.ts';
import {
  type ChildRef,
  encodeDirectory,
  encodeLinks,
  encodeRoot,
  type Entry,
  type LinkGroup,
  S_IFDIR,
  S_IFMT,
  S_IFREG,
} from './trie.ts';

/** Bytes of new nodes that one transaction of the index takes. */
const BATCH_BYTES = 16 << 20;
/** Bits of a hard-link group's id: it must fit a number, and collide practically never. */
const LINK_ID_BYTES = 6;
const ROOT = 0;

/**
 * Writes a merged tree as trie nodes, bottom-up, and returns the hash of its root record: what `openTree` takes. Nodes that are in the
 * store already are not written again. All contents' roots must be known. The caller holds a lease until a record refers to the tree.
 */
export function buildTree(store: Store, tree: MergedTree): Uint8Array {
  const nodes = new NodeWriter(store);
  const groups = findGroups(tree);
  const below = encodeSubtree(tree, groups, nodes);
  const inOrder = [...groups.values()].toSorted((a, b) => a.id - b.id);
  const root = entryOf(tree, groups, ROOT, '', 0);
  root.child = below;
  const links = inOrder.length === 0 ? undefined : { hash: nodes.put(encodeLinks(inOrder)), count: inOrder.length };
  const hash = nodes.put(encodeRoot({ inodes: 1 + below.inodes, links, root }));
  nodes.flush();
  return hash;
}

class NodeWriter {
  readonly #store: Store;
  #batch: { hash: Uint8Array; bytes: Buffer }[] = [];
  #batchBytes = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  put(bytes: Buffer): Uint8Array {
    const hash = bufferRoot(bytes);
    this.#batch.push({ hash, bytes });
    this.#batchBytes += bytes.length;
    if (this.#batchBytes >= BATCH_BYTES) this.flush();
    return hash;
  }

  flush(): void {
    const nodes = this.#store.table('nodes');
    this.#store.transaction(() => {
      for (const { hash, bytes } of this.#batch) if (!nodes.has(hash)) nodes.put(hash, bytes);
    });
    this.#batch = [];
    this.#batchBytes = 0;
  }
}

/** The hard-link groups by row: numbered by the place of their first name in preorder, identified by its path. */
function findGroups(tree: MergedTree): Map<number, LinkGroup> {
  const groups = new Map<number, LinkGroup>();
  if (!tree.hasHardLinks()) return groups;
  const taken = new Set<number>();
  let ino = 0;
  const visit = (row: number, path: string): void => {
    ino++;
    if (tree.isDirectory(row)) {
      for (const { name, inode } of tree.sorted(row)) visit(inode, `${path}/${name}`);
    } else if (tree.names(row) > 1 && !groups.has(row)) {
      groups.set(row, { id: linkId(path, taken), ino, nlink: tree.names(row) });
    }
  };
  visit(ROOT, '');
  return groups;
}

/** An id that depends on the path alone (unless two collide), so that a directory's node is the same in every image that has it. */
function linkId(path: string, taken: Set<number>): number {
  for (let attempt = 0; ; attempt++) {
    const hash = Buffer.from(bufferRoot(Buffer.from(attempt === 0 ? path : `${path}\0${attempt}`, 'latin1')));
    const id = hash.readUIntLE(0, LINK_ID_BYTES);
    if (id !== 0 && !taken.has(id)) {
      taken.add(id);
      return id;
    }
  }
}

function encodeSubtree(tree: MergedTree, groups: ReadonlyMap<number, LinkGroup>, nodes: NodeWriter): ChildRef {
  const encode = (directory: number): ChildRef => {
    const names = tree.sorted(directory);
    const children = new Map<number, ChildRef>();
    for (const { inode } of names) if (tree.isDirectory(inode)) children.set(inode, encode(inode));
    // Made one at a time: of a million files in one directory they would be 400 MB.
    function* entries(): Generator<Entry> {
      let rel = 1;
      for (const { name, inode } of names) {
        const child = children.get(inode);
        yield { ...entryOf(tree, groups, inode, name, rel), child };
        rel += 1 + (child?.inodes ?? 0);
      }
    }
    const hash = nodes.put(encodeDirectory({ [Symbol.iterator]: entries }));
    const inodes = [...children.values()].reduce((sum, child) => sum + child.inodes, names.length);
    return { hash, inodes, entries: names.length, subdirs: children.size };
  };
  return encode(ROOT);
}

function entryOf(
  tree: MergedTree,
  groups: ReadonlyMap<number, LinkGroup>,
  row: number,
  name: string,
  rel: number,
): Entry {
  const type = tree.mode(row) & S_IFMT;
  const size = type === S_IFREG ? tree.size(row) : 0;
  return {
    ...tree.metadata(row),
    name,
    rel,
    size,
    root: size > 0 ? tree.root(row) : undefined,
    symlink: tree.symlink(row),
    rdev: tree.device(row),
    linkId: type === S_IFDIR ? 0 : (groups.get(row)?.id ?? 0),
  };
}
