import { writeSync } from 'node:fs';
import { type MessagePort, workerData } from 'node:worker_threads';
import { type PgErrorData, toErrorData } from '../mdm/error.ts';
import { CheckpointSink, type CheckpointStep } from './checkpoint-sink.ts';
import type { NamedCheckpoint } from './log/checkpoint-entry.ts';
import { giveBackIn } from './log/reclaim.ts';
import { SyncRing, WANT } from './sync-ring.ts';

/** What the disk worker is started with. */
export interface DiskWorkerData {
  ring: SharedArrayBuffer;
  logDir: string;
  /** Orders come from it, news go to it. */
  port: MessagePort;
}

/** What the serving thread has it do. */
export type DiskOrder =
  { kind: 'checkpoint'; step: CheckpointStep } | { kind: 'giveBack'; sectors: number[] } | { kind: 'end' };

/** What has become of a checkpoint (null: it was abandoned), or of sectors that were to be given back. */
export type DiskNews =
  | { kind: 'checkpointed'; result: NamedCheckpoint | PgErrorData | null }
  | { kind: 'givenBack'; failure: PgErrorData | null };

/** A thread beside the one that serves, started when it is needed: waits for the disk with checkpoints and sectors that are given back. */
const { ring: shared, logDir, port } = workerData as DiskWorkerData;
const ring = new SyncRing(shared);

function tell(news: DiskNews): void {
  port.postMessage(news);
  ring.wantHeard(WANT.DISK);
}

const sink = new CheckpointSink(logDir, (result) => {
  ring.sinkBusy = false;
  tell({ kind: 'checkpointed', result: result instanceof Error ? toErrorData(result) : result });
});

function giveBack(sectors: number[]): void {
  let failure: PgErrorData | null = null;
  try {
    giveBackIn(logDir, sectors);
  } catch (error) {
    failure = toErrorData(error);
  }
  tell({ kind: 'givenBack', failure });
}

process.on('uncaughtException', (error) => {
  // Whoever waits for it would wait for ever; the next process does better.
  writeSync(2, `pg: the filesystem's disk worker failed: ${error.stack}\n`);
  process.kill(process.pid, 'SIGABRT');
});
port.on('message', (order: DiskOrder) => {
  if (order.kind === 'checkpoint') sink.take(order.step);
  else if (order.kind === 'giveBack') giveBack(order.sectors);
  else void sink.settled.then(() => port.close());
});
