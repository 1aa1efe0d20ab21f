import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { PgError } from '../../mdm/error.ts';
import { type Change, GROUP_HASHES, HASH_LEVELS, type HashLevel } from '../../mdm/file.ts';
import { BLOCK_BYTES, LEAF_BYTES, ROOT_BYTES, SECTOR_BYTES } from '../../mdm/merkle.ts';
import { isZeroSector } from '../content.ts';
import { sectorKey } from '../content-reader.ts';
import type { Store } from '../store.ts';
import type { Table } from '../table.ts';
import { removeBelongings } from './sectors.ts';
import {
  bitmapOf,
  blockKey,
  BLOCKS_PER_SECTOR,
  blocksOf,
  decodeFile,
  encodeFile,
  encodeSector,
  type FileRecord,
  groupOfKey,
  hashKey,
  ID_BYTES,
  NO_BASE,
  type SectorRecord,
  TABLES,
} from './records.ts';
import { entriesIn, type HostSectors } from './sectors.ts';

/**
 * A full sector with more blocks of its own than this is written as a sector file: 4 MiB once for 512 KiB that have
 * gone through the index. The last, short sector stays in the index until it is full.
 */
const MOST_OWN_BLOCKS = 128;

const ZERO_BLOCK = Buffer.alloc(BLOCK_BYTES);
const isZeroBlock = (bytes: Uint8Array): boolean => Buffer.compare(bytes, ZERO_BLOCK) === 0;

/**
 * Makes `change` the state of the file `name`, which must still be as `before` says. Sector files first, which nothing
 * refers to yet; then everything else in one transaction of the index.
 */
export function commitChange(
  store: Store,
  sectors: HostSectors,
  name: string,
  before: FileRecord,
  change: Change,
): void {
  const large = sectorsToSettle(sectors, store, before, change);
  // A lease: the collector leaves the new files alone until the transaction refers to them.
  const lease = large.length > 0 ? store.lease('commit a batch') : undefined;
  try {
    const data = large.length > 0 ? Buffer.alloc(SECTOR_BYTES) : undefined;
    for (const sector of large) {
      change.readAt(data!, sector * SECTOR_BYTES);
      store.putSector(change.sectorRoot(sector), data!);
    }
    store.transaction(() => new Commit(store, sectors, before, change).run(name));
  } finally {
    lease?.release();
  }
}

/** Numbers of the changed full sectors that get a file, because much of them is new. */
function sectorsToSettle(sectors: HostSectors, store: Store, before: FileRecord, change: Change): number[] {
  const fresh = new Map<number, number>();
  for (const block of change.blocks.keys()) {
    const sector = Math.floor(block / BLOCKS_PER_SECTOR);
    fresh.set(sector, (fresh.get(sector) ?? 0) + 1);
  }
  return change.changedSectors().filter((sector) => {
    if ((sector + 1) * SECTOR_BYTES > change.final.size) return false;
    const root = change.sectorRoot(sector);
    if (isZeroSector(root) || sectors.record(root) !== undefined) return false;
    const old = sector * SECTOR_BYTES < change.keptBytes ? oldSectorRoot(store, before, sector) : undefined;
    const own = old === undefined ? 0 : [...blocksOf(sectors.record(old)?.own ?? new Uint8Array(0))].length;
    return own + (fresh.get(sector) ?? 0) > MOST_OWN_BLOCKS;
  });
}

function oldSectorRoot(store: Store, { id }: FileRecord, sector: number): Uint8Array | undefined {
  const group = store.table(TABLES.hashes).get(hashKey(id, 16, Math.floor(sector / GROUP_HASHES)));
  const at = (sector % GROUP_HASHES) * ROOT_BYTES;
  const root = group?.subarray(at, at + ROOT_BYTES);
  return root === undefined || root.length === 0 || isZeroSector(root) ? undefined : root;
}

/** What becomes of the references to one root. */
interface Delta {
  root: Uint8Array;
  references: number;
  /** A place in the new file that has it. */
  place: number | undefined;
  /** Its record before the commit. */
  record: SectorRecord | undefined;
}

