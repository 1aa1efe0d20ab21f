import { fdatasyncSync } from 'node:fs';
import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { fromErrorData, PgError, toErrorData } from '../mdm/error.ts';
import { openTree } from '../layers/tree.ts';
import { openStore } from '../store/store.ts';
import { CheckpointJob } from './checkpoint-job.ts';
import { CleaningJob } from './cleaning-job.ts';
import type { ControlMessage, ControlRequest, MountWorkerData, Verbs } from './control.ts';
import { awaitDevice, becomeWakeable, invalidateAttributes } from './fuse/device.ts';
import { OPCODE_NAMES } from './fuse/protocol.ts';
import { Server } from './fuse/serve.ts';
import type { NamespaceClaim } from './log/claim.ts';
import { type Log, openLog } from './log/log.ts';
import { describeDamage } from './log/verify.ts';
import type { FsStats } from './mount.ts';
import { ENDED, SyncRing, WANT } from './sync-ring.ts';
import { FsError } from './view/error.ts';
import { openView } from './view/open-view.ts';
import type { View } from './view/view.ts';

/** How long a slice of work beside the requests is, and how far apart they are while requests come. */
const IDLE_SLICE_MS = 4;
const BUSY_SLICE_MS = 2;
const BUSY_INTERVAL_MS = 20;
/** An fdatasync in the serving thread may take this long; one that took longer sends that many to the syncer, twice as many the next time. */
const HERE_MS = 2;
const FIRST_BANISHED = 64;
const MOST_BANISHED = 4096;

/** Whether the serving thread does an fdatasync itself: while the disk answers within the time that handing over and waking another thread costs. */
class SyncHere {
  private banished = 0;
  private nextBanished = FIRST_BANISHED;

  /** Counts as asked for one fdatasync. */
  pays(): boolean {
    if (this.banished === 0) return true;
    this.banished--;
    return false;
  }

  measure(sync: () => void): void {
    const start = performance.now();
    sync();
    if (performance.now() - start < HERE_MS) {
      this.nextBanished = FIRST_BANISHED;
      return;
    }
    this.banished = this.nextBanished;
    this.nextBanished = Math.min(MOST_BANISHED, 2 * this.nextBanished);
  }
}

/** The thread that serves one mount: the view over the image's tree and the log, behind the FUSE loop. It blocks in the device; the ring's `want` wakes it. */
class MountWorker {
  private readonly data: MountWorkerData;
  private readonly port: MessagePort;
  private readonly ring: SyncRing;
  private readonly view: View;
  /** null when nothing is written here. */
  private readonly log: Log | null;
  private readonly server: Server;
  private readonly job: CheckpointJob;
  private readonly cleaning: CleaningJob | undefined;
  private workedAt = 0;
  private readonly here = new SyncHere();
  /** Bytes of the log that were written to its file, and the number of the commit entry that ends them. */
  private flushed = 0;
  private flushedSequence = 0;
  private hashedVersion = 0;
  private seeksResumed = 0;
  private failure: string | null = null;

  constructor(data: MountWorkerData, port: MessagePort, view: View, log: Log | null) {
    this.data = data;
    this.port = port;
    this.ring = new SyncRing(data.ring);
    this.view = view;
    this.log = data.readOnly ? null : log;
    this.log?.meter.setBudget(data.budget);
    if (this.log !== null) this.ring.begin(this.log.fd, this.log.durable);
    this.flushed = this.ring.flushedSize;
    this.server = new Server(
      data.deviceFd,
      view,
      { readOnly: this.log === null, writeback: data.writeback },
      {
        sync: (low, high) => this.sync(low, high),
        writeBack: (ino) => this.ring.postWriteBack(ino),
        forgetAttributes: (ino) => invalidateAttributes(data.deviceFd, ino),
        attend: () => !this.ring.checkIn() || this.attend(),
        hasWork: () => this.job.hasWork || this.cleaning?.hasWork === true,
        work: (isIdle) => this.work(isIdle),
        report: (message) => this.post({ kind: 'report', message }),
      },
    );
    this.job = new CheckpointJob(view, this.ring, (step, transfer) =>
      this.port.postMessage({ kind: 'checkpoint', step } satisfies ControlMessage, transfer),
    );
    if (this.log !== null && view.cleaner !== undefined) {
      const giveBack = (sectors: number[]): void => this.post({ kind: 'giveBack', sectors });
      this.cleaning = new CleaningJob(view.cleaner, this.log, this.job, this.ring, giveBack);
    }
  }

