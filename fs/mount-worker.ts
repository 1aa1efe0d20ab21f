import { fdatasyncSync } from 'node:fs';
import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { fromErrorData, PgError, toErrorData } from '../mdm/error.ts';
import { CheckpointJob } from './checkpoint-job.ts';
import { CleaningJob } from './cleaning-job.ts';
import {
  CONTROL_FD,
  type ControlRequest,
  DEVICE_FD,
  type MountOrder,
  type PositionData,
  type RootMessage,
  type ToHolder,
  type ToServer,
  type Verbs,
} from './control.ts';
import type { ControlChannel } from './control-channel.ts';
import type { DiskNews, DiskOrder, DiskWorkerData } from './disk-worker.ts';
import { awaitDevice, becomeWakeable, invalidateAttributes, resendRequests } from './fuse/device.ts';
import { Server } from './fuse/serve.ts';
import { IdleMemory } from './idle-memory.ts';
import type { Log } from './log/log.ts';
import { describeDamage } from './log/verify.ts';
import { mountStats } from './mount-stats.ts';
import { type SideThread, startThread } from './side-thread.ts';
import { SyncHere } from './sync-here.ts';
import { ENDED, SyncRing, WANT } from './sync-ring.ts';
import type { SyncWorkerData } from './sync-worker.ts';
import { FsError } from './view/error.ts';
import type { View } from './view/view.ts';

/** How long a slice of work beside the requests is, and how far apart they are while requests come. */
const IDLE_SLICE_MS = 4;
const BUSY_SLICE_MS = 2;
const BUSY_INTERVAL_MS = 20;
/** The same while the log takes too much of the disk. */
const URGENT_SLICE_MS = 8;
const URGENT_INTERVAL_MS = 8;
/** How often it is looked whether a checkpoint or cleaning is due while requests come. */
const TICK_MS = 250;
/** How long an acknowledged write may stay undurable when nobody asks for it (ext4's commit interval); and what is no small thing to sync in the serving thread. */
const COMMIT_INTERVAL_MS = 5000;
const SMALL_COMMIT_BYTES = 1 << 20;
/** A busy loop looks at its socket and its clock once in so many requests. */
const REQUESTS_BETWEEN_LOOKS = 32;
/** So much to hash is better begun before somebody asks for the root. */
const HASH_AHEAD_BYTES = 4 << 20;

const NEVER = new Int32Array(new SharedArrayBuffer(4));

/** A verb whose answer waits for the root of at least `size` bytes. */
interface RootWaiter {
  size: number;
  answer(at: { size: number; root: Uint8Array }): void;
  fail(error: Error): void;
}

/** Serves one mount: the view over the image's tree and the log, behind the FUSE loop. It sleeps in poll(2) of the device and of the socket to the holder. */
export class MountWorker {
  private readonly order: MountOrder;
  private readonly channel: ControlChannel;
  private readonly ring = new SyncRing();
  private readonly view: View;
  /** null when nothing is written here. */
  private readonly log: Log | null;
  private readonly server: Server;
  private readonly job: CheckpointJob;
  private readonly cleaning: CleaningJob | undefined;
  private workedAt = 0;
  private tickedAt = 0;
  private readonly here = new SyncHere();
  /** Bytes of the log that were written to its file, and the number of the commit entry that ends them. */
  private flushed = 0;
  private flushedSequence = 0;
  private hashedVersion = 0;
  private failure: string | null = null;
  private syncer: SideThread | undefined;
  private diskWorker: SideThread | undefined;
  private rootWaiters: RootWaiter[] = [];
  private untilLook = 0;
  private readonly idle = new IdleMemory();
  /** What was asked up to then is committed, and when the rest is due (0: not known yet). */
  private requestsCommitted = 0;
  private commitAt = 0;
  private stopped = false;

