import { readFileSync } from 'node:fs';
import { input } from '../mdm/kernel/kernel.ts';
import { inputSector, SECTOR_BYTES } from '../mdm/merkle.ts';
import { isZeroSector } from './content.ts';
import type { SectorJob, SectorResult } from './sector-pool.ts';
import { badBlocks, diskError, SECTOR_FILE_BYTES, writeSectorFile } from './sector.ts';

const ZEROS = Buffer.alloc(SECTOR_BYTES);

function spansOf(pairs: Uint32Array): { offset: number; length: number }[] {
  return Array.from({ length: pairs.length / 2 }, (_, i) => ({ offset: pairs[2 * i]!, length: pairs[2 * i + 1]! }));
}

/**
 * Hashes, writes or checks a sector, in this thread: 10 to 20 ms. DISK_FULL, DISK_ERROR, and what reading a file to be
 * checked throws.
 */
export function runSectorJob(job: SectorJob): SectorResult {
  switch (job.kind) {
    case 'hash': {
      const bytes = new Uint8Array(job.buffer);
      const spans = spansOf(job.spans);
      input.set(job.used === SECTOR_BYTES ? bytes : bytes.subarray(0, job.used));
      const { root, contentRoots } = inputSector(job.used, spans);
      const zero = isZeroSector(root)
        ? spans.map(() => true)
        : spans.map(({ offset, length }) => ZEROS.compare(bytes, offset, offset + length, 0, length) === 0);
      return { root, contentRoots, zero };
    }
    case 'write':
      try {
        writeSectorFile(job.path, new Uint8Array(job.buffer), job.used);
      } catch (cause) {
        throw diskError(cause, `cannot write sector file ${job.path}`);
      }
      return { root: new Uint8Array(0), contentRoots: [], zero: [] };
    case 'check': {
      const file = readFileSync(job.path);
      if (file.length !== SECTOR_FILE_BYTES) return { root: new Uint8Array(0), contentRoots: [], zero: [], bad: [-1] };
      const bad = badBlocks(file);
      input.set(file.subarray(0, SECTOR_BYTES));
      const { root, contentRoots } = inputSector(SECTOR_BYTES, spansOf(job.spans));
      return { root, contentRoots, zero: [], bad };
    }
    default:
      return job satisfies never;
  }
}