  /** Serves until the mount ends. */
  run(): void {
    const damage = describeDamage({ payloads: this.log?.damaged.length ?? 0, sectors: 0, missingBytes: 0 });
    if (damage !== undefined) this.post({ kind: 'damage', message: `the log is damaged: ${damage}` });
    this.ring.threadId = becomeWakeable();
    this.post({ kind: 'serving' });
    this.server.run();
    this.ring.threadId = ENDED;
    this.ring.drain();
  }

  private post(message: ControlMessage): void {
    this.port.postMessage(message);
  }

  /** FSYNC: writes what is pending to the file and leaves the fdatasync and the answer to the syncer; true when all is durable already. */
  private sync(uniqueLow: number, uniqueHigh: number): boolean {
    if (this.log === null) return true;
    this.flush();
    if (this.flushed <= this.ring.syncedSize) return true;
    // Nothing else waits for this thread: on a fast disk the fdatasync is sooner done than handed over.
    if (this.ring.idle && this.here.pays() && awaitDevice(this.data.deviceFd, 0) === 0) {
      this.here.measure(() => this.syncHere());
      this.ring.syncedHere(this.flushed, this.flushedSequence);
      return true;
    }
    if (this.postSync(uniqueLow, uniqueHigh)) return false;
    // The ring is full. Waiting for the syncer is no way out: it may be waiting for the kernel, and the kernel for this thread.
    this.syncHere();
    return true;
  }

  private syncHere(): void {
    try {
      fdatasyncSync(this.log!.fd);
    } catch (error) {
      this.ring.fail();
      this.fail(`fdatasync of the log failed: ${(error as Error).message}`, error);
      throw error;
    }
  }

  private postSync(uniqueLow: number, uniqueHigh: number): boolean {
    return this.ring.post(this.flushed, this.flushedSequence, uniqueLow, uniqueHigh);
  }

  private flush(): void {
    this.noteSynced();
    if (this.failure !== null) throw new FsError('EIO', this.failure);
    const log = this.log!;
    try {
      if (this.view.dirty()) this.view.flush();
    } catch (error) {
      // A full disk is no failure: nothing is lost, and space may come.
      if (log.failure !== undefined) this.fail(`writing the log failed: ${(error as Error).message}`, error);
      throw error;
    }
    // The log also writes when its buffer is full: what it says counts, not what was flushed here.
    this.flushed = log.written;
    this.flushedSequence = log.lastSequence;
  }

  /** Tells the view what the syncer did meanwhile. */
  private noteSynced(): void {
    const { ring } = this;
    if (ring.failed) this.fail('fdatasync of the log failed: what reached the disk is unknown', undefined);
    else if (ring.damaged) this.fail('the log is not what was written', undefined);
    else if (ring.syncedSize > 0) this.view.synced(ring.syncedSize);
    const hashed = ring.hashedSince(this.hashedVersion);
    if (hashed === undefined) return;
    this.hashedVersion = hashed.version;
    this.log?.noteRoot(hashed);
  }

  private fail(message: string, error: unknown): void {
    if (this.failure !== null) return;
    this.failure = message;
    this.view.failed(error ?? new Error(message));
    this.post({ kind: 'report', message: `${message}; nothing more is accepted` });
  }

  /** Does what is asked; false ends the loop. */
  private attend(): boolean {
    const wanted = this.ring.takeWanted();
    if ((wanted & WANT.FLUSH) !== 0 && this.log !== null) this.commitLater();
    if ((wanted & WANT.WRITTEN_BACK) !== 0) this.resumeSeeks();
    for (;;) {
      const received = receiveMessageOnPort(this.port) as { message: ControlRequest } | undefined;
      if (received === undefined) break;
      this.serveVerb(received.message);
    }
    return (wanted & WANT.STOP) === 0;
  }

  private resumeSeeks(): void {
    for (
      const done = this.ring.writtenBack;
      this.seeksResumed !== done;
      this.seeksResumed = (this.seeksResumed + 1) | 0
    ) {
      this.server.resumeSeek();
    }
  }

  private commitLater(): void {
    try {
      this.flush();
      this.log!.saveMeter();
      if (this.view.checkpointDue()) this.job.begin();
      this.cleaning?.tick(this.view.checkpointBytes);
      if (this.flushed > this.ring.syncedSize) this.postSync(0, 0);
    } catch {
      // Reported by `flush`; whoever calls fsync gets the error.
    }
  }

  /** A slice of what is done beside the requests: in idle times one after another, else one now and then. */
  private work(isIdle: boolean): void {
    const now = performance.now();
    if (!isIdle && now - this.workedAt < BUSY_INTERVAL_MS) return;
    const job = this.job.hasWork ? this.job : this.cleaning;
    job?.step(isIdle ? IDLE_SLICE_MS : BUSY_SLICE_MS);
    this.workedAt = performance.now();
  }