/** The transaction of one commit. */
class Commit {
  readonly #store: Store;
  readonly #sectors: HostSectors;
  readonly #before: FileRecord;
  readonly #change: Change;
  readonly #hashes: Table;
  readonly #blocks: Table;
  readonly #deltas = new Map<string, Delta>();
  /** Roots that are going, whose hashes and blocks a new sector has taken over. */
  readonly #inherited = new Set<Uint8Array>();

  constructor(store: Store, sectors: HostSectors, before: FileRecord, change: Change) {
    this.#store = store;
    this.#sectors = sectors;
    this.#before = before;
    this.#change = change;
    this.#hashes = store.table(TABLES.hashes);
    this.#blocks = store.table(TABLES.blocks);
  }

  run(name: string): void {
    const { id, state } = this.#before;
    const files = this.#store.table(TABLES.files);
    const value = files.get(name);
    const now = value && decodeFile(value);
    const isSame =
      now?.id.equals(id) && now.state.size === state.size && Buffer.compare(now.state.root, state.root) === 0;
    if (isSame !== true) {
      throw new PgError('MDM_WRONG_STATE', `the machine file '${name}' was changed by someone else meanwhile`);
    }
    this.#count();
    // What is new comes first: it may take over from what is going.
    for (const { root, references, place, record } of this.#deltas.values()) {
      if (record === undefined) this.#make(root, references, place!);
      else if (references !== 0 && record.refs + references > 0) {
        this.#put(root, { ...record, refs: record.refs + references });
      }
    }
    for (const { root, references, record } of this.#deltas.values()) {
      if (record === undefined || record.refs + references > 0) continue;
      this.#store.table(TABLES.sectors).remove(root);
      if (!this.#inherited.has(root)) removeBelongings(this.#store, record);
    }
    this.#putHashes();
    files.put(name, encodeFile({ id, state: this.#change.final }));
  }

  /** Goes through the places whose sector is another now, or gone. */
  #count(): void {
    const { keptBytes, final } = this.#change;
    const places = new Set(this.#change.changedSectors());
    if (keptBytes < this.#before.state.size) {
      for (const place of this.#oldPlaces(Math.floor(keptBytes / SECTOR_BYTES))) places.add(place);
    }
    for (const place of places) {
      const old = oldSectorRoot(this.#store, this.#before, place);
      if (old !== undefined) this.#delta(old).references--;
      if (place * SECTOR_BYTES >= final.size) continue;
      const root = this.#change.sectorRoot(place);
      if (isZeroSector(root)) continue;
      const delta = this.#delta(root);
      delta.references++;
      delta.place ??= place;
    }
  }

  /** Places of the old file from `first` on whose sectors are not all zeros. */
  *#oldPlaces(first: number): Generator<number> {
    for (const { group, hashes } of this.#groupsFrom(16, Math.floor(first / GROUP_HASHES))) {
      for (let i = 0; i * ROOT_BYTES < hashes.length; i++) {
        const place = group * GROUP_HASHES + i;
        if (place >= first && !isZeroSector(hashes.subarray(i * ROOT_BYTES, (i + 1) * ROOT_BYTES))) yield place;
      }
    }
  }

  #groupsFrom(level: HashLevel, first: number): { group: number; hashes: Buffer }[] {
    const start = hashKey(this.#before.id, level, first);
    const end = hashKey(this.#before.id, level, 0).subarray(0, ID_BYTES + 1);
    end[ID_BYTES]!++;
    return [...this.#hashes.range({ start, end })].map(({ key, value }) => ({ group: groupOfKey(key), hashes: value }));
  }

  #delta(root: Uint8Array): Delta {
    const key = sectorKey(root);
    let delta = this.#deltas.get(key);
    if (delta === undefined) {
      delta = { root, references: 0, place: undefined, record: this.#sectors.record(root) };
      this.#deltas.set(key, delta);
    }
    return delta;
  }

  #put(root: Uint8Array, record: SectorRecord): void {
    this.#store.table(TABLES.sectors).put(root, encodeSector(record));
  }

  /** Makes the record of a sector that no file had, from what was at its place and what the batch wrote there. */
  #make(root: Uint8Array, refs: number, place: number): void {
    const bytes = Math.min(SECTOR_BYTES, this.#change.final.size - place * SECTOR_BYTES);
    const old = this.#oldAt(place);
    const heir = old?.record.refs === 1 && old.references < 0;
    if (heir) this.#inherited.add(old.root);
    const id = heir ? old.record.id : randomBytes(ID_BYTES);
    const isStored = bytes === SECTOR_BYTES && this.#store.hasSector(root);
    const fromOld = isStored ? undefined : old?.record;
    const kept = Math.max(0, Math.min(SECTOR_BYTES, this.#change.keptBytes - place * SECTOR_BYTES));
    const record: SectorRecord = {
      id,
      refs,
      bytes,
      base: isStored ? root : (fromOld?.base ?? NO_BASE),
      baseBytes: isStored ? SECTOR_BYTES : Math.min(fromOld?.baseBytes ?? 0, kept),
      own: new Uint8Array(0),
    };
    const own = new Set(isStored ? [] : this.#putBlocks(record, place));
    for (const block of old === undefined ? [] : blocksOf(old.record.own)) {
      const isKept =
        !isStored && block * BLOCK_BYTES < kept && !this.#change.blocks.has(place * BLOCKS_PER_SECTOR + block);
      if (isKept) {
        own.add(block);
        if (!heir) this.#blocks.put(blockKey(id, block), this.#blocks.get(blockKey(old!.record.id, block))!);
      } else if (heir && !own.has(block)) this.#blocks.remove(blockKey(id, block));
    }
    this.#put(root, { ...record, own: bitmapOf(own) });
    this.#putBlockRoots(record, place, old?.record);
  }

  /** The sector that the old file had at a place, as far as the new one has kept it. */
  #oldAt(place: number): { root: Uint8Array; references: number; record: SectorRecord } | undefined {
    if (place * SECTOR_BYTES >= this.#change.keptBytes) return undefined;
    const root = oldSectorRoot(this.#store, this.#before, place);
    if (root === undefined) return undefined;
    const delta = this.#delta(root);
    if (delta.record === undefined) throw new PgError('CORRUPT_INDEX', 'the index is damaged: a sector has no record');
    return { root: delta.root, references: delta.references, record: delta.record };
  }

  /** Puts the blocks that the batch wrote to a sector, but not zeros over nothing; answers with their numbers. */
  *#putBlocks({ id, base, baseBytes }: SectorRecord, place: number): Generator<number> {
    for (let block = 0; block < BLOCKS_PER_SECTOR; block++) {
      const bytes = this.#change.blocks.get(place * BLOCKS_PER_SECTOR + block);
      if (bytes === undefined) continue;
      const isOverNothing = isZeroSector(base) || block * BLOCK_BYTES >= baseBytes;
      if (isOverNothing && isZeroBlock(bytes)) continue;
      this.#blocks.put(blockKey(id, block), bytes);
      yield block;
    }
  }

  #putBlockRoots({ id, bytes }: SectorRecord, place: number, old: SectorRecord | undefined): void {
    const group = this.#change.changedGroups(6).get(place) ?? (old && this.#hashes.get(hashKey(old.id, 6, 0)));
    assert(group !== undefined, 'a sector that was changed has hashes that were');
    this.#hashes.put(hashKey(id, 6, 0), group.subarray(0, Math.ceil(bytes / BLOCK_BYTES) * ROOT_BYTES));
  }

  /** The hashes above the sectors: what was cut off goes, what was changed comes. */
  #putHashes(): void {
    const { keptBytes, final } = this.#change;
    const { id, state } = this.#before;
    for (const level of HASH_LEVELS) {
      if (level === 6) continue;
      const span = LEAF_BYTES * 2 ** level;
      if (keptBytes < state.size) {
        const firstGone = Math.ceil(keptBytes / (span * GROUP_HASHES));
        for (const { group } of this.#groupsFrom(level, firstGone)) this.#hashes.remove(hashKey(id, level, group));
      }
      for (const [group, hashes] of this.#change.changedGroups(level)) {
        const entries = entriesIn(group, final.size, span);
        if (entries > 0) this.#hashes.put(hashKey(id, level, group), hashes.subarray(0, entries * ROOT_BYTES));
      }
    }
  }
}