  constructor(order: MountOrder, channel: ControlChannel, view: View, log: Log | null) {
    this.order = order;
    this.channel = channel;
    this.view = view;
    this.log = order.readOnly ? null : log;
    this.log?.meter.setBudget(order.budget);
    if (this.log !== null) this.ring.begin(this.log.fd, this.log.durable);
    this.flushed = this.ring.flushedSize;
    this.server = new Server(
      DEVICE_FD,
      view,
      { readOnly: this.log === null, writeback: order.writeback },
      {
        sync: (low, high) => this.sync(low, high),
        writeBack: (seek, ino) => this.send({ kind: 'writeBack', seek, ino }),
        forgetAttributes: (ino) => invalidateAttributes(DEVICE_FD, ino),
        attend: () => this.attend(),
        hasWork: () => this.job.hasWork || this.cleaning?.hasWork === true,
        work: (isIdle) => this.work(isIdle),
        patienceMs: () => this.patienceMs(),
        agreed: (agreement) => this.send({ kind: 'agreed', agreement }),
        report: (message) => this.send({ kind: 'report', message }),
      },
      order.agreement,
    );
    this.job = new CheckpointJob(view, this.ring, this.log?.dir ?? null, (step, transfer) =>
      this.startDiskWorker().postMessage({ kind: 'checkpoint', step } satisfies DiskOrder, transfer),
    );
    if (this.log !== null && view.cleaner !== undefined) {
      const giveBack = (sectors: number[]): void =>
        this.startDiskWorker().postMessage({ kind: 'giveBack', sectors } satisfies DiskOrder);
      const cleaning = new CleaningJob(view, view.cleaner, this.log, this.job, this.ring, giveBack);
      view.whenFull(() => cleaning.runNow(() => this.heed()));
      this.cleaning = cleaning;
    }
  }

  /** Serves until the mount ends, or the holder says stop, or is gone. */
  run(): void {
    const damage = describeDamage({ payloads: this.log?.damaged.length ?? 0, sectors: 0, missingBytes: 0 });
    if (damage !== undefined) this.send({ kind: 'damage', message: `the log is damaged: ${damage}` });
    if (this.log?.failure !== undefined) this.fail('the log could not be written or made durable', this.log.failure);
    this.ring.threadId = becomeWakeable();
    if (this.order.agreement !== null) this.takeOver();
    // What was replayed is compared with the roots that were recorded of it, behind the mount.
    if (this.log !== null && this.flushed - this.log.hasher.restored.size > HASH_AHEAD_BYTES) this.startSyncer();
    this.send({ kind: 'serving' });
    this.server.run(CONTROL_FD);
    this.ring.threadId = ENDED;
    this.ring.drain();
  }

  /** After the view has been closed: the syncer keeps what it hashed. */
  async end(): Promise<void> {
    this.ring.stop();
    this.diskWorker?.port.postMessage({ kind: 'end' } satisfies DiskOrder);
    await Promise.all([this.syncer?.ended, this.diskWorker?.ended]);
  }

  /** What the server before this one had read and not answered comes again, and the kernel tells which unlinked files are still in use. */
  private takeOver(): void {
    resendRequests(DEVICE_FD);
    const unanswered = this.view.inherited?.result;
    const inos = this.view.orphans().filter((ino) => ino !== unanswered);
    if (inos.length > 0) this.send({ kind: 'inUse', inos });
  }

  private send(message: ToHolder): void {
    this.channel.send(message);
  }

  /** The syncer thread, started when it is first needed: most containers never need it. */
  private startSyncer(): MessagePort {
    this.syncer ??= startThread('./sync-worker', (port): SyncWorkerData => {
      return { ring: this.ring.shared, deviceFd: DEVICE_FD, logDir: this.order.logDir!, port };
    });
    return this.syncer.port;
  }

  private startDiskWorker(): MessagePort {
    this.diskWorker ??= startThread('./disk-worker', (port): DiskWorkerData => {
      return { ring: this.ring.shared, logDir: this.order.logDir!, port };
    });
    return this.diskWorker.port;
  }

