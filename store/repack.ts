import { join } from 'node:path';
import { BLOCK_BYTES, SECTOR_BYTES, sectorRoot } from '../mdm/merkle.ts';
import { isPgError } from '../mdm/error.ts';
import { decodeAnchor, encodeAnchor } from './anchors.ts';
import { type Catalog, decodeSectorRecord } from './catalog.ts';
import { decodeExtents, encodeExtents, type Extent, isZeroSector } from './content.ts';
import { sectorKey } from './content-reader.ts';
import { decodeSector, TABLES } from './host/records.ts';
import type { Index } from './index-db.ts';
import type { Lease } from './lease.ts';
import { coverageOf } from './live.ts';
import { UnitCache } from './packed.ts';
import type { SectorPlaces } from './sector-builder.ts';
import { placeSectorFile, SectorFile } from './sector.ts';
import { diskBytesOf } from './usage.ts';

/** A sector is moved when at least this part of it, and this many bytes, are no longer needed. */
const DEAD_PART = 1 / 4;
const DEAD_BYTES = 256 * 1024;

export interface RepackResult {
  /** Sectors of which what is needed was copied elsewhere: the collector can take them. */
  sectors: number;
  copiedBytes: number;
}

/** A stretch of an old sector, whole blocks, and where it is now. */
interface Move {
  from: number;
  to: number;
  sector: Uint8Array;
  offset: number;
}

/** A sector that is being filled with stretches of others. */
interface Filling {
  data: Buffer;
  used: number;
  moves: { old: Uint8Array; from: number; to: number; offset: number }[];
}

/**
 * Copies what is still needed of sectors that are dead in part into new ones, and lets the contents lie there. The old sectors are then what no content uses; they are the
 * collector's to take. Call it after a collection: every content of the index counts as needed. Safe beside anything: whoever has looked up where a content lies may go on
 * reading there as long as his lease lives, or looks again. Sectors that cannot be read are left alone. DISK_FULL.
 */
export async function repackSectors(
  index: Index,
  catalog: Catalog,
  places: SectorPlaces,
  lease: () => Lease,
  signal?: AbortSignal,
): Promise<RepackResult> {
  const result: RepackResult = { sectors: 0, copiedBytes: 0 };
  const candidates = sparseSectors(index, places);
  const users = usersOf(index, candidates);
  const moved = new Map<string, Move[]>();
  const holding = lease();
  try {
    let filling: Filling = { data: Buffer.alloc(SECTOR_BYTES), used: 0, moves: [] };
    let finished: { root: Buffer; key: string }[] = [];
    const flush = (): void => {
      const root = settle(catalog, places, holding, filling, moved);
      const keys = new Set(finished.flatMap(({ key }) => [...(users.get(key) ?? [])]));
      index.transaction(() => {
        // In one transaction with what relies on it: the collector's mark, if it has put one on the sector, is taken off.
        if (root && !catalog.claimSector(root)) catalog.putSector(root, { used: filling.used, form: 'plain' });
        pointElsewhere(index, moved, keys);
      });
      result.sectors += finished.length;
      finished = [];
      filling = { data: Buffer.alloc(SECTOR_BYTES), used: 0, moves: [] };
    };
    for (const { root, ranges } of candidates) {
      if (signal?.aborted === true) break;
      const copied = copyOut(places, root, ranges);
      if (!copied) continue;
      for (const [i, bytes] of copied.entries()) {
        if (filling.used + bytes.length > SECTOR_BYTES) flush();
        bytes.copy(filling.data, filling.used);
        filling.moves.push({ old: root, from: ranges[2 * i]!, to: ranges[2 * i + 1]!, offset: filling.used });
        filling.used += bytes.length;
        result.copiedBytes += bytes.length;
      }
      finished.push({ root, key: sectorKey(root) });
      await new Promise((resolve) => setImmediate(resolve)); // signals come in between
    }
    if (filling.used > 0 || finished.length > 0) flush();
    moveAnchors(index, moved);
  } finally {
    holding.release();
  }
  return result;
}

/** The sectors of which much is not needed, and what is, in whole blocks. */
function sparseSectors(index: Index, places: SectorPlaces): { root: Buffer; ranges: number[] }[] {
  const coverage = coverageOf(index);
  const fixed = new Set(
    [...index.table(TABLES.sectors).range()].map(({ value }) => sectorKey(decodeSector(value).base)),
  );
  const sparse: { root: Buffer; ranges: number[] }[] = [];
  for (const { key, value } of index.table('sectors').range()) {
    const { used, form } = decodeSectorRecord(value);
    const live = coverage.bytesOf(key, BLOCK_BYTES);
    // Holes of a plain file cost nothing; behind the data it has one block of checksums.
    const dead = (form === 'packed' ? used : diskBytesOf(places.pathOf(key)) - BLOCK_BYTES) - live;
    if (live === 0 || dead < DEAD_BYTES || dead < used * DEAD_PART || fixed.has(sectorKey(key))) continue;
    sparse.push({ root: key, ranges: coverage.of(key, BLOCK_BYTES) });
  }
  return sparse;
}

