import assert from 'node:assert/strict';
import { PgError } from '../mdm/error.ts';
import { rootOfRoots, SECTOR_BYTES } from '../mdm/merkle.ts';
import { type ContentRef, type Extent, ZERO_SECTOR_ROOT } from './content.ts';
import type { Item, ItemOwner, Pack } from './packer.ts';
import type { SectorBuilder } from './sector-builder.ts';

const ZERO_SECTOR: Item = {
  size: SECTOR_BYTES,
  offset: 0,
  filled: SECTOR_BYTES,
  root: ZERO_SECTOR_ROOT,
  extents: [{ sector: ZERO_SECTOR_ROOT, offset: 0, length: SECTOR_BYTES }],
  owner: { itemHashed: () => undefined },
};

/** What a writer did so far. */
export interface WriterStats {
  contents: number;
  bytes: number;
  /** Bytes that were in the store already, came twice, or are zeros without a place on disk. */
  knownBytes: number;
  /** Sector files written. */
  sectors: number;
}

/**
 * A content on its way into the store. Bytes are written in order; `ref` resolves when all are there and hashed: at the
 * latest when `flush` or `finish` of the writer has resolved. Small contents wait for others to fill a sector: do not
 * await one's `ref` before writing the next.
 */
export class ContentSink implements ItemOwner {
  readonly size: number;
  readonly ref: Promise<ContentRef>;
  private readonly builder: SectorBuilder;
  private readonly items: Item[] = [];
  private written = 0;
  private hashed = 0;
  private current: { item: Item; pack: Pack } | undefined;
  private waiting = false;
  private readonly resolve: (ref: ContentRef) => void;
  private readonly reject: (error: Error) => void;

  private readonly apart: boolean;

  constructor(size: number, builder: SectorBuilder, apart = false) {
    this.apart = apart;
    assert.ok(Number.isSafeInteger(size) && size >= 0, `content size ${size}`);
    this.size = size;
    this.builder = builder;
    const { promise, resolve, reject } = Promise.withResolvers<ContentRef>();
    promise.catch(() => {}); // whoever does not ask for it learns of the failure from `finish`
    this.ref = promise;
    this.resolve = resolve;
    this.reject = reject;
    builder.open(this);
    if (size === 0) this.complete();
  }

  /**
   * Takes the next bytes. It has copied them when it returns or, if it returns a promise (the writer has enough in
   * hand), when that resolves: wait for it before writing more. More than `size` bytes in all is an assertion failure.
   */
  write(chunk: Uint8Array): Promise<void> | undefined {
    assert.ok(!this.waiting, 'wait for the promise of the last write');
    assert.ok(this.written + chunk.length <= this.size, `more than ${this.size} bytes for a content`);
    return this.take(chunk, 0);
  }

  /** As `write` of `length` zeros; whole sectors of them cost nothing. */
  async writeZeros(length: number): Promise<void> {
    const zeros = new Uint8Array(Math.min(length, 65_536));
    while (length > 0) {
      if (!this.current && this.size - this.written >= SECTOR_BYTES && length >= SECTOR_BYTES) {
        // One item for all of them: a file of 4 TiB may be nothing else.
        this.items.push(ZERO_SECTOR);
        this.written += SECTOR_BYTES;
        length -= SECTOR_BYTES;
        this.builder.zeroSector();
        this.itemHashed(ZERO_SECTOR);
        continue;
      }
      const part = zeros.subarray(0, Math.min(length, zeros.length, SECTOR_BYTES - (this.written % SECTOR_BYTES)));
      await this.write(part);
      length -= part.length;
    }
  }

  /** Called by the builder: `item.root` is known. */
  itemHashed(_item: Item): void {
    this.hashed++;
    if (this.hashed === this.items.length && this.written === this.size) this.complete();
  }

  /** Called by the builder: nothing will come of it. */
  fail(error: Error): void {
    this.reject(error);
  }

  private take(chunk: Uint8Array, at: number): Promise<void> | undefined {
    while (at < chunk.length) {
      this.builder.check();
      if (!this.current) {
        const item = this.newItem();
        const pack = this.builder.place(item);
        if (pack instanceof Promise) return this.takeLater(item, pack, chunk, at);
        this.current = { item, pack };
      }
      const { item, pack } = this.current;
      const length = Math.min(chunk.length - at, item.size - item.filled);
      pack.slot.put(chunk, at, length, item.offset + item.filled);
      item.filled += length;
      this.written += length;
      at += length;
      if (item.filled === item.size) {
        this.current = undefined;
        this.builder.filled(pack);
      }
    }
    return undefined;
  }