  /** FSYNC: writes what is pending to the file and leaves the fdatasync and the answer to the syncer; true when all is durable already. */
  private sync(uniqueLow: number, uniqueHigh: number): boolean {
    if (this.log === null) return true;
    this.flush();
    if (this.flushed <= this.ring.syncedSize) return true;
    // Nothing else waits for this thread: on a fast disk the fdatasync is sooner done than handed over.
    if (this.ring.idle && this.here.pays() && awaitDevice(DEVICE_FD, 0) === 0) {
      this.here.measure(() => this.syncHere());
      this.ring.syncedHere(this.flushed, this.flushedSequence, 1);
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

  /** For no request. */
  private syncNow(): void {
    this.here.measure(() => this.syncHere());
    this.ring.syncedHere(this.flushed, this.flushedSequence, 0);
  }

  private postSync(uniqueLow: number, uniqueHigh: number): boolean {
    this.startSyncer();
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
    this.send({ kind: 'report', message: `${message}; nothing more is accepted` });
  }

  /** Called before every read of the device. False ends the loop. */
  private attend(): boolean {
    const pauseMs = this.cleaning?.pauseMs(this.server.session.bytesWritten) ?? 0;
    if (pauseMs > 0) Atomics.wait(NEVER, 0, 0, pauseMs);
    const asked = this.ring.checkIn();
    if (!asked && --this.untilLook > 0) return true;
    this.untilLook = REQUESTS_BETWEEN_LOOKS;
    if (asked) this.heed();
    for (let message = this.channel.poll(); message !== undefined; message = this.channel.poll()) this.hear(message);
    if (this.dueInMs() === 0) this.commitLater();
    else if (this.log !== null && performance.now() - this.tickedAt >= TICK_MS) this.tick();
    return !this.stopped && !this.channel.closed;
  }

  /** Takes what the other threads have done. */
  private heed(): void {
    const wanted = this.ring.takeWanted();
    if ((wanted & WANT.FLUSH) !== 0 && this.log !== null) this.commitLater();
    if ((wanted & WANT.ROOTS) !== 0) this.takeRoots();
    if ((wanted & WANT.DISK) !== 0) this.takeDiskNews();
  }

  /** How long the loop may sleep. It looks around when it wakes. */
  private patienceMs(): number {
    this.untilLook = 0;
    const dueMs = this.dueInMs();
    const idleMs = this.idle.patienceMs(this.server.answered);
    return idleMs < 0 ? dueMs : dueMs < 0 ? idleMs : Math.min(dueMs, idleMs);
  }

  /** Begins what is due beside the requests. A log that fails says so where it is written. */
  private tick(): void {
    this.tickedAt = performance.now();
    if (this.failure !== null) return;
    try {
      this.job.tick();
      this.cleaning?.tick();
    } catch {
      return;
    }
    if (this.ring.wantedHash > this.ring.hashedSize) this.startSyncer();
  }

  /** When what was asked since the last commit must be committed; -1 when there is nothing. */
  private dueInMs(): number {
    if (this.log === null || this.ring.requests === this.requestsCommitted) return -1;
    const now = performance.now();
    if (this.commitAt === 0) this.commitAt = now + COMMIT_INTERVAL_MS;
    return Math.max(0, Math.ceil(this.commitAt - now));
  }

  private hear(message: ToServer): void {
    switch (message.kind) {
      case 'ask':
        return this.serveVerb(message.request);
      case 'writtenBack':
        return this.server.resumeSeek(message.seek);
      case 'gone':
        for (const ino of message.inos) this.view.forget(ino);
        return;
      case 'stop':
        this.stopped = true;
        return;
      case 'mount':
        throw new Error('a server has one mount');
    }
  }

  private commitLater(): void {
    this.requestsCommitted = this.ring.requests;
    this.commitAt = 0;
    try {
      this.flush();
      this.log!.saveMeter();
      this.tick();
      this.syncLater();
    } catch {
      // Reported by `flush`; whoever calls fsync gets the error.
    }
  }

  /** A slice of what is done beside the requests: in idle times one after another, else one now and then. */
  private work(isIdle: boolean): void {
    const now = performance.now();
    const isUrgent = this.cleaning?.isUrgent === true;
    if (!isIdle && now - this.workedAt < (isUrgent ? URGENT_INTERVAL_MS : BUSY_INTERVAL_MS)) return;
    const job = this.job.hasWork ? this.job : this.cleaning;
    job?.step(isUrgent ? URGENT_SLICE_MS : isIdle ? IDLE_SLICE_MS : BUSY_SLICE_MS);
    if (this.ring.wantedHash > this.ring.hashedSize) this.startSyncer();
    this.workedAt = performance.now();
  }

  /** Has what is written made durable: by the syncer if that may take its time. */
  private syncLater(): void {
    const bytes = this.flushed - this.ring.syncedSize;
    if (bytes <= 0) return;
    if (bytes <= SMALL_COMMIT_BYTES && this.ring.idle && this.here.pays()) {
      this.syncNow();
    } else {
      this.postSync(0, 0);
    }
    if (this.flushed - this.log!.hasher.restored.size > HASH_AHEAD_BYTES) this.startSyncer();
  }

  /** Writes everything acknowledged so far; where it ends. */
  private written(): number {
    if (this.log === null) return 0;
    this.flush();
    return this.flushed;
  }

  /** Answers when at least `size` bytes, which are written, are durable and their root is known: at once if that is soon done. */
  private answerWithRoot(id: number, size: number, valueOf: (at: PositionData) => Verbs[keyof Verbs]): void {
    const { log } = this;
    if (log === null) return this.send({ kind: 'answer', id, value: valueOf(NOWHERE) });
    if (this.syncer === undefined && this.flushed - log.hasher.size <= SMALL_COMMIT_BYTES && this.here.pays()) {
      const at = log.position();
      this.flushed = log.written;
      this.flushedSequence = log.lastSequence;
      this.ring.syncedHere(this.flushed, this.flushedSequence, 0);
      const root = Buffer.from(at.root).toString('hex');
      return this.send({ kind: 'answer', id, value: valueOf({ ...at, root }) });
    }
    if (size > this.ring.syncedSize && !this.postSync(0, 0)) {
      throw new PgError('MOUNT_BUSY', 'too many requests wait for the disk', { hint: 'try again' });
    }
    this.startSyncer();
    this.rootWaiters.push({
      size,
      answer: (at) => {
        const root = Buffer.from(at.root).toString('hex');
        this.send({ kind: 'answer', id, value: valueOf({ epoch: log.epoch, size: at.size, root }) });
      },
      fail: (error) => this.send({ kind: 'failure', id, error: toErrorData(error) }),
    });
    this.ring.wantRoot();
  }

  /** The disk worker has done something. */
  private takeDiskNews(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.diskWorker!.port) as { message: DiskNews } | undefined;
      if (received === undefined) break;
      const { message } = received;
      if (message.kind === 'givenBack') {
        this.cleaning?.givenBack(message.failure === null ? null : fromErrorData(message.failure));
      } else {
        const { result } = message;
        this.job.ended(result !== null && 'code' in result ? fromErrorData(result) : result);
        // It was made durable with the log before it, which the syncer has to hear of: it hashes no further.
        this.commitLater();
      }
    }
  }

