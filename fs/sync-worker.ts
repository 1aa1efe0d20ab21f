import { fdatasyncSync, writeSync } from 'node:fs';
import { type MessagePort, workerData } from 'node:worker_threads';
import { toErrorData } from '../mdm/error.ts';
import type { RootMessage } from './control.ts';
import { writeAnswer } from './fuse/device.ts';
import { openHasher, type OpenHasher } from './log/hasher.ts';
import type { RecordedRoot } from './log/root-entry.ts';
import { rotOf } from './log/verify.ts';
import { SyncRing, WANT } from './sync-ring.ts';

/** What the syncer thread is started with. */
export interface SyncWorkerData {
  ring: SharedArrayBuffer;
  /** The FUSE device, to answer on. */
  deviceFd: number;
  logDir: string;
  /** Where roots go. */
  port: MessagePort;
}

/** Hashing goes on when no request came for this long, in pieces after each of which a waiting FSYNC gets its turn. */
const QUIET_MS = 200;
const HASH_BYTES = 256 << 10;
/** Between pieces that are hashed though requests come, so that they take a part of a processor. */
const WANTED_PAUSE_MS = 1;
/** In one go for as long as the last fdatasync took, but not longer than whoever waits for the next one can bear. */
const WANTED_LEAST_MS = 3;
const WANTED_MOST_MS = 25;
/** Nothing is to do; being woken does not wait for it. */
const IDLE_MS = 60_000;

/**
 * The syncer thread of a mount, started when it is needed: one fdatasync for all FSYNC requests that wait, which it then answers itself; the FUSE thread goes on
 * meanwhile. In quiet times it hashes what is durable, so that a root is at hand when one is asked for.
 */
class Syncer {
  private readonly data: SyncWorkerData;
  private readonly ring: SyncRing;
  private hashing: OpenHasher | undefined;
  /** Roots recorded in what the mount has read, as far as they are not compared yet. */
  private recorded: Generator<RecordedRoot | undefined> | undefined;
  private publishedSize = 0;
  private lastSyncMs = 0;
  /** Why the log's root cannot be told any more. */
  private damage: unknown;
  private rotPassed = false;
  private rootsServed = 0;
  private requestsSeen = 0;

  constructor(data: SyncWorkerData) {
    this.data = data;
    this.ring = new SyncRing(data.ring);
  }

  run(): void {
    const { ring } = this;
    for (;;) {
      const behind = this.isBehind();
      const wanted = behind && ring.hashedSize < ring.wantedHash;
      if (wanted) this.hashWanted();
      const timeoutMs = wanted ? WANTED_PAUSE_MS : behind ? QUIET_MS : IDLE_MS;
      switch (ring.await(timeoutMs, this.rootsServed)) {
        case 'stopped':
          this.end();
          return;
        case 'posted':
          this.sync();
          break;
        case 'root':
          this.serveRoot();
          break;
        case 'timeout':
          if (behind && !wanted) this.hashWhileQuiet();
      }
    }
  }

  private sync(): void {
    const { ring, data } = this;
    const waiting = ring.waiting();
    const start = performance.now();
    const ok = !ring.failed && durable(ring.logFd);
    this.lastSyncMs = performance.now() - start;
    ring.complete(waiting, ok, (low, high) => writeAnswer(data.deviceFd, low, high, ok ? undefined : 'EIO'));
    if (ok) return;
    ring.wantHeard(WANT.FLUSH);
  }

  private isBehind(): boolean {
    const { ring, hashing, recorded } = this;
    if (ring.failed || ring.damaged) return false;
    return recorded !== undefined || ring.syncedSize > (hashing?.hasher.size ?? 0);
  }

  private hashWhileQuiet(): void {
    const { ring } = this;
    const requests = ring.requests;
    if (requests !== this.requestsSeen) {
      this.requestsSeen = requests;
      return;
    }
    try {
      while (!ring.busy(this.rootsServed) && ring.requests === requests && !this.advance()) {}
    } catch {
      // Told by `advance`, which is not called again.
    }
  }

  /** Hashes a piece of what is asked for, requests or not; tells the FUSE thread when all of that is hashed. */
  private hashWanted(): void {
    const { ring } = this;
    try {
      const end = performance.now() + Math.min(WANTED_MOST_MS, Math.max(WANTED_LEAST_MS, this.lastSyncMs));
      while (!this.advance() && performance.now() < end) {}
    } catch {
      return; // told by `advance`
    }
    if (ring.hashedSize < ring.wantedHash) return;
    ring.wantHeard(WANT.FLUSH);
  }

  /** Hashes one piece more; true when all that is durable is hashed. What it throws it has reported. */
  private advance(): boolean {
    if (this.damage !== undefined) throw this.damage;
    try {
      return this.hash();
    } catch (error) {
      if (this.passRot()) return false;
      this.damage = error;
      this.post({ kind: 'damage', message: (error as Error).message });
      this.ring.damage();
      throw error;
    }
  }

  /** Where checksums tell what has rotted, reading that fails and nothing else does: it is reported, once, and hashing goes on. */
  private passRot(): boolean {
    if (this.hashing === undefined || this.rotPassed) return false;
    this.rotPassed = true;
    const rot = rotOf(this.data.logDir, this.ring.syncedSize);
    if (rot === undefined) return false;
    this.hashing.hasher.passRot();
    this.post({ kind: 'damage', message: `the log is damaged: ${rot}` });
    return true;
  }

  private hash(): boolean {
    const { ring } = this;
    const size = ring.syncedSize;
    if (this.hashing === undefined) {
      this.hashing = openHasher(this.data.logDir);
      if (this.hashing.hasher.size < size) this.recorded = this.hashing.recheck(size);
    }
    const { hasher } = this.hashing;
    if (this.recorded !== undefined) {
      const { value, done } = this.recorded.next();
      if (value !== undefined) hasher.expect(value);
      if (done === true) this.recorded = undefined;
      return false;
    }
    const isThere = hasher.advance(size, HASH_BYTES);
    hasher.keep(size);
    const { full } = hasher;
    if (full.size > this.publishedSize) {
      ring.hashed(full);
      this.publishedSize = full.size;
    }
    return isThere;
  }

  private serveRoot(): void {
    const { ring } = this;
    const wanted = ring.rootsWanted;
    try {
      while (!this.advance()) if (ring.posted) this.sync();
      const { hasher } = this.hashing!;
      this.post({ kind: 'root', size: hasher.size, root: hasher.rootAt(hasher.size) });
    } catch (error) {
      this.post({ kind: 'noRoot', error: toErrorData(error) });
    }
    this.rootsServed = wanted;
  }

  /** Keeps what was hashed for the next mount. What this one wrote is trusted: it was durable. */
  private end(): void {
    if (this.hashing === undefined) return;
    const { hasher, close } = this.hashing;
    const { syncedSize, syncedSequence } = this.ring;
    if (syncedSequence > 0 && !this.ring.failed && !this.ring.damaged) hasher.save(syncedSize, syncedSequence);
    close();
  }

  private post(message: RootMessage): void {
    this.data.port.postMessage(message);
    this.ring.wantHeard(WANT.ROOTS);
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

try {
  new Syncer(workerData as SyncWorkerData).run();
} catch (error) {
  // Nobody answers FSYNC any more; the thread that serves could not hear of it. The next process does better, or the mount ends.
  writeSync(2, `pg: the filesystem's syncer failed: ${(error as Error).stack}\n`);
  process.kill(process.pid, 'SIGABRT');
}
