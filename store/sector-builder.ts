import assert from 'node:assert/strict';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { SECTOR_BYTES } from '../mdm/merkle.ts';
import type { Catalog, SectorForm } from './catalog.ts';
import { contentKey, type ContentRef, type Extent, isZeroSector, mergeHoles, ZERO_SECTOR_ROOT } from './content.ts';
import { checkExtents } from './content-check.ts';
import { sectorKey } from './content-reader.ts';
import type { Index } from './index-db.ts';
import type { Lease } from './lease.ts';
import { type Item, Pack, Slot } from './packer.ts';
import { type PlacedContent, PlacedContents } from './placed.ts';
import { Reuse, TOLERATED_BYTES } from './reuse.ts';
import { SectorPool, type SectorResult } from './sector-pool.ts';
import { Settler } from './settler.ts';
import type { ContentSink, WriterStats } from './writer.ts';

/** Buffers of 4 MiB that may be filled, hashed and written at once. */
const SLOTS = Math.min(12, 2 * availableParallelism() + 4);
/** Packs that take small contents at one time: what does not fit into one may fit into the other. */
const OPEN_PACKS = 2;
/** Contents whose places are not written down yet, before it is looked which of them can be. */
const UNPLACED = 8192;
/** Contents that one transaction of the index records: its changed pages are in memory until it ends. */
const RECORDED_AT_ONCE = 65_536;

/** Where a store keeps its sector files. */
export interface SectorPlaces {
  pathOf(root: Uint8Array): string;
  temporaryDir: string;
}

/**
 * The writer's engine. Contents arrive as items and are packed into slots; the pool hashes a full pack, contents and
 * sector in one pass; what is known is dropped; the rest becomes a sector file. One for each writer.
 */
export class SectorBuilder {
  readonly stats: WriterStats = { contents: 0, bytes: 0, knownBytes: 0, sectors: 0 };
  private readonly index: Index;
  private readonly catalog: Catalog;
  private readonly places: SectorPlaces;
  private readonly lease: Lease;
  private readonly packLevel: number | null;
  private readonly pool = new SectorPool();

  private readonly free: Slot[] = [];
  private slots = 0;
  private slotLimit = SLOTS;
  private readonly waiting: (() => void)[] = [];
  private openPacks: Pack[] = [];
  /** Packs that are with the pool. */
  private busy = 0;
  private readonly idle: (() => void)[] = [];

  /** What `finish` will record: contents whose places are decided, and by key the others. */
  private readonly placed = new PlacedContents();
  private lookAt = UNPLACED;
  private readonly contents = new Map<string, { key: Buffer; items: readonly Item[] }>();
  private readonly foreign: { ref: ContentRef; extents: readonly Extent[] }[] = [];
  private readonly sectors = new Map<string, { root: Uint8Array; used: number; form: SectorForm }>();
  /** Items of this import that are to be stored, by the key of their bytes. */
  private readonly fresh = new Map<string, Item>();

  private readonly reuse: Reuse;
  private readonly settler: Settler;
  private readonly sinks = new Set<ContentSink>();
  private error: Error | undefined;
  private ended = false;

  /** `packLevel`: zstd's level to pack sectors at while they are written, or null. */
  constructor(index: Index, catalog: Catalog, places: SectorPlaces, lease: Lease, packLevel: number | null) {
    this.packLevel = packLevel;
    this.index = index;
    this.catalog = catalog;
    this.places = places;
    this.lease = lease;
    this.reuse = new Reuse(catalog, this.pool, places.pathOf);
    this.settler = new Settler(
      places,
      (root) => catalog.keepFile(root),
      (error) => void this.failed(error),
    );
  }

  /** Throws if something has gone wrong. */
  check(): void {
    if (this.error) throw this.error;
    assert.ok(!this.ended, 'the writer has ended');
  }

  /** Records the first error, lets everybody who waits know, and answers with it. */
  failed(error: Error): Error {
    if (this.error) return this.error;
    this.error = error;
    for (const sink of this.sinks) sink.fail(error);
    this.sinks.clear();
    for (const wake of [...this.waiting.splice(0), ...this.idle.splice(0)]) wake();
    return error;
  }

  open(sink: ContentSink): void {
    this.sinks.add(sink);
  }