  /** The syncer has posted roots. */
  private takeRoots(): void {
    for (;;) {
      const received = receiveMessageOnPort(this.syncer!.port) as { message: RootMessage } | undefined;
      if (received === undefined) break;
      if (received.message.kind === 'damage') this.send(received.message);
      else this.settleRoots(received.message);
    }
    if (this.rootWaiters.length > 0) this.ring.wantRoot();
  }

  private settleRoots(message: Exclude<RootMessage, { kind: 'damage' }>): void {
    const waiters = this.rootWaiters;
    this.rootWaiters = [];
    for (const waiter of waiters) {
      if (message.kind === 'noRoot') waiter.fail(fromErrorData(message.error));
      else if (this.ring.failed) waiter.fail(new PgError('MOUNT_FAILED', 'the log cannot be made durable'));
      else if (message.size >= waiter.size) waiter.answer(message);
      else this.rootWaiters.push(waiter);
    }
  }

  private serveVerb(request: ControlRequest): void {
    const { id } = request;
    if (request.verb === 'checkpoint' && this.log !== null) return this.checkpointFor(id);
    if (request.verb === 'clean' && this.cleaning !== undefined) return this.cleanFor(id, this.cleaning);
    try {
      const value = this.verb(request);
      if (value !== undefined) this.send({ kind: 'answer', id, value });
    } catch (error) {
      this.send({ kind: 'failure', id, error: toErrorData(error) });
    }
  }

  /** Answers when a checkpoint of now is installed. */
  private checkpointFor(id: number): void {
    this.job.begin((error) => {
      if (error === null) this.send({ kind: 'answer', id, value: null });
      else this.send({ kind: 'failure', id, error: toErrorData(error) });
    });
  }

  /** Answers when the log is cleaned. */
  private cleanFor(id: number, cleaning: CleaningJob): void {
    cleaning.begin((result) => {
      if (result instanceof Error) this.send({ kind: 'failure', id, error: toErrorData(result) });
      else this.send({ kind: 'answer', id, value: result });
    });
  }

  /** The answer; undefined when it is sent later. */
  private verb({ id, verb, claim, clone, budget }: ControlRequest): Verbs[keyof Verbs] | undefined {
    const { view, log } = this;
    switch (verb) {
      case 'commit':
        return void this.answerWithRoot(id, this.written(), (at) => at);
      case 'position':
        return void this.answerWithRoot(id, 0, (at) => at);
      case 'stats':
        return mountStats(this.server.session, this.ring, view, log, this.failure);
      case 'checkpoint':
        return null;
      case 'clean':
        throw new FsError('EROFS');
      case 'changes':
        return Array.from(view.changes());
      case 'budget':
        log?.meter.setBudget(budget ?? null);
        return null;
      case 'namespace': {
        if (log === null) throw new FsError('EROFS');
        this.flush();
        log.appendNamespace({ ...claim!, root: Buffer.from(claim!.root, 'hex') });
        const size = this.written();
        return void this.answerWithRoot(id, size, (at) => ({ size, root: at.size === size ? at.root : null }));
      }
      case 'merge':
        if (log === null) throw new FsError('EROFS');
        this.flush();
        return view.merge(clone!.dir, clone!.from, clone!.firstIno);
    }
  }

  /** The mount ends; whether the checkpoint's files are free to be written. */
  abandonCheckpoint(): boolean {
    return this.job.abandon();
  }
}

/** The position of a mount that writes nothing. */
const NOWHERE: PositionData = { epoch: 0, size: 0, root: '00'.repeat(32) };
