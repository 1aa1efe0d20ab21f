import { statSync } from 'node:fs';
import { decodeSectorRecord } from './catalog.ts';
import { contentOfKey, decodeExtents, isZeroSector } from './content.ts';
import { sectorKey } from './content-reader.ts';
import type { Index } from './index-db.ts';

/** What is in a store, in numbers. */
export interface StoreUsage {
  sectors: number;
  /** What the sector files take on disk, as du(1) counts. */
  diskBytes: number;
  /** Bytes of the sectors before their zero tails. */
  sectorBytes: number;
  /** Bytes of the sectors that a content uses; the rest of `sectorBytes` is dead or padding. */
  usedBytes: number;
  contents: number;
  /** Sum of the sizes of all contents, each counted once. */
  contentBytes: number;
  indexBytes: number;
}

/** See `Store.usage`. */
export function usageOf(index: Index, pathOf: (root: Uint8Array) => string): StoreUsage {
  const usage: StoreUsage = {
    sectors: 0,
    diskBytes: 0,
    sectorBytes: 0,
    usedBytes: 0,
    contents: 0,
    contentBytes: 0,
    indexBytes: index.fileBytes,
  };
  for (const { key, value } of index.table('sectors').range()) {
    usage.sectors++;
    usage.sectorBytes += decodeSectorRecord(value).used;
    // st_blocks counts 512 bytes each (stat(2)).
    usage.diskBytes += (statSync(pathOf(key), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
  }
  // The same bytes may be in two contents (a file, and the last piece of a larger one).
  const counted = new Set<string>();
  for (const { key, value } of index.table('contents').range()) {
    usage.contents++;
    usage.contentBytes += contentOfKey(key).size;
    for (const { sector, offset, length } of decodeExtents(value)) {
      if (isZeroSector(sector)) continue;
      const place = `${sectorKey(sector)}${offset}`;
      if (counted.has(place)) continue;
      counted.add(place);
      usage.usedBytes += length;
    }
  }
  return usage;
}