/** For each of these sectors the keys of the contents that lie in it. */
function usersOf(index: Index, sectors: readonly { root: Buffer }[]): Map<string, Set<string>> {
  const users = new Map(sectors.map(({ root }) => [sectorKey(root), new Set<string>()]));
  if (sectors.length === 0) return users;
  for (const { key, value } of index.table('contents').range())
    for (const { sector } of decodeExtents(value)) users.get(sectorKey(sector))?.add(key.toString('latin1'));
  return users;
}

/** The bytes of these stretches of a sector; undefined if they cannot be read. */
function copyOut(places: SectorPlaces, root: Uint8Array, ranges: readonly number[]): Buffer[] | undefined {
  try {
    const file = new SectorFile(places.pathOf(root), root, new UnitCache(1));
    try {
      const copied: Buffer[] = [];
      for (let i = 0; i < ranges.length; i += 2) {
        const bytes = Buffer.alloc(ranges[i + 1]! - ranges[i]!);
        file.read(bytes, 0, ranges[i]!, bytes.length);
        copied.push(bytes);
      }
      return copied;
    } finally {
      file.close();
    }
  } catch (error) {
    if (isPgError(error, 'CORRUPT_SECTOR') || isPgError(error, 'MISSING_SECTOR')) return undefined;
    throw error;
  }
}

/** Makes the file of a sector of what has been gathered, durably, and notes where the stretches will be. Its root, if there is one. */
function settle(
  catalog: Catalog,
  places: SectorPlaces,
  lease: Lease,
  { data, used, moves }: Filling,
  moved: Map<string, Move[]>,
): Uint8Array | undefined {
  if (used === 0) return undefined;
  const root = sectorRoot(data);
  if (!isZeroSector(root) && !catalog.claimSector(root))
    placeSectorFile(join(places.temporaryDir, lease.id), places.pathOf(root), data, used, () => catalog.keepFile(root));
  for (const { old, from, to, offset } of moves) {
    const list = moved.get(sectorKey(old)) ?? [];
    list.push({ from, to, sector: root, offset });
    moved.set(sectorKey(old), list);
  }
  return root;
}

/** Lets the contents with these keys lie where their bytes are now. One that went meanwhile, or lies elsewhere, is left as it is. */
function pointElsewhere(index: Index, moved: ReadonlyMap<string, readonly Move[]>, keys: ReadonlySet<string>): void {
  const contents = index.table('contents');
  for (const name of keys) {
    const key = Buffer.from(name, 'latin1');
    const value = contents.get(key);
    if (value === undefined) continue;
    contents.put(key, encodeExtents(decodeExtents(value).map((extent) => elsewhere(extent, moved))));
  }
}

function elsewhere<T extends Pick<Extent, 'sector' | 'offset'> & { length: number }>(
  extent: T,
  moved: ReadonlyMap<string, readonly Move[]>,
): T {
  if (isZeroSector(extent.sector)) return extent;
  const move = moved
    .get(sectorKey(extent.sector))
    ?.find(({ from, to }) => from <= extent.offset && extent.offset + extent.length <= to);
  if (!move) return extent;
  const offset = extent.offset - move.from + move.offset;
  // A sector of nothing but zeros is a hole.
  return { ...extent, sector: move.sector, offset: isZeroSector(move.sector) ? 0 : offset };
}

/** Lets anchors lead to where their bytes are now. */
function moveAnchors(index: Index, moved: ReadonlyMap<string, readonly Move[]>): void {
  if (moved.size === 0) return;
  const anchors = index.table('anchors');
  const changed: { key: Buffer; value: Buffer }[] = [];
  for (const { key, value } of anchors.range()) {
    const place = { ...decodeAnchor(value), length: 1 };
    const now = elsewhere(place, moved);
    if (now !== place && !isZeroSector(now.sector)) changed.push({ key, value: encodeAnchor(now) });
  }
  for (let at = 0; at < changed.length; at += 4096) {
    index.transaction(() => {
      for (const { key, value } of changed.slice(at, at + 4096)) anchors.put(key, value);
    });
  }
}
