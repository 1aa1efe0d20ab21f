import { bufferRoot } from '../mdm/merkle.ts';
import { contentOfKey, type ContentRef, decodeExtents } from '../store/content.ts';
import type { Lease } from '../store/lease.ts';
import type { Store } from '../store/store.ts';
import type { ContentWriter } from '../store/writer.ts';
import type { Answer, Service } from './connection.ts';
import { badMessage, bytesOf, textOf, type Body } from './envelope.ts';

const KEY_BYTES: Record<string, number> = { nodes: 32, sectors: 32, contents: 40 };
const EXTENT_BYTES = 44;
/** After this many sectors they are sealed and made visible: what a cut move has brought so far need not come again. */
const SECTORS_PER_SEAL = 64;
/** Records of contents that are kept in memory until they are sealed. */
const RECORD_BYTES_PER_SEAL = 32 << 20;
/** A directory node of this size has some three million names. */
const MAX_NODE_BYTES = 1 << 28;
const NODE_HEAD_BYTES = 36;
/** Pieces of one node that lie around one by one. */
const MOST_PIECES = 1024;

/**
 * Receives trie nodes, contents and sectors from a peer, as `contents-offer.ts` sends them (docs/protocols/contents.md). Nothing is believed:
 * sectors, contents and nodes are hashed before they are stored. From its first request to `close` it holds a lease on the store,
 * so that nothing it said to be here goes away before the records that need it are written.
 */
export class ContentsTaker {
  readonly services: Record<string, Service>;
  readonly #store: Store;
  readonly #purpose: string;
  #lease: Lease | undefined;
  #writer: ContentWriter | undefined;
  #unsealed = 0;
  #unsealedRecordBytes = 0;
  /** What the writer has not taken yet; sealing waits for it. */
  #puts = new Set<Promise<void>>();
  #sealing: Promise<void> = Promise.resolve();
  /** Bytes of a node that has not arrived whole. */
  #nodeBytes: Buffer[] = [];
  #nodeSize = 0;

  constructor(store: Store, purpose: string) {
    this.#store = store;
    this.#purpose = purpose;
    this.services = {
      lacking: async ({ body, bulk }) => this.#lacking(textOf(body, 'kind'), bulk),
      sector: ({ body, bulk }) => this.#sector(body, bulk),
      settle: async () => {
        await this.#seal();
        return {};
      },
      contents: ({ bulk }) => this.#contents(bulk),
      nodes: async ({ bulk }) => this.#nodes(bulk),
    };
  }

