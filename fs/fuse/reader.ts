import { availableParallelism } from 'node:os';
import { awaitDevice, readDevice, yieldProcessor } from './device.ts';
import { ERRNO } from './errno.ts';

/** A request that comes this soon after the last answer is worth waiting for awake. */
const SOON_MS = 0.2;
/** How long to wait awake, and for how long not to once somebody else wanted the processor. */
const AWAKE_MS = 0.06;
const CROWDED_MS = 20;
/** A sched_yield that takes longer has let somebody else run. */
const YIELDED_MS = 0.02;

/**
 * Reads requests from the FUSE device. A program that makes one system call after another has the next request here within microseconds of the
 * last answer, while waking a thread whose processor has gone to sleep takes up to 100 of them (on virtual machines above all). So while requests
 * come one on the heels of another and nobody else wants the processor, the thread waits for the next one awake, for a moment; else it sleeps.
 */
export class RequestReader {
  private readonly fd: number;
  private readonly mayWaitAwake = availableParallelism() > 1;
  private comeSoon = false;
  private crowdedUntil = 0;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** The next request: the bytes read, or the negative of an errno: -EINTR when woken by the wake signal. */
  next(into: Uint8Array): number {
    let received = readDevice(this.fd, into);
    if (received !== -ERRNO.EAGAIN) return received;
    const start = performance.now();
    if (this.comeSoon && start >= this.crowdedUntil) received = this.waitAwake(into, start);
    if (received === -ERRNO.EAGAIN) {
      const ready = awaitDevice(this.fd, -1);
      if (ready < 0) return ready;
      received = readDevice(this.fd, into);
    }
    this.comeSoon = this.mayWaitAwake && performance.now() - start < SOON_MS;
    return received;
  }

  private waitAwake(into: Uint8Array, start: number): number {
    for (let now = start; ;) {
      yieldProcessor();
      const received = readDevice(this.fd, into);
      if (received !== -ERRNO.EAGAIN) return received;
      const before = now;
      now = performance.now();
      if (now - before > YIELDED_MS) this.crowdedUntil = now + CROWDED_MS;
      if (now - before > YIELDED_MS || now - start > AWAKE_MS) return received;
    }
  }
}
