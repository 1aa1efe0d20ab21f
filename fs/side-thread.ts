import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { siblingModule } from '../store/threads.ts';
import type { DiskWorkerData } from './disk-worker.ts';
import type { SyncWorkerData } from './sync-worker.ts';
import type { WriteWorkerData } from './write-worker.ts';

/** A thread beside the one that serves. */
export interface SideThread {
  port: MessagePort;
  ended: Promise<unknown>;
}

/** Starts it with what `dataOf` says, which has the port that it talks over. */
export function startThread(
  module: './sync-worker' | './disk-worker' | './write-worker',
  dataOf: (port: MessagePort) => SyncWorkerData | DiskWorkerData | WriteWorkerData,
): SideThread {
  const { port1, port2 } = new MessageChannel();
  const url = siblingModule(import.meta.url, module);
  const worker = new Worker(url, { name: module.slice(2), workerData: dataOf(port2), transferList: [port2] });
  port1.unref();
  return { port: port1, ended: new Promise((resolve) => worker.once('exit', resolve)) };
}
