import assert from 'node:assert/strict';
import { readFileSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { Worker } from 'node:worker_threads';
import { fromErrorData, PgError, type PgErrorData, toErrorData } from '../mdm/error.ts';
import { siblingModule } from '../store/threads.ts';
import { CheckpointSink } from './checkpoint-sink.ts';
import type { ControlMessage, ControlRequest, MountWorkerData, RootMessage, Verbs } from './control.ts';
import {
  closeDevice,
  detachPath,
  invalidateEntry,
  invalidateInode,
  mountDevice,
  openDevice,
  unmountPath,
} from './fuse/device.ts';
import type { Budget } from '../mdm/meter.ts';
import type { NamedCheckpoint } from './log/checkpoint-entry.ts';
import type { NamespaceClaim } from './log/claim.ts';
import { giveBackIn } from './log/reclaim.ts';
import type { FsChange, FsStats, Mount, MountOptions, Position } from './mount.ts';
import { NUDGE_MS, SyncRing, WANT } from './sync-ring.ts';
import type { SyncWorkerData } from './sync-worker.ts';
import type { CleaningReport } from './view/view.ts';

/** How long an acknowledged write may stay in memory when nobody asks for it to be durable (ext4's commit interval). */
const COMMIT_INTERVAL_MS = 5000;
/** How long the end of the process may wait for the serving thread, which may be in the middle of a long request. */
const STOP_MS = 10_000;
/** What the kernel reads ahead of a sequential reader. */
const READ_AHEAD_KIB = 1024;

/** The position of a mount that writes nothing. */
const NOWHERE: Position = { epoch: 0, size: 0, root: new Uint8Array(32) };

const notMounted = (label: string): PgError => new PgError('NOT_MOUNTED', `${label} is not mounted any more`);

/** A mount as its controller sees it: the serving thread behind a message port. */
class RunningMount implements Mount {
  readonly mountPoint: string;
  damage: string | null = null;
  readonly closed: Promise<void>;
  private readonly label: string;
  private readonly deviceFd: number;
  private readonly worker: Worker;
  private readonly syncer: Worker | null;
  private readonly ring: SyncRing;
  private readonly waiting = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  private readonly rootWaiters: {
    resolve: (at: { size: number; root: Uint8Array }) => void;
    reject: (error: Error) => void;
  }[] = [];
  private readonly sink: CheckpointSink | undefined;
  private nextId = 1;
  private open = true;
  private readonly onExit = (): void => this.abandon();

  constructor(
    options: MountOptions,
    deviceFd: number,
    worker: Worker,
    syncer: Worker | null,
    ring: SyncRing,
    serving: () => void,
  ) {
    this.mountPoint = options.mountPoint;
    this.label = options.label;
    this.deviceFd = deviceFd;
    this.worker = worker;
    this.syncer = syncer;
    this.ring = ring;
    if (options.logDir !== null && syncer !== null)
      this.sink = new CheckpointSink(options.logDir, (result) => this.checkpointed(result));
    const report = options.report ?? ((message: string) => console.error(`pg: ${options.label}: ${message}`));
    process.on('exit', this.onExit);
    const syncerEnded = Promise.withResolvers<void>();
    if (syncer === null) syncerEnded.resolve();
    let failure: Error | null = null;
    syncer?.on('message', (message: RootMessage) => {
      if (message.kind === 'damage') report((this.damage = message.message));
      else this.settleRoots(message);
    });
    syncer?.on('exit', () => syncerEnded.resolve());
    // Nobody answers FSYNC any more: the mount must end.
    syncer?.on('error', (error) => {
      failure = error;
      this.abandon();
    });
    worker.on('message', (message: ControlMessage) => {
      if (message.kind === 'serving') serving();
      else if (message.kind === 'report') report(message.message);
      else if (message.kind === 'damage') report((this.damage = message.message));
      else if (message.kind === 'checkpoint') this.sink?.take(message.step);
      else if (message.kind === 'giveBack') this.giveBack(options.logDir!, message.sectors);
      else if (message.kind === 'ended') failure ??= message.error === null ? null : fromErrorData(message.error);
      else this.settle(message);
    });
    worker.on('error', (error) => (failure = error));
    const workerEnded = new Promise<void>((resolve) => worker.on('exit', () => resolve()));
    this.closed = workerEnded.then(async () => {
      this.ended(failure);
      ring.stop();
      await syncerEnded.promise;
      await this.sink?.settled;
      closeDevice(deviceFd);
      if (failure !== null) throw failure;
    });
    this.closed.catch(() => undefined);
  }

  async commit(): Promise<Position> {
    const { epoch, size } = await this.ask('commit');
    return this.syncer === null ? NOWHERE : { epoch, ...(await this.root(size)) };
  }

  async position(): Promise<Position> {
    if (this.syncer === null) return NOWHERE;
    return { epoch: await this.ask('epoch'), ...(await this.root(0)) };
  }

  stats(): Promise<FsStats> {
    return this.ask('stats');
  }

  async checkpoint(): Promise<void> {
    await this.ask('checkpoint');
  }

  clean(): Promise<CleaningReport> {
    return this.ask('clean');
  }

  changes(): Promise<FsChange[]> {
    return this.ask('changes');
  }

  async merge(dir: string, from: number, firstIno: number): Promise<void> {
    const { inodes, names } = await this.ask('merge', { clone: { dir, from, firstIno } });
    await this.commit();
    for (const ino of new Set([...inodes, ...names.map((name) => name.dir)])) invalidateInode(this.deviceFd, ino);
    for (const { dir: holder, name } of names) invalidateEntry(this.deviceFd, holder, name);
  }

  async setBudget(budget: Budget | null): Promise<void> {
    await this.ask('budget', { budget });
  }

  async appendNamespace(claim: NamespaceClaim): Promise<{ size: number; root: Uint8Array | null }> {
    const { size } = await this.ask('namespace', { claim });
    const at = await this.root(size);
    return { size, root: at.size === size ? at.root : null };
  }

  async unmount(lazy = false): Promise<void> {
    if (!this.open) return this.closed;
    const error = await unmountPath(this.mountPoint, lazy);
    if (error === 'EBUSY') {
      throw new PgError('MOUNT_BUSY', `${this.mountPoint} is in use`, {
        hint: `see who uses it with: fuser -vm ${this.mountPoint}`,
      });
    }
    // EINVAL, ENOENT: somebody unmounted it before us; the server ends, or will with the last user.
    if (lazy) return;
    await this.closed;
  }

  async end(): Promise<void> {
    if (this.open) {
      detachPath(this.mountPoint);
      this.ring.want(WANT.STOP);
      this.wake();
    }
    await this.closed;
  }

  /** The root of all that is durable, once that is at least `size` bytes. */
  private async root(size: number): Promise<{ size: number; root: Uint8Array }> {
    for (;;) {
      if (!this.open) throw notMounted(this.label);
      if (this.ring.failed) throw new PgError('MOUNT_FAILED', `${this.label}: the log cannot be made durable`);
      const root = await new Promise<{ size: number; root: Uint8Array }>((resolve, reject) => {
        this.rootWaiters.push({ resolve, reject });
        this.ring.wantRoot();
      });
      if (root.size >= size) return root;
    }
  }

  private settleRoots(message: Exclude<RootMessage, { kind: 'damage' }>): void {
    const waiters = this.rootWaiters.splice(0);
    for (const waiter of waiters) {
      if (message.kind === 'root') waiter.resolve({ size: message.size, root: message.root });
      else waiter.reject(fromErrorData(message.error));
    }
  }

  private ask<V extends keyof Verbs>(verb: V, about: Omit<ControlRequest, 'id' | 'verb'> = {}): Promise<Verbs[V]> {
    if (!this.open) return Promise.reject(notMounted(this.label));
    const id = this.nextId++;
    return new Promise<Verbs[V]>((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (value: never) => void, reject });
      this.worker.postMessage({ id, verb, ...about } satisfies ControlRequest);
      this.wake();
    });
  }

  /** Has the serving thread look at its messages; again until it does. */
  private wake(): void {
    this.ring.want(WANT.MESSAGES);
    const again = (): void => {
      if (this.open && !this.ring.nudge()) setTimeout(again, NUDGE_MS);
    };
    setTimeout(again, NUDGE_MS);
  }

  /** Gives sectors of the log back, which waits for the disk, and tells the serving thread; one that ends does not hear it. */
  private giveBack(logDir: string, sectors: number[]): void {
    let failure: PgErrorData | null = null;
    try {
      giveBackIn(logDir, sectors);
    } catch (error) {
      failure = toErrorData(error);
    }
    this.ask('givenBack', { failure }).catch(() => undefined);
  }

  /** Tells the serving thread what has become of its checkpoint; one that ends does not hear it. */
  private checkpointed(result: NamedCheckpoint | Error | null): void {
    this.ring.sinkBusy = false;
    this.ask('checkpointed', { checkpoint: result instanceof Error ? toErrorData(result) : result }).catch(
      () => undefined,
    );
  }

  private settle(message: ControlMessage & { kind: 'answer' | 'failure' }): void {
    const waiter = this.waiting.get(message.id);
    if (waiter === undefined) return;
    this.waiting.delete(message.id);
    if (message.kind === 'answer') waiter.resolve(message.value as never);
    else waiter.reject(fromErrorData(message.error));
  }

  private ended(failure: Error | null): void {
    this.open = false;
    process.off('exit', this.onExit);
    if (failure !== null) detachPath(this.mountPoint);
    const error = failure ?? notMounted(this.label);
    for (const waiter of this.waiting.values()) waiter.reject(error);
    this.waiting.clear();
    for (const waiter of this.rootWaiters.splice(0)) waiter.reject(error);
  }

  /** The process ends: a thread blocked in the device would keep it from ending. */
  private abandon(): void {
    if (!this.open) return;
    detachPath(this.mountPoint);
    this.ring.want(WANT.STOP);
    this.ring.nudgeUntilTaken(STOP_MS);
    this.ring.stop();
  }
}

