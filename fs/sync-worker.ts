import { fdatasyncSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { kick, writeAnswer } from './fuse/device.ts';
import { SyncRing, WANT } from './sync-ring.ts';

/** What `workerData` of the syncer thread holds. */
export interface SyncWorkerData {
  ring: SharedArrayBuffer;
  /** The FUSE device, to answer on. */
  deviceFd: number;
  /** How often what was written is committed though nobody asked for it. */
  commitIntervalMs: number;
}

/**
 * The syncer thread: one fdatasync for all FSYNC requests that wait, which it then answers itself; the FUSE thread goes on meanwhile.
 * In quiet times it reminds the FUSE thread to commit.
 */
function main(data: SyncWorkerData): void {
  const ring = new SyncRing(data.ring);
  let requestsSeen = ring.requests;
  for (;;) {
    const event = ring.await(data.commitIntervalMs);
    if (event === 'stopped') return;
    if (event === 'timeout') {
      const requests = ring.requests;
      if (requests === requestsSeen) continue;
      requestsSeen = requests;
      ring.want(WANT.FLUSH);
      kick(data.deviceFd);
      continue;
    }
    const { count, size } = ring.waiting();
    const ok = !ring.failed && durable(ring.logFd);
    ring.complete(count, size, ok, (low, high) => writeAnswer(data.deviceFd, low, high, ok ? undefined : 'EIO'));
    if (!ok) {
      ring.want(WANT.FLUSH);
      kick(data.deviceFd);
    }
  }
}

function durable(fd: number): boolean {
  try {
    fdatasyncSync(fd);
    return true;
  } catch {
    return false;
  }
}

main(workerData as SyncWorkerData);
