import { PgError } from '../mdm/error.ts';
import type { ProgressSink } from '../layers/progress.ts';
import { readNode } from '../layers/tree.ts';
import { decodeRoot, DirectoryNode } from '../layers/trie.ts';
import { contentKey, encodeExtents, isZeroSector, type ContentRef } from '../store/content.ts';
import type { Lease } from '../store/lease.ts';
import type { Store } from '../store/store.ts';
import type { Connection } from './connection.ts';
import { badMessage } from './envelope.ts';
import { MAX_BULK_BYTES } from './wire.ts';

/** What one side would have to send so that the other has a tree and some contents. All of it by name; the bytes stay in the store. */
export interface Lacking {
  /** Trie nodes, each after those below it. */
  nodes: Uint8Array[];
  contents: ContentRef[];
  /** Whole sectors that hold lacking contents, and are lacking themselves. */
  sectors: Uint8Array[];
  /** Held until they are shipped, so that the sectors stay where the extents say; without it there is nothing to ship. */
  lease?: Lease;
  /** Bytes that `shipLacking` will put on the wire, sectors counted whole (their zero tails are not sent). */
  bytes: number;
}

/** Names asked about in one message. */
const BATCH = 32_768;
/** Sectors under way at once: enough to keep the wire busy while the other side hashes. */
const SECTORS_IN_FLIGHT = 6;

type Kind = 'nodes' | 'contents' | 'sectors';

/**
 * Finds out what the peer lacks of the tree below `treeRoot` (null: none) and of `contents`. The trie is walked from the top, by hash:
 * below a node that the peer has, nothing is asked about.
 */
export async function findLacking(
  connection: Connection,
  store: Store,
  treeRoot: Uint8Array | null,
  contents: Iterable<ContentRef>,
): Promise<Lacking> {
  const lease = store.lease('send an image');
  try {
    return { ...(await look(connection, store, treeRoot, contents)), lease };
  } catch (error) {
    lease.release();
    throw error;
  }
}

async function look(
  connection: Connection,
  store: Store,
  treeRoot: Uint8Array | null,
  contents: Iterable<ContentRef>,
): Promise<Lacking> {
  const wanted = new Map<string, ContentRef>();
  const want = (ref: ContentRef): void => {
    if (ref.size > 0) wanted.set(contentKey(ref).toString('latin1'), ref);
  };
  for (const ref of contents) want(ref);
  const { nodes, bytes: nodeBytes } = await walkTree(connection, store, treeRoot, want);
  const refs = [...wanted.values()];
  const lackingContents = await filterLacking(connection, 'contents', refs, contentKey);
  const sectors = new Map<string, Uint8Array>();
  let extentBytes = 0;
  for (const ref of lackingContents) {
    const extents = extentsOf(store, ref);
    extentBytes += 44 + extents.length * 44;
    for (const { sector } of extents) {
      if (!isZeroSector(sector)) sectors.set(Buffer.from(sector).toString('latin1'), sector);
    }
  }
  const lackingSectors = await filterLacking(connection, 'sectors', [...sectors.values()], (root) => root);
  const bytes = nodeBytes + extentBytes + lackingSectors.length * MAX_BULK_BYTES;
  return { nodes, contents: lackingContents, sectors: lackingSectors, bytes };
}

/** Sends what `findLacking` found: sectors, then the contents in them, then the nodes that name these, bottom up. */
export async function shipLacking(
  connection: Connection,
  store: Store,
  lacking: Lacking,
  progress: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  try {
    await ship(connection, store, lacking, progress, signal);
  } finally {
    lacking.lease?.release();
  }
}

async function ship(
  connection: Connection,
  store: Store,
  { sectors, contents, nodes }: Lacking,
  progress: ProgressSink,
  signal: AbortSignal,
): Promise<void> {
  const task = 'sectors';
  progress.start(task, `image: ${sectors.length} sectors`, sectors.length * MAX_BULK_BYTES);
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let root = sectors[next++]; root !== undefined; root = sectors[next++]) {
      signal.throwIfAborted();
      await connection.request('contents', 'sector', { root }, withoutZeroTail(store.readSector(root)));
      progress.advance(task, MAX_BULK_BYTES);
    }
  };
  await Promise.all(Array.from({ length: SECTORS_IN_FLIGHT }, lane));
  progress.done(task, sectors.length === 0 ? 'already there' : undefined);
  const send =
    (name: string) =>
    async (bulk: Buffer): Promise<void> => {
      signal.throwIfAborted();
      await connection.request('contents', name, {}, bulk);
    };
  await inBatches(contentRecords(store, contents), send('contents'));
  await connection.request('contents', 'settle');
  await inPieces(nodeRecords(store, nodes), send('nodes'));
}

