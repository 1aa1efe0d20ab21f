import { availableParallelism } from 'node:os';
import { awaitDeviceOr, readDevice, yieldProcessor } from './device.ts';
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
  private readonly other: number;
  private readonly mayWaitAwake = availableParallelism() > 1;
  private comeSoon = false;
  private crowdedUntil = 0;

  /** `other` is a descriptor that ends the wait too when there is something to read from it (-1: none). */
  constructor(fd: number, other: number) {
    this.fd = fd;
    this.other = other;
  }

  /**
   * The next request: the bytes read, or the negative of an errno. -EINTR when there is none and something else ended the wait: the wake signal, the other
   * descriptor, or the time that `patienceMs` gives (-1: for ever).
   */
  next(into: Uint8Array, patienceMs: () => number): number {
    let received = readDevice(this.fd, into);
    if (received !== -ERRNO.EAGAIN) return received;
    const start = performance.now();
    if (this.comeSoon && start >= this.crowdedUntil) received = this.waitAwake(into, start);
    if (received === -ERRNO.EAGAIN) {
      if (!awaitDeviceOr(this.fd, this.other, patienceMs())) return -ERRNO.EINTR;
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