  /** Ends it: what was not sealed is forgotten, the lease is given back. Safe to call twice. */
  async close(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    await Promise.allSettled([...this.#puts, this.#sealing]);
    await writer?.abort();
    this.#lease?.release();
    this.#lease = undefined;
  }

  /** Holds the lease from now on, if it did not before. */
  hold(): void {
    this.#lease ??= this.#store.lease(this.#purpose);
  }

  /** Which of the keys in `bulk` are not here: one bit each, lowest bit first. */
  #lacking(kind: string, bulk: Buffer): Answer {
    const width = Object.hasOwn(KEY_BYTES, kind) ? KEY_BYTES[kind]! : 0;
    if (width === 0 || bulk.length % width !== 0) throw badMessage(`names of '${kind.slice(0, 20)}'`);
    this.hold();
    const count = bulk.length / width;
    const bitmap = Buffer.alloc(Math.ceil(count / 8));
    const nodes = this.#store.table('nodes');
    for (let i = 0; i < count; i++) {
      const key = bulk.subarray(i * width, (i + 1) * width);
      const here =
        kind === 'nodes'
          ? nodes.has(key)
          : kind === 'sectors'
            ? this.#store.hasSector(key)
            : this.#store.hasContent(refOf(key));
      if (!here) bitmap[i >> 3]! |= 1 << (i & 7);
    }
    return { bulk: bitmap };
  }

  /** Taken when the pool has room for it; a wrong root comes to light when it is sealed. */
  async #sector(body: Body, bulk: Buffer): Promise<Answer> {
    const root = bytesOf(body, 'root', 32);
    this.hold();
    await this.#sealing;
    const put = this.#openWriter().putSector(root, bulk);
    this.#puts.add(put);
    try {
      await put;
    } finally {
      this.#puts.delete(put);
    }
    if (++this.#unsealed >= SECTORS_PER_SEAL) await this.#seal();
    return {};
  }

  /** Makes the sectors and contents so far durable and visible; throws what was wrong with any of them. */
  #seal(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    this.#unsealed = this.#unsealedRecordBytes = 0;
    const puts = [...this.#puts];
    const sealing = this.#sealing.then(async () => {
      await Promise.allSettled(puts);
      await writer?.finish();
    });
    this.#sealing = sealing.catch(() => undefined);
    return sealing;
  }

  #openWriter(): ContentWriter {
    return (this.#writer ??= this.#store.writer());
  }

  async #contents(bulk: Buffer): Promise<Answer> {
    this.hold();
    await this.#sealing;
    for (let at = 0; at < bulk.length;) {
      if (bulk.length - at < 44) throw badMessage('a cut list of contents');
      const ref = refOf(bulk.subarray(at, at + 40));
      const end = at + 44 + bulk.readUInt32LE(at + 40) * EXTENT_BYTES;
      if (end > bulk.length) throw badMessage('a cut list of contents');
      this.#openWriter().putExtents(ref, decodeExtents(bulk.subarray(at + 44, end)));
      at = end;
    }
    this.#unsealedRecordBytes += bulk.length;
    if (this.#unsealedRecordBytes >= RECORD_BYTES_PER_SEAL) await this.#seal();
    return {};
  }

  /** A piece of the stream of nodes. Those that are whole are checked and stored, each after the nodes below it. After an error the stream begins anew. */
  #nodes(bulk: Buffer): Answer {
    this.hold();
    const pieces = [...this.#nodeBytes, bulk];
    const size = this.#nodeSize + bulk.length;
    this.#nodeBytes = [];
    this.#nodeSize = 0;
    // Pieces are put together once the first node is whole: to do so with each would copy a large one again and again.
    const left = this.#isFirstWhole(pieces, size) ? this.#takeNodes(Buffer.concat(pieces, size)) : pieces;
    this.#nodeBytes = left.length < MOST_PIECES ? left : [Buffer.concat(left)];
    this.#nodeSize = left.reduce((sum, piece) => sum + piece.length, 0);
    return {};
  }

  #isFirstWhole(pieces: Buffer[], size: number): boolean {
    const head =
      pieces[0]!.length >= NODE_HEAD_BYTES ? pieces[0]! : Buffer.concat(pieces, Math.min(size, NODE_HEAD_BYTES));
    return head.length < NODE_HEAD_BYTES || size >= NODE_HEAD_BYTES + lengthOfNode(head);
  }

  /** Stores the nodes in `all`; what is left is the beginning of another. */
  #takeNodes(all: Buffer): Buffer[] {
    let at = 0;
    this.#store.transaction(() => {
      const table = this.#store.table('nodes');
      while (all.length - at >= NODE_HEAD_BYTES) {
        const end = at + NODE_HEAD_BYTES + lengthOfNode(all.subarray(at));
        if (end > all.length) break;
        const hash = all.subarray(at, at + 32);
        const bytes = all.subarray(at + NODE_HEAD_BYTES, end);
        if (Buffer.compare(bufferRoot(bytes), hash) !== 0) throw badMessage('a node with another hash');
        table.put(hash, bytes);
        at = end;
      }
    });
    return at < all.length ? [all.subarray(at)] : [];
  }
}

/** The content that a peer names; BAD_MESSAGE when none can have that size. */
export function refOf(key: Uint8Array): ContentRef {
  const size = Buffer.from(key.buffer, key.byteOffset, key.length).readBigUInt64BE(32);
  if (size > Number.MAX_SAFE_INTEGER) throw badMessage(`a content of ${size} bytes`);
  return contentOfKey(key);
}

function lengthOfNode(head: Buffer): number {
  const length = head.readUInt32LE(32);
  if (length > MAX_NODE_BYTES) throw badMessage(`a node of ${length} bytes`);
  return length;
}
