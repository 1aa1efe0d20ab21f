import { decodeExtents, isZeroSector } from './content.ts';
import { sectorKey } from './content-reader.ts';
import type { Index } from './index-db.ts';

/** Stretches of sectors, which may overlap: several contents may have the same bytes. */
export class Coverage {
  private readonly bySector = new Map<string, number[]>();

  add(sector: Uint8Array, offset: number, length: number): void {
    const key = sectorKey(sector);
    const list = this.bySector.get(key);
    if (list) list.push(offset, offset + length);
    else this.bySector.set(key, [offset, offset + length]);
  }

  /** What of a sector is covered: stretches in order that do not touch, as pairs (first byte, end), rounded out to multiples of `unit` bytes. */
  of(sector: Uint8Array, unit = 1): number[] {
    const list = this.bySector.get(sectorKey(sector)) ?? [];
    const pairs = Array.from({ length: list.length / 2 }, (_, i) => [list[2 * i]!, list[2 * i + 1]!] as const);
    const merged: number[] = [];
    for (const [first, last] of pairs.toSorted((a, b) => a[0] - b[0])) {
      const start = Math.floor(first / unit) * unit;
      const end = Math.ceil(last / unit) * unit;
      if (merged.length > 0 && start <= merged.at(-1)!) merged[merged.length - 1] = Math.max(end, merged.at(-1)!);
      else merged.push(start, end);
    }
    return merged;
  }

  /** Bytes of a sector that are covered, in whole units. */
  bytesOf(sector: Uint8Array, unit = 1): number {
    return this.of(sector, unit).reduce((sum, at, i) => (i % 2 === 0 ? sum - at : sum + at), 0);
  }
}

/** What the contents in the index need of the sectors. Reads the whole table. */
export function coverageOf(index: Index): Coverage {
  const coverage = new Coverage();
  for (const { value } of index.table('contents').range()) {
    for (const { sector, offset, length } of decodeExtents(value))
      if (!isZeroSector(sector)) coverage.add(sector, offset, length);
  }
  return coverage;
}
