import { statSync } from 'node:fs';
import { decodeSectorRecord } from './catalog.ts';
import { contentOfKey } from './content.ts';
import type { Index } from './index-db.ts';
import { coverageOf } from './live.ts';

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
  for (const key of index.table('contents').keys()) {
    usage.contents++;
    usage.contentBytes += contentOfKey(key).size;
  }
  const coverage = coverageOf(index);
  for (const { key, value } of index.table('sectors').range()) {
    usage.sectors++;
    usage.sectorBytes += decodeSectorRecord(value).used;
    usage.usedBytes += coverage.bytesOf(key);
    usage.diskBytes += diskBytesOf(pathOf(key));
  }
  return usage;
}

/** What a file takes on disk, 0 if it is not there; st_blocks counts 512 bytes each (stat(2)). */
export function diskBytesOf(path: string): number {
  return (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
}