  /** A content is hashed: remembers it for `finish` unless the store has it. */
  complete(sink: ContentSink, ref: ContentRef, items: readonly Item[]): void {
    this.sinks.delete(sink);
    this.stats.contents++;
    this.stats.bytes += ref.size;
    if (ref.size === 0) return;
    // The last piece of a large content is a content too, so that it is found when the whole comes again.
    for (const part of items.length === 1 ? [] : [items.at(-1)!])
      this.remember({ root: part.root!, size: part.size }, [part]);
    this.remember(ref, items);
  }

  private remember(ref: ContentRef, items: readonly Item[]): void {
    const key = contentKey(ref);
    const name = key.toString('latin1');
    if (this.contents.has(name) || this.placed.has(key) || this.catalog.claimContent(key)) return;
    this.contents.set(name, { key, items });
  }

  // --- room for items ---

  /** Gives `item` a place in a pack, waiting for one if all buffers are in use. */
  place(item: Item): Pack | Promise<Pack> {
    return this.tryPlace(item) ?? this.placeLater(item);
  }

  private async placeLater(item: Item): Promise<Pack> {
    for (;;) {
      if (this.busy === 0) this.unstick();
      else await new Promise<void>((resolve) => this.waiting.push(resolve));
      this.check();
      const pack = this.tryPlace(item);
      if (pack) return pack;
    }
  }

  private tryPlace(item: Item): Pack | undefined {
    const whole = item.size === SECTOR_BYTES || item.apart === true;
    let pack = whole ? undefined : this.openPacks.find((candidate) => candidate.place(item));
    if (!pack) {
      if (!whole && this.openPacks.length === OPEN_PACKS) this.close(this.fullest());
      const slot = this.takeSlot();
      if (!slot) return undefined;
      pack = new Pack(slot);
      pack.place(item);
      if (whole) pack.closed = true;
      else this.openPacks.push(pack);
    }
    pack.pending++;
    return pack;
  }

  private fullest(): Pack {
    return this.openPacks.reduce((a, b) => (b.used > a.used ? b : a));
  }

  private takeSlot(): Slot | undefined {
    const slot = this.free.pop();
    if (slot || this.slots >= this.slotLimit) return slot;
    this.slots++;
    return new Slot();
  }

  /**
   * Nothing is on its way that would free a buffer: send off a pack that only waits to become full, else allow one
   * buffer more.
   */
  private unstick(): void {
    const ready = this.openPacks.find((pack) => pack.pending === 0);
    if (ready) this.close(ready);
    else this.slotLimit++;
  }

  /** An item of `pack` has all its bytes. */
  filled(pack: Pack): void {
    pack.pending--;
    if (pack.closed && pack.pending === 0) void this.process(pack);
  }

  private close(pack: Pack): void {
    pack.closed = true;
    this.openPacks = this.openPacks.filter((other) => other !== pack);
    if (pack.pending === 0) void this.process(pack);
  }

  /** A whole sector of zeros: known without being looked at. */
  zeroSector(): void {
    this.stats.knownBytes += SECTOR_BYTES;
  }

  /** See `ContentWriter.sealPacks`. */
  sealPacks(): void {
    this.check();
    for (const pack of this.openPacks) this.close(pack);
  }

  // --- packs become sectors ---

  /** Hashes a pack, drops what is known, and stores the rest. Failures go to `failed`. */
  private async process(pack: Pack): Promise<void> {
    this.busy++;
    try {
      pack.clearSlack();
      const unhashed = pack.items.filter((item) => !item.root);
      const result = await this.hash(pack, unhashed);
      const fresh = this.sort(pack, unhashed, result);
      const rest = await this.reuse.find(pack, fresh);
      this.stats.knownBytes += bytesOf(fresh) - bytesOf(rest);
      await this.store(pack, rest, result.root);
      if (this.contents.size >= this.lookAt) this.writeDown();
    } catch (error) {
      this.failed(error as Error);
    }
    this.release(pack.slot);
  }

  /** The slot may be filled again, over what lies in it. */
  private release(slot: Slot): void {
    this.free.push(slot);
    this.busy--;
    this.waiting.shift()?.();
    if (this.busy === 0) for (const wake of [...this.idle.splice(0), ...this.waiting.splice(0)]) wake();
  }

