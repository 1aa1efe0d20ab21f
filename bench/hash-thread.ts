/** One thread of `bench/hash.ts`: computes the roots of as many sectors of 4 MiB as it is told, and answers with the milliseconds it took. */
import { parentPort } from 'node:worker_threads';
import { inputSector, SECTOR_BYTES } from '../mdm/merkle.ts';

parentPort!.on('message', (sectors: number) => {
  const start = performance.now();
  for (let i = 0; i < sectors; i++) inputSector(SECTOR_BYTES);
  parentPort!.postMessage(performance.now() - start);
});
