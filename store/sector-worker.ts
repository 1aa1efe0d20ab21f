import { parentPort } from 'node:worker_threads';
import { toErrorData } from '../mdm/error.ts';
import { runSectorJob } from './sector-job.ts';
import type { SectorAnswer, SectorJob } from './sector-pool.ts';

/** A thread of the sector pool: one job at a time (sector-pool.ts). */

parentPort!.on('message', (job: SectorJob) => {
  let answer: SectorAnswer;
  try {
    answer = { result: runSectorJob(job) };
  } catch (error) {
    answer = { error: toErrorData(error) };
  }
  parentPort!.postMessage(answer); // oxlint-disable-line unicorn/require-post-message-target-origin
});