/** The threads of a mount: running, their code loaded, waiting for what they are to serve. */
export interface MountThreads {
  server: Worker;
  /** Of a writable mount. */
  syncer: Worker | null;
}

/** Starts the threads of a mount to come; see `prepareMount`. */
export function startThreads(writable: boolean): MountThreads {
  return {
    server: new Worker(siblingModule(import.meta.url, './mount-worker'), { name: 'pg-fs' }),
    syncer: writable ? new Worker(siblingModule(import.meta.url, './sync-worker'), { name: 'pg-sync' }) : null,
  };
}

/** Mounts and serves; see `startMount`. */
export async function mountAndServe(options: MountOptions, prepared?: MountThreads): Promise<Mount> {
  const readOnly = options.readOnly === true || options.logDir === null;
  assert.ok(readOnly || options.limit === undefined, 'the past is not written');
  assert.ok(prepared === undefined || !readOnly, 'what was prepared to be written is mounted read-only');
  const { server, syncer } = prepared ?? startThreads(!readOnly);
  const ring = new SyncRing();
  let deviceFd: number;
  try {
    deviceFd = mounted(options, readOnly);
  } catch (error) {
    await Promise.all([server.terminate(), syncer?.terminate()]);
    throw error;
  }
  server.postMessage({
    roots: options.roots,
    treeRoot: options.treeRoot,
    logDir: options.logDir,
    readOnly,
    limit: options.limit ?? null,
    writeback: options.writeback ?? true,
    deviceFd,
    ring: ring.shared,
    budget: options.budget ?? null,
  } satisfies MountWorkerData);
  syncer?.postMessage({
    ring: ring.shared,
    deviceFd,
    logDir: options.logDir!,
    commitIntervalMs: COMMIT_INTERVAL_MS,
  } satisfies SyncWorkerData);
  const serving = Promise.withResolvers<void>();
  const mount = new RunningMount(options, deviceFd, server, syncer, ring, serving.resolve);
  await Promise.race([serving.promise, mount.closed]);
  tuneDevice(options.mountPoint);
  return mount;
}