  /** Where everything acknowledged so far ends; it is durable when the ring's `syncedSize` has come there. */
  private commit(): { epoch: number; size: number } {
    if (this.log === null) return { epoch: 0, size: 0 };
    this.flush();
    if (this.flushed > this.ring.syncedSize && !this.postSync(0, 0)) {
      throw new PgError('MOUNT_BUSY', 'too many requests wait for the disk', { hint: 'try again' });
    }
    return { epoch: this.log.epoch, size: this.flushed };
  }

  /** Commits what there is, and then the claim about it; where that ends. */
  private appendNamespace(claim: NamespaceClaim): { epoch: number; size: number } {
    if (this.log === null) throw new FsError('EROFS');
    this.flush();
    this.log.appendNamespace(claim);
    return this.commit();
  }

  private serveVerb(request: ControlRequest): void {
    if (request.verb === 'checkpoint' && this.log !== null) return this.checkpointFor(request.id);
    if (request.verb === 'clean' && this.cleaning !== undefined) return this.cleanFor(request.id, this.cleaning);
    try {
      this.post({ kind: 'answer', id: request.id, value: this.verb(request) });
    } catch (error) {
      this.post({ kind: 'failure', id: request.id, error: toErrorData(error) });
    }
  }

  /** Answers when a checkpoint of now is installed. */
  private checkpointFor(id: number): void {
    this.job.begin((error) => {
      if (error === null) this.post({ kind: 'answer', id, value: null });
      else this.post({ kind: 'failure', id, error: toErrorData(error) });
    });
  }

  /** Answers when the log is cleaned. */
  private cleanFor(id: number, cleaning: CleaningJob): void {
    cleaning.begin((result) => {
      if (result instanceof Error) this.post({ kind: 'failure', id, error: toErrorData(result) });
      else this.post({ kind: 'answer', id, value: result });
    });
  }

  private verb({ verb, claim, clone, budget, checkpoint = null, failure = null }: ControlRequest): Verbs[keyof Verbs] {
    const { view } = this;
    switch (verb) {
      case 'commit':
        return this.commit();
      case 'epoch':
        return this.log?.epoch ?? 0;
      case 'stats':
        return this.stats();
      case 'checkpoint':
        return null;
      case 'clean':
        throw new FsError('EROFS');
      case 'givenBack':
        this.cleaning?.givenBack(failure === null ? null : fromErrorData(failure));
        return null;
      case 'checkpointed':
        this.job.ended(checkpoint !== null && 'code' in checkpoint ? fromErrorData(checkpoint) : checkpoint);
        return null;
      case 'changes':
        return Array.from(view.changes());
      case 'budget':
        this.log?.meter.setBudget(budget ?? null);
        return null;
      case 'namespace':
        return this.appendNamespace(claim!);
      case 'merge':
        this.flush();
        return view.merge(clone!.dir, clone!.from, clone!.firstIno);
    }
  }

  /** The mount ends; whether the checkpoint's files are free to be written. */
  abandonCheckpoint(): boolean {
    return this.job.abandon();
  }

  private stats(): FsStats {
    const { session } = this.server;
    const operations: Record<string, number> = {};
    for (const [opcode, count] of session.counts.entries()) if (count > 0) operations[OPCODE_NAMES[opcode]!] = count;
    const { syncs, requests } = this.ring.counters;
    return {
      operations,
      bytesRead: session.bytesRead,
      bytesWritten: session.bytesWritten,
      syncs,
      syncRequests: requests,
      dirty: this.log !== null && (this.view.dirty() || this.log.written > this.ring.syncedSize),
      spent: this.log?.meter.spent ?? null,
      failed: this.failure,
      kernelInodes: session.lookups.size,
      ...this.view.stats(),
    };
  }
}

async function main(data: MountWorkerData, port: MessagePort): Promise<void> {
  let error: unknown = null;
  const store = openStore(data.roots);
  try {
    const tree = openTree(store, data.treeRoot);
    const base = data.treeRoot === null ? {} : { base: data.treeRoot };
    const limit = data.limit === null ? {} : { limit: data.limit };
    const log =
      data.logDir === null
        ? null
        : openLog(data.logDir, { create: !data.readOnly, readOnly: data.readOnly, ...limit, ...base });
    const view = openView(tree, store, log);
    const worker = new MountWorker(data, port, view, log);
    try {
      worker.run();
    } finally {
      view.close(worker.abandonCheckpoint());
    }
  } catch (thrown) {
    error = thrown;
  } finally {
    await store.close();
  }
  port.postMessage({ kind: 'ended', error: error === null ? null : toErrorData(error) } satisfies ControlMessage);
  port.close();
}

// The thread may have been started before it was known what to mount.
parentPort!.once('message', (data: MountWorkerData) => void main(data, parentPort!));
