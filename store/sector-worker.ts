import { readFileSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { toErrorData } from '../mdm/error.ts';
import { input } from '../mdm/kernel/kernel.ts';
import { inputSector, SECTOR_BYTES } from '../mdm/merkle.ts';
import { isZeroSector } from './content.ts';
import type { SectorAnswer, SectorJob, SectorResult } from './sector-pool.ts';
import { badBlocks, diskError, SECTOR_FILE_BYTES, writeSectorFile } from './sector.ts';

/** A thread of the sector pool: hashes, writes and checks sectors, one job at a time (sector-pool.ts). */

const ZEROS = Buffer.alloc(SECTOR_BYTES);

function spansOf(pairs: Uint32Array): { offset: number; length: number }[] {
  return Array.from({ length: pairs.length / 2 }, (_, i) => ({ offset: pairs[2 * i]!, length: pairs[2 * i + 1]! }));
}

function run(job: SectorJob): SectorResult {
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

parentPort!.on('message', (job: SectorJob) => {
  let answer: SectorAnswer;
  try {
    answer = { result: run(job) };
  } catch (error) {
    answer = { error: toErrorData(error) };
  }
  parentPort!.postMessage(answer); // oxlint-disable-line unicorn/require-post-message-target-origin
});
