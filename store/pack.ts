import { availableParallelism } from 'node:os';
import { existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { SectorForm } from './catalog.ts';
import { decodeSectorRecord, encodeSectorRecord } from './catalog.ts';
import type { Index } from './index-db.ts';
import type { Lease } from './lease.ts';
import type { SectorPlaces } from './sector-builder.ts';
import { SectorPool } from './sector-pool.ts';
import { diskBytesOf } from './usage.ts';

/** zstd's level for sectors that are packed when there is time. Levels are compared in docs/decisions/0070-sectors-at-rest.md. */
export const PACK_LEVEL = 3;
/** zstd's level for sectors that are packed while they are imported. */
export const FAST_LEVEL = 1;
/** Sectors whose new files are named in one transaction. */
const BATCH = 16;

export interface PackResult {
  /** Sectors looked at, and those that have become smaller. */
  sectors: number;
  packed: number;
  /** Disk space before and after, of those that have become smaller. */
  bytesBefore: number;
  bytesAfter: number;
}

/**
 * Packs the sectors that nobody has tried to pack yet, `threads` at a time. May be stopped at any moment, by `signal` (the batch at hand is finished) or by a crash:
 * a file takes the place of one that stands for the same bytes, by a rename.
 */
export async function packSectors(
  index: Index,
  places: SectorPlaces,
  lease: () => Lease,
  threads = availableParallelism(),
  signal?: AbortSignal,
): Promise<PackResult> {
  const result: PackResult = { sectors: 0, packed: 0, bytesBefore: 0, bytesAfter: 0 };
  const todo = [...index.table('sectors').range()]
    .filter(({ value }) => decodeSectorRecord(value).form === 'plain')
    .map(({ key, value }) => ({ root: key, used: decodeSectorRecord(value).used }));
  if (todo.length === 0) return result;
  const pool = new SectorPool(threads);
  try {
    for (let at = 0; at < todo.length; at += BATCH) {
      if (signal?.aborted === true) break;
      await packBatch(index, places, lease(), pool, todo.slice(at, at + BATCH), result);
    }
  } finally {
    await pool.close();
  }
  return result;
}

async function packBatch(
  index: Index,
  places: SectorPlaces,
  lease: Lease,
  pool: SectorPool,
  batch: readonly { root: Buffer; used: number }[],
  result: PackResult,
): Promise<void> {
  const temporaryOf = (i: number): string => join(places.temporaryDir, `${lease.id}-${i}`);
  try {
    const forms = await Promise.all(
      batch.map(async ({ root, used }, i): Promise<SectorForm> => {
        const job = {
          kind: 'pack',
          path: places.pathOf(root),
          temporary: temporaryOf(i),
          used,
          level: PACK_LEVEL,
        } as const;
        const { packed } = await pool.run(job).catch((error: unknown) => {
          // A sector that cannot be read is a matter of `pg verify`; a full disk is one of whoever called.
          if ((error as { code?: string }).code === 'ENOENT') return { packed: undefined };
          throw error;
        });
        return packed === undefined ? 'plain' : packed ? 'packed' : 'incompressible';
      }),
    );
    index.transaction(() => {
      const sectors = index.table('sectors');
      batch.forEach(({ root, used }, i) => {
        // The collector unlinks files in transactions: what has its entry still has its file.
        if (forms[i] === 'plain' || !sectors.has(root)) return;
        if (existsSync(temporaryOf(i))) {
          const path = places.pathOf(root);
          result.bytesBefore += diskBytesOf(path);
          renameSync(temporaryOf(i), path);
          result.bytesAfter += diskBytesOf(path);
          result.packed++;
        }
        sectors.put(root, encodeSectorRecord({ used, form: forms[i]! }));
      });
    });
    result.sectors += batch.length;
  } finally {
    batch.forEach((_, i) => rmSync(temporaryOf(i), { force: true }));
    lease.release();
  }
}