  private hash(pack: Pack, items: readonly Item[]): Promise<SectorResult> {
    const spans = new Uint32Array(items.length * 2);
    items.forEach(({ offset, size }, i) => spans.set([offset, size], 2 * i));
    return this.pool.run({ kind: 'hash', buffer: pack.slot.buffer, used: pack.used, spans });
  }

  private rehash(pack: Pack, used: number): Promise<SectorResult> {
    return this.pool.run({ kind: 'hash', buffer: pack.slot.buffer, used, spans: new Uint32Array(0) });
  }

  /** Names the items that were hashed and answers with those that are to be stored. */
  private sort(pack: Pack, unhashed: readonly Item[], result: SectorResult): Item[] {
    unhashed.forEach((item, i) => {
      const root = result.contentRoots[i]!;
      item.root = root;
      item.anchors = result.anchors![i]!;
      const key = contentKey({ root, size: item.size });
      const name = key.toString('latin1');
      const twin = this.fresh.get(name);
      if (result.zero[i]) item.extents = [{ sector: ZERO_SECTOR_ROOT, offset: 0, length: item.size }];
      else if (twin) item.twin = twin;
      else {
        const known =
          this.placed.find(key) ??
          (item.size === SECTOR_BYTES ? this.knownSector(root) : this.catalog.claimContent(key));
        if (known) item.extents = known;
        else this.fresh.set(name, item);
      }
      if (item.extents || item.twin) this.stats.knownBytes += item.size;
      item.owner.itemHashed(item);
    });
    return pack.items.filter((item) => !item.extents && !item.twin);
  }

  /** Keeps of the contents whose places are decided no more than those. */
  private writeDown(): void {
    for (const [name, { key, items }] of this.contents) {
      if (!items.every(isPlaced)) continue;
      this.placed.add(key, extentsOf(items));
      this.contents.delete(name);
      this.fresh.delete(name);
    }
    this.lookAt = Math.max(UNPLACED, 2 * this.contents.size);
  }

  private knownSector(root: Uint8Array): Extent[] | undefined {
    return this.catalog.claimSector(root) ? [{ sector: root, offset: 0, length: SECTOR_BYTES }] : undefined;
  }

  /** Stores the `fresh` items of a pack whose root, with all of its items, is `root`. */
  private async store(pack: Pack, fresh: readonly Item[], root: Uint8Array): Promise<void> {
    const dead = bytesOf(pack.items) - bytesOf(fresh);
    let keep = fresh;
    let { used } = pack;
    if (dead > TOLERATED_BYTES) {
      // Most of it was known: the rest moves on to the next pack, if there is one with room. Else the known bytes
      // become holes.
      if (dead > pack.used / 2) keep = fresh.filter((item) => !this.move(item, pack));
      if (keep.length === 0) return;
      used = pack.keepOnly(keep);
      root = (await this.rehash(pack, used)).root;
    }
    if (keep.length === 0) return;
    // What is left may be all zeros: a hole has no place.
    const hole = isZeroSector(root);
    for (const item of keep) item.extents = [{ sector: root, offset: hole ? 0 : item.offset, length: item.size }];
    await this.storeSector(pack.slot, root, used, keep);
  }

  private move(item: Item, from: Pack): boolean {
    const at = item.offset;
    const to = this.openPacks.find((pack) => pack.place(item));
    if (!to) return false;
    to.slot.put(from.slot.bytes, at, item.size, item.offset);
    return true;
  }

  /**
   * Writes the sector in `slot` unless it is here; resolves when the slot is free again. The file is synced and named
   * behind that.
   */
  private async storeSector(slot: Slot, root: Uint8Array, used: number, items: readonly Item[]): Promise<void> {
    const name = sectorKey(root);
    if (isZeroSector(root) || this.sectors.has(name) || this.catalog.claimSector(root)) return;
    const sector = { root, used, form: 'plain' as SectorForm };
    this.sectors.set(name, sector);
    const temporary = join(this.places.temporaryDir, `${this.lease.id}-${this.stats.sectors++}`);
    this.settler.expect(temporary);
    const level = this.packLevel;
    const { packed } = await this.pool.run({ kind: 'write', buffer: slot.buffer, used, path: temporary, level });
    if (level !== null) sector.form = packed === true ? 'packed' : 'incompressible';
    this.reuse.note(items, root, temporary);
    await this.settler.settle(temporary, root);
  }

  // --- what comes from elsewhere ---