  private async takeLater(item: Item, pack: Promise<Pack>, chunk: Uint8Array, at: number): Promise<void> {
    this.waiting = true;
    this.current = { item, pack: await pack };
    await this.take(chunk, at);
    this.waiting = false;
  }

  private newItem(): Item {
    const size = Math.min(SECTOR_BYTES, this.size - this.written);
    const item = { size, offset: 0, filled: 0, owner: this, apart: this.apart };
    this.items.push(item);
    return item;
  }

  private complete(): void {
    const roots = this.items.map((item) => item.root!);
    const ref = { root: roots.length === 1 ? roots[0]! : rootOfRoots(roots), size: this.size };
    this.builder.complete(this, ref, this.items);
    this.resolve(ref);
  }
}

/**
 * Brings contents into the store: streaming, in bounded memory, hashed and written by a pool of threads. Nothing is
 * visible to others before `finish`. A few contents may be open at once (each large one holds a buffer of 4 MiB).
 * Exactly one of `finish` and `abort` ends it. After an error (disk full, a short stream) `abort` is all that is left.
 */
export class ContentWriter {
  private readonly builder: SectorBuilder;

  constructor(builder: SectorBuilder) {
    this.builder = builder;
  }

  get stats(): Readonly<WriterStats> {
    return this.builder.stats;
  }

  /** Begins a content of exactly `size` bytes. */
  add(size: number): ContentSink {
    this.builder.check();
    return new ContentSink(size, this.builder);
  }

  /**
   * As `add`, for a content whose bytes come only as others are written: it shares no sector with those, which would
   * wait for it.
   */
  addApart(size: number): ContentSink {
    this.builder.check();
    return new ContentSink(size, this.builder, true);
  }

  /**
   * A whole content; resolves when its bytes are taken (not yet hashed: see `ContentSink.ref`). TRUNCATED if they are
   * fewer than `size`, TOO_LONG if more.
   */
  async put(size: number, chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<ContentSink> {
    const sink = this.add(size);
    let left = size;
    for await (const chunk of chunks) {
      left -= chunk.length;
      if (left < 0) throw this.builder.failed(new PgError('TOO_LONG', `a content of ${size} bytes goes on after them`));
      await sink.write(chunk);
    }
    if (left > 0)
      throw this.builder.failed(new PgError('TRUNCATED', `a content of ${size} bytes ends after ${size - left}`));
    return sink;
  }

  /**
   * A sector: up to 4 MiB, zeros follow. Its root is computed in the pool; BAD_SECTOR if it is not `root`. Resolves
   * when the bytes are taken.
   */
  async putSector(root: Uint8Array, data: Uint8Array): Promise<void> {
    await this.builder.addSector(root, data);
  }

  /**
   * Records a content that lies in sectors which are here or were put with this writer. `finish` reads it and throws
   * BAD_CONTENT if its root is another, MISSING_SECTOR if a sector is not here.
   */
  putExtents(ref: ContentRef, extents: readonly Extent[]): void {
    this.builder.addExtents(ref, extents);
  }

  /**
   * Sends off the sectors that are not full: small contents written so far get their `ref` soon, without waiting for
   * others. May be called while contents are open; costs room in the store when it is called often.
   */
  sealPacks(): void {
    this.builder.sealPacks();
  }

  /** Resolves when every content written so far has its `ref`. */
  async flush(): Promise<void> {
    await this.builder.flush();
  }

  /**
   * Seals the last sector, syncs, and makes everything visible in one durable transaction; `also` runs in the same
   * transaction, for records that refer to the contents: all or nothing. Of more than 65,536 contents most are recorded in transactions before that, and are
   * the collector's where the last one fails. Throws what went wrong on the way (DISK_FULL
   * ...); then the writer has been aborted.
   */
  async finish(also?: () => void): Promise<void> {
    try {
      await this.builder.finish(also);
    } catch (error) {
      await this.abort();
      throw error;
    }
    await this.builder.end();
  }

  /** Forgets everything since the writer began. Does nothing after `finish`. */
  async abort(): Promise<void> {
    this.builder.failed(new PgError('ABORTED', 'the import was given up'));
    await this.builder.end();
  }
}
