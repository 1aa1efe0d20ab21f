import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import { blake2b } from '@noble/hashes/blake2.js';

/** A second verifier, written from docs/formats/proof.md alone, on another implementation of the hash: slow, plain, and with nothing of pg's in it. */
export interface TwinResult {
  root: Buffer;
  size: number;
  filesAt: number;
  epoch: number;
  label: string;
  path: string;
  /** What the path leads to, if anything. */
  inode: { mode: number; uid: number; gid: number; size: number } | undefined;
  bytes: Buffer | undefined;
}

const hash = (...parts: Uint8Array[]): Buffer => Buffer.from(blake2b(Buffer.concat(parts), { dkLen: 32 }));
const leafHash = (bytes: Buffer): Buffer => hash(Buffer.of(0), bytes);
const nodeHash = (left: Buffer, right: Buffer): Buffer => hash(Buffer.of(1), left, right);
const u64 = (bytes: Buffer, at: number): number => {
  const value = bytes.readBigUInt64LE(at);
  assert.ok(value <= Number.MAX_SAFE_INTEGER);
  return Number(value);
};

/** An opened tree: the leaves it shows, and which of them were read. */
class Tree {
  size: number;
  root: Buffer;
  end: number;
  leaves = new Map<number, Buffer>();
  read_ = new Set<number>();

  constructor(file: Buffer, at: number) {
    this.size = u64(file, at);
    const count = file.readUInt32LE(at + 8);
    const ranges = Array.from(
      { length: count },
      (_, i) => [u64(file, at + 12 + 16 * i), u64(file, at + 20 + 16 * i)] as const,
    );
    let cursor = at + 12 + 16 * count;
    const take = (length: number): Buffer => {
      assert.ok(cursor + length <= file.length);
      return file.subarray(cursor, (cursor += length));
    };
    const total = Math.ceil(this.size / 64);
    /** Roots of perfect subtrees so far: number of leaves and hash, larger ones first. */
    const peaks: { leaves: number; hash: Buffer }[] = [];
    const push = (leaves: number, node: Buffer): void => {
      peaks.push({ leaves, hash: node });
      for (
        let [b, a] = [peaks.at(-1)!, peaks.at(-2)];
        a !== undefined && a.leaves === b.leaves;
        [b, a] = [peaks.at(-1)!, peaks.at(-2)]
      ) {
        peaks.splice(-2, 2, { leaves: 2 * a.leaves, hash: nodeHash(a.hash, b.hash) });
      }
    };
    const skip = (from: number, to: number): void => {
      while (from < to) {
        let leaves = 1;
        while (from % (2 * leaves) === 0 && from + 2 * leaves <= to) leaves *= 2;
        push(leaves, take(32));
        from += leaves;
      }
    };
    let before = 0;
    for (const [from, to] of ranges) {
      assert.ok(from < to && to <= total && (from > before || before === 0));
      skip(before, from);
      for (let leaf = from; leaf < to; leaf++) {
        const bytes = take(Math.min(64, this.size - 64 * leaf));
        this.leaves.set(leaf, bytes);
        push(1, leafHash(bytes));
      }
      before = to;
    }
    skip(before, total);
    this.root = peaks.map((peak) => peak.hash).reduceRight((right, left) => nodeHash(left, right));
    this.end = cursor;
  }

  read(offset: number, length: number): Buffer {
    assert.ok(length >= 0 && offset + length <= this.size);
    const parts: Buffer[] = [];
    for (let at = offset; at < offset + length;) {
      const leaf = Math.floor(at / 64);
      this.read_.add(leaf);
      const bytes = this.leaves.get(leaf);
      assert.ok(bytes !== undefined, 'a leaf that is not shown');
      parts.push(bytes.subarray(at % 64, Math.min(64, (at % 64) + offset + length - at)));
      at += parts.at(-1)!.length;
    }
    return Buffer.concat(parts);
  }
}

/** Throws unless the proof holds. */
export function twinVerify(file: Buffer): TwinResult {
  assert.equal(file.toString('latin1', 0, 8), 'pgproof\0');
  assert.equal(file.readUInt16LE(8), 1);
  assert.equal(crc32(file.subarray(0, -4)), file.readUInt32LE(file.length - 4));
  const body = file.subarray(0, -4);
  const flags = body[10]!;
  assert.ok(flags < 4 && body[11] === 0);
  const [start, end, firstExtent] = [u64(body, 16), u64(body, 24), u64(body, 32)];
  let at = 72;
  const names = Array.from({ length: body.readUInt32LE(12) }, () => {
    const length = body[at]!;
    const name = body.toString('latin1', at + 1, at + 1 + length);
    assert.ok(length > 0 && name !== '.' && name !== '..' && !/[/\0]/.test(name));
    at += length + 5;
    return { name, index: body.readUInt32LE(at - 4) };
  });
  const trees = new Map<string, Tree>();
  const open = (root: Buffer, size?: number): Tree => {
    const key = `${root.toString('hex')} ${size ?? ''}`;
    if (!trees.has(key)) {
      const tree = new Tree(body, at);
      at = tree.end;
      assert.ok(tree.root.equals(root) && (size === undefined || tree.size === size));
      trees.set(key, tree);
    }
    return trees.get(key)!;
  };
  const log = open(body.subarray(40, 72));
  const result = {
    root: log.root,
    size: log.size,
    ...claimOf(log),
    path: `/${names.map(({ name }) => name).join('/')}`,
  };
  const rootNode = open(result.trie);
  const rootRecord = rootNode.read(0, rootNode.size);
  assert.equal(rootRecord.toString('latin1', 0, 4), 'PGr1');
  let inode: ReturnType<typeof record> | undefined = record(rootRecord.subarray(48));
  let missing = false;
  for (const { name, index } of names) {
    if (missing) {
      assert.equal(index, 0);
      continue;
    }
    assert.ok(inode !== undefined);
    assert.notEqual(inode.mode & 0o170000, 0o120000);
    const isDir: boolean = (inode.mode & 0o170000) === 0o040000;
    if (!isDir) assert.equal(index, 0);
    inode = isDir ? entryOf(open(inode.hash!), name, index) : undefined;
    missing = inode === undefined;
  }
  assert.equal((flags & 2) !== 0, !missing);
  const hasBytes = (flags & 1) !== 0;
  assert.ok(hasBytes || (start === 0 && end === 0 && firstExtent === 0));
  const bytes = hasBytes ? fileBytes(inode, { start, end, firstExtent }, log, result.filesAt, open) : undefined;
  assert.equal(at, body.length, 'nothing follows');
  for (const tree of trees.values()) assert.equal(tree.read_.size, tree.leaves.size, 'no leaf is shown in vain');
  return { ...result, inode, bytes };
}