/** Mounts a new device, and returns it. */
function mounted(options: MountOptions, readOnly: boolean): number {
  clearMountPoint(options.mountPoint);
  const deviceFd = openDevice();
  try {
    const { mountPoint, label, noSuid = false, noDev = false } = options;
    mountDevice(deviceFd, { mountPoint, source: label, readOnly, noSuid, noDev });
    return deviceFd;
  } catch (error) {
    closeDevice(deviceFd);
    throw error;
  }
}

/** The mount point must be a directory; a dead mount on it is detached, a live one of ours is refused. */
function clearMountPoint(mountPoint: string): void {
  for (let dead = 0; ; dead++) {
    try {
      // A dead FUSE mount answers stat(2) out of the kernel's cache, statfs(2) it does not.
      statfsSync(mountPoint);
      const at = statSync(mountPoint);
      if (!at.isDirectory()) throw new PgError('MOUNT_POINT', `${mountPoint} is not a directory`);
      if (at.dev !== statSync(dirname(mountPoint)).dev && isOurs(mountPoint)) {
        throw new PgError('MOUNT_POINT', `something of pg is mounted on ${mountPoint} already`, {
          hint: `pg umount ${mountPoint}`,
        });
      }
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOTCONN' && dead < 8) {
        detachPath(mountPoint);
        continue;
      }
      if (error instanceof PgError) throw error;
      throw new PgError('MOUNT_POINT', `cannot mount on ${mountPoint}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/** Whether the mount on top of this path is a filesystem of pg (proc(5), mountinfo: field 5 is the mount point, the type follows ` - `). */
function isOurs(mountPoint: string): boolean {
  const path = mountPoint.replaceAll(/[\\ \t\n]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const last = lines.findLast((line) => line.split(' ')[4] === path);
  return last !== undefined && last.includes(' - fuse.pg ');
}

/** Lets the kernel read further ahead, and hold as many dirty pages for this mount as for any disk. Best effort: sysfs may be read-only. */
function tuneDevice(mountPoint: string): void {
  try {
    const { dev } = statSync(mountPoint);
    const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
    const bdi = `/sys/class/bdi/${(dev >>> 8) & 0xfff}:${minor}`;
    writeFileSync(`${bdi}/read_ahead_kb`, String(READ_AHEAD_KIB));
    writeFileSync(`${bdi}/strict_limit`, '0');
    writeFileSync(`${bdi}/max_ratio`, '100');
  } catch {
    // Slower, not wrong.
  }
}
