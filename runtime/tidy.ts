import type { CollectResult } from '../store/collect.ts';
import type { PackResult } from '../store/pack.ts';
import type { Roots } from '../store/paths.ts';
import type { Store } from '../store/store.ts';
import { collectGarbage } from './garbage.ts';

/** What tidying up came to. */
export interface TidyResult extends CollectResult {
  /** Sectors that were dead in part, and are now gone or wait for whoever is at work. */
  repacked: number;
  /** Null where the settings say that nothing is compressed. */
  packed: PackResult | null;
}

/**
 * Gives back the space of what nothing reaches, copies together what is left of sectors that are mostly dead, and compresses what was written as it came. Every step can be
 * stopped, by `signal` or a crash, without loss. `threads`: how many may compress. DISK_FULL; errors of records that cannot be read.
 */
export async function tidy(
  roots: Roots,
  store: Store,
  compress: boolean,
  threads?: number,
  signal?: AbortSignal,
): Promise<TidyResult> {
  const collected = await collectGarbage(roots, store);
  const { sectors } = await store.repack(signal);
  if (sectors > 0) {
    const again = await collectGarbage(roots, store);
    for (const what of ['contents', 'nodes', 'sectors', 'bytes'] as const) collected[what] += again[what];
    collected.waitingFor = again.waitingFor;
  }
  const packed = compress ? await store.pack(threads, signal) : null;
  return { ...collected, repacked: sectors, packed };
}