function claimOf(log: Tree): { filesAt: number; epoch: number; trie: Buffer; label: string } {
  assert.equal(log.size % 64, 0);
  const commit = log.read(log.size - 64, 64);
  assert.deepEqual([commit[14], u64(commit, 48)], [2, log.size]);
  const start = u64(commit, 40);
  const entry = log.read(start, log.size - 64 - start);
  assert.deepEqual([entry[14], entry.readUInt32LE(4) * 64, entry.readUInt32LE(8)], [3, entry.length, 0]);
  const filesAt = u64(entry, 40);
  assert.ok(filesAt <= start);
  return {
    filesAt,
    epoch: u64(entry, 48),
    trie: entry.subarray(56, 88),
    label: entry.toString('latin1', 88, entry.readUInt16LE(12)),
  };
}

function record(bytes: Buffer): {
  name: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  hash: Buffer | undefined;
  mapped: boolean;
} {
  const [mode, uid, gid] = [bytes.readUInt32LE(4), bytes.readUInt32LE(8), bytes.readUInt32LE(12)];
  const body = 32 + bytes.readUInt16LE(28);
  const type = mode & 0o170000;
  const size = type === 0o100000 ? u64(bytes, body) : 0;
  const hashAt = type === 0o040000 ? body : size > 0 ? body + 8 : -1;
  const name = bytes.toString('latin1', 32, body);
  return {
    name,
    mode,
    uid,
    gid,
    size,
    hash: hashAt < 0 ? undefined : bytes.subarray(hashAt, hashAt + 32),
    mapped: (bytes.readUInt16LE(30) & 4) !== 0,
  };
}

function entryOf(node: Tree, name: string, index: number): ReturnType<typeof record> | undefined {
  const head = node.read(0, 24);
  assert.ok(['PGd1', 'PGn1'].includes(head.toString('latin1', 0, 4)));
  if (head.readUInt32LE(20) === 0) node.read(0, node.size);
  else assert.equal(head.readUInt32LE(20), node.size);
  const count = head.readUInt32LE(8);
  assert.ok(index <= count);
  const offset = (i: number): number => (i === count ? node.size : node.read(24 + 4 * i, 4).readUInt32LE());
  const at = (i: number): ReturnType<typeof record> => record(node.read(offset(i), offset(i + 1) - offset(i)));
  const here = index < count ? at(index) : undefined;
  if (here?.name === name) return here;
  assert.ok(index === 0 || at(index - 1).name < name);
  assert.ok(here === undefined || name < here.name);
  return undefined;
}

function fileBytes(
  inode: ReturnType<typeof record> | undefined,
  { start, end, firstExtent }: { start: number; end: number; firstExtent: number },
  log: Tree,
  filesAt: number,
  open: (root: Buffer, size?: number) => Tree,
): Buffer {
  assert.ok(inode !== undefined && (inode.mode & 0o170000) === 0o100000 && start <= end && end <= inode.size);
  const bytes = Buffer.alloc(end - start);
  assert.ok(firstExtent === 0 || (start < end && inode.mapped));
  if (start === end) return bytes;
  if (!inode.mapped) {
    return open(inode.hash!, inode.size).read(start, end - start);
  }
  const map = open(inode.hash!);
  const head = map.read(0, 64);
  const count = u64(head, 8);
  assert.deepEqual([head.toString('latin1', 0, 4), map.size], ['PGx1', 64 * (count + 1)]);
  const extent = (i: number) => {
    const raw = map.read(64 * (i + 1), 64);
    const kind = raw[31]!;
    const contentSize = raw.readUIntLE(24, 6);
    return {
      from: u64(raw, 0),
      to: u64(raw, 0) + u64(raw, 8),
      place: u64(raw, 16),
      kind,
      contentSize,
      root: raw.subarray(32),
    };
  };
  if (firstExtent > 0) assert.ok(extent(firstExtent - 1).to <= start);
  let before = start;
  for (let i = firstExtent; i < count && before < end; i++) {
    const { from, to, place, kind, contentSize, root } = extent(i);
    assert.ok(to > before && (i === firstExtent || from >= before));
    const [a, b] = [Math.max(from, start), Math.min(to, end)];
    before = Math.max(before, Math.min(to, end), Math.min(from, end));
    if (a >= b || kind === 2) continue;
    assert.ok(kind === 1 || kind === 3);
    if (kind === 1) assert.ok(place + (b - from) <= filesAt);
    (kind === 1 ? log : open(root, contentSize)).read(place + a - from, b - a).copy(bytes, a - start);
  }
  return bytes;
}