  /** See `ContentWriter.putSector`. */
  async addSector(root: Uint8Array, data: Uint8Array): Promise<void> {
    this.check();
    assert.ok(data.length <= SECTOR_BYTES);
    let slot = this.takeSlot();
    while (!slot) {
      if (this.busy === 0) this.unstick();
      else await new Promise<void>((resolve) => this.waiting.push(resolve));
      this.check();
      slot = this.takeSlot();
    }
    slot.put(data, 0, data.length, 0);
    slot.clearBlock(data.length);
    void this.processSector(slot, root, data.length);
  }

  private async processSector(slot: Slot, root: Uint8Array, used: number): Promise<void> {
    this.busy++;
    try {
      const result = await this.pool.run({ kind: 'hash', buffer: slot.buffer, used, spans: new Uint32Array(0) });
      if (Buffer.compare(result.root, root) !== 0) {
        const [want, got] = [root, result.root].map((r) => Buffer.from(r).toString('hex'));
        throw new PgError('BAD_SECTOR', `a sector that should have root ${want} has ${got}`);
      }
      await this.storeSector(slot, root, used, []);
    } catch (error) {
      this.failed(error as Error);
    }
    this.release(slot);
  }

  /** See `ContentWriter.putExtents`. */
  addExtents(ref: ContentRef, extents: readonly Extent[]): void {
    this.check();
    this.foreign.push({ ref, extents });
  }

  // --- the end ---

  /** See `ContentWriter.flush`. */
  async flush(): Promise<void> {
    this.check();
    while (this.openPacks.length > 0 || this.busy > 0) {
      for (const pack of this.openPacks) {
        assert.ok(pack.pending === 0, 'every content has all of its bytes before a flush');
        this.close(pack);
      }
      if (this.busy > 0) await new Promise<void>((resolve) => this.idle.push(resolve));
      this.check();
    }
  }

  /** See `ContentWriter.finish`. */
  async finish(also?: () => void): Promise<void> {
    await this.flush();
    assert.equal(this.sinks.size, 0, 'every content has all of its bytes before finish');
    await this.settler.idle();
    this.check();
    await checkExtents(
      this.foreign,
      this.pool,
      (root) => this.sectors.has(sectorKey(root)) || this.catalog.claimSector(root),
      this.places.pathOf,
    );
    await this.settler.syncNames();
    this.writeDown();
    assert.equal(this.contents.size, 0, 'every content has its place');
    const sectors = (): void => {
      for (const { root, used, form } of this.sectors.values()) this.catalog.putSector(root, { used, form });
      this.reuse.record();
    };
    // Contents of which nobody knows are no harm: the lease keeps them until the last transaction.
    const isLarge = this.placed.size > RECORDED_AT_ONCE;
    if (isLarge) this.index.transaction(sectors);
    let left = this.placed.size;
    let last: PlacedContent[] = [];
    for (const batch of this.placed.inOrder(RECORDED_AT_ONCE)) {
      left -= batch.length;
      if (left > 0) this.index.transaction(() => this.catalog.putContents(batch));
      else last = batch;
    }
    this.index.transaction(() => {
      if (!isLarge) sectors();
      this.catalog.putContents(last);
      for (const { ref, extents } of this.foreign) {
        if (ref.size > 0) this.catalog.putContent(contentKey(ref), mergeHoles(extents));
      }
      also?.();
    });
  }

  /** Ends the threads, removes temporary files, gives up the lease. Never throws; a second call does nothing. */
  async end(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    await this.pool.close();
    await this.settler.giveUp();
    this.lease.release();
  }
}

function bytesOf(items: readonly Item[]): number {
  return items.reduce((sum, { size }) => sum + size, 0);
}

function extentsOf(items: readonly Item[]): Extent[] {
  return mergeHoles(items.flatMap(placesOf));
}

function isPlaced(item: Item): boolean {
  const { extents, parts } = item.twin ?? item;
  return parts === undefined ? extents !== undefined : parts.every((part) => !('owner' in part) || isPlaced(part));
}

function placesOf(item: Item): readonly Extent[] {
  const { extents, parts } = item.twin ?? item;
  if (parts) return parts.flatMap((part) => ('owner' in part ? placesOf(part) : [part]));
  assert.ok(extents, 'every item has found its place');
  return extents;
}