/** The lacking nodes, children before parents; `want` is told every content that a lacking node names. */
async function walkTree(
  connection: Connection,
  store: Store,
  treeRoot: Uint8Array | null,
  want: (ref: ContentRef) => void,
): Promise<{ nodes: Uint8Array[]; bytes: number }> {
  const topDown: Uint8Array[] = [];
  let bytes = 0;
  const read = (hash: Uint8Array): Buffer => {
    const node = readNode(store, hash);
    topDown.push(hash);
    bytes += node.length + 36;
    return node;
  };
  if (treeRoot === null) return { nodes: [], bytes };
  const [root] = await filterLacking(connection, 'nodes', [treeRoot], (hash) => hash);
  if (root === undefined) return { nodes: [], bytes };
  const record = decodeRoot(read(root));
  if (record.links !== undefined) {
    const [links] = await filterLacking(connection, 'nodes', [record.links.hash], (hash) => hash);
    if (links !== undefined) read(links);
  }
  const seen = new Set<string>();
  let level = record.root.child === undefined ? [] : [record.root.child.hash];
  while (level.length > 0) {
    const below: Uint8Array[] = [];
    for (const hash of await filterLacking(connection, 'nodes', level, (h) => h)) {
      const directory = new DirectoryNode(read(hash));
      for (let index = 0; index < directory.count; index++) {
        const { child, root: content, size } = directory.entry(index);
        if (content !== undefined) want({ root: content, size });
        if (child === undefined) continue;
        const key = Buffer.from(child.hash).toString('latin1');
        if (!seen.has(key)) below.push(child.hash);
        seen.add(key);
      }
    }
    level = below;
  }
  return { nodes: topDown.toReversed(), bytes };
}

/** Those of `items` that the peer lacks, in order. */
async function filterLacking<T>(
  connection: Connection,
  kind: Kind,
  items: readonly T[],
  keyOf: (item: T) => Uint8Array,
): Promise<T[]> {
  const lacking: T[] = [];
  for (let start = 0; start < items.length; start += BATCH) {
    const batch = items.slice(start, start + BATCH);
    const { bulk } = await connection.request('contents', 'lacking', { kind }, Buffer.concat(batch.map(keyOf)));
    if (bulk.length !== Math.ceil(batch.length / 8)) throw badMessage('a bitmap of another length');
    for (const [i, item] of batch.entries()) {
      if ((bulk[i >> 3]! & (1 << (i & 7))) !== 0) lacking.push(item);
    }
  }
  return lacking;
}

function extentsOf(store: Store, ref: ContentRef): ReturnType<Store['contentExtents']> & object {
  const extents = store.contentExtents(ref);
  if (extents === undefined) {
    throw new PgError(
      'UNKNOWN_CONTENT',
      `a content of the image is not in the store (${Buffer.from(ref.root).toString('hex')})`,
      {
        hint: 'pg verify; or import the image again',
      },
    );
  }
  return extents;
}

/** A sector up to its last byte that is not zero, in whole blocks of 4 KiB: the last sector of an import is mostly empty. */
function withoutZeroTail(sector: Buffer): Buffer {
  const block = 4096;
  const zero = Buffer.alloc(block);
  let end = sector.length;
  while (end > 0 && sector.compare(zero, 0, block, end - block, end) === 0) end -= block;
  return sector.subarray(0, end);
}

/** What the other side needs to know of a content: key (40 bytes), number of extents (u32), extents as the index has them. */
function* contentRecords(store: Store, refs: readonly ContentRef[]): Generator<Buffer> {
  for (const ref of refs) {
    const extents = extentsOf(store, ref);
    const count = Buffer.allocUnsafe(4);
    count.writeUInt32LE(extents.length);
    yield Buffer.concat([contentKey(ref), count, encodeExtents(extents)]);
  }
}

/** A node: hash (32 bytes), length (u32), bytes. */
function* nodeRecords(store: Store, hashes: readonly Uint8Array[]): Generator<Buffer> {
  for (const hash of hashes) {
    const bytes = readNode(store, hash);
    const length = Buffer.allocUnsafe(4);
    length.writeUInt32LE(bytes.length);
    yield Buffer.concat([hash, length, bytes]);
  }
}

/** Sends whole records, as many as fit in one message. */
async function inBatches(records: Iterable<Buffer>, send: (bulk: Buffer) => Promise<void>): Promise<void> {
  let batch: Buffer[] = [];
  let size = 0;
  for (const record of records) {
    if (record.length > MAX_BULK_BYTES)
      throw new PgError('CONTENT_TOO_LARGE', 'a file of the image has too many pieces to be described in one message');
    if (size + record.length > MAX_BULK_BYTES) {
      await send(Buffer.concat(batch));
      batch = [];
      size = 0;
    }
    batch.push(record);
    size += record.length;
  }
  if (size > 0) await send(Buffer.concat(batch));
}

/** Sends records as one stream of bytes, cut anywhere: a directory with a million names is larger than a message. */
async function inPieces(records: Iterable<Buffer>, send: (bulk: Buffer) => Promise<void>): Promise<void> {
  let pending: Buffer[] = [];
  let size = 0;
  for (const record of records) {
    pending.push(record);
    size += record.length;
    if (size < MAX_BULK_BYTES) continue;
    const all = Buffer.concat(pending);
    let at = 0;
    for (; all.length - at >= MAX_BULK_BYTES; at += MAX_BULK_BYTES) await send(all.subarray(at, at + MAX_BULK_BYTES));
    pending = [all.subarray(at)];
    size = all.length - at;
  }
  if (size > 0) await send(Buffer.concat(pending));
}
