import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromErrorData, PgError } from '../mdm/error.ts';
import type { Budget } from '../mdm/meter.ts';
import {
  type ControlRequest,
  type MountOrder,
  type PositionData,
  PROTOCOL,
  type ToHolder,
  type Verbs,
} from './control.ts';
import {
  closeDevice,
  detachPath,
  invalidateEntry,
  kernelHolds,
  mountDevice,
  openDevice,
  unmountPath,
  writeBackInode,
} from './fuse/device.ts';
import { AppendBuffer } from './log/append-buffer.ts';
import type { NamespaceClaim } from './log/claim.ts';
import type { FsChange, FsStats, Mount, MountOptions, Position } from './mount.ts';
import { clearMountPoint, tuneDevice } from './mount-point.ts';
import { ownProgram, type ServerExit, ServerProcess, type ServerProgram } from './server-process.ts';
import { createSharedMemory } from './shared-memory.ts';
import type { CleaningReport } from './view/view.ts';

/** A server that ends by a bug, or before it serves, is replaced so often in a row; one that served this long had no part in the row. */
const MOST_STRIKES = 5;
const SOUND_MS = 10_000;
/** The pause before the second and later attempts in a row. */
const STRIKE_PAUSE_MS = 200;
/** How long a new program may take to load before the old one goes on. */
const READY_MS = 15_000;
/** Inodes in one message. */
const GONE_AT_ONCE = 256;

const notMounted = (label: string): PgError => new PgError('NOT_MOUNTED', `${label} is not mounted any more`);

const positionOf = ({ epoch, size, root }: PositionData): Position => ({ epoch, size, root: Buffer.from(root, 'hex') });

/** What a mount to come has already: the device, the memory of its log's buffer, and a process that loads its code. */
export interface PreparedMount {
  deviceFd: number;
  /** Of a writable mount. */
  memoryFd: number | null;
  server: ServerProcess;
}

/** PgError('NO_FUSE'). */
export function prepareServer(writable: boolean): PreparedMount {
  const deviceFd = openDevice();
  const memoryFd = writable ? createSharedMemory('pg-log-buffer', AppendBuffer.BYTES) : null;
  return { deviceFd, memoryFd, server: new ServerProcess(ownProgram(), deviceFd, memoryFd) };
}

/** A question to the server that has no answer yet. The next server is asked again if this one ends before. */
interface Question {
  request: ControlRequest;
  resolve(value: never): void;
  reject(error: Error): void;
}

/**
 * A mount as its holder has it: this process holds the FUSE device and the memory of the log's buffer; another one serves, and is replaced when it ends though the
 * mount goes on.
 */
class HeldMount implements Mount {
  readonly mountPoint: string;
  damage: string | null = null;
  readonly closed: Promise<void>;
  private readonly options: MountOptions;
  private readonly order: MountOrder;
  private readonly deviceFd: number;
  private readonly memoryFd: number | null;
  private program = ownProgram();
  private server: ServerProcess;
  private readonly questions = new Map<number, Question>();
  private nextId = 1;
  private open = true;
  private stopping = false;
  /** The server that was told to make room for the next one. */
  private leaving: { server: ServerProcess; next: ServerProcess } | undefined;
  private restarts = 0;
  private strikes = 0;
  private servingSince = 0;
  private ended: { error: Error | null } | undefined;
  private readonly serving = Promise.withResolvers<void>();
  private readonly onExit = (): void => detachPath(this.mountPoint);

  constructor(options: MountOptions, readOnly: boolean, prepared: PreparedMount) {
    this.mountPoint = options.mountPoint;
    this.options = options;
    this.deviceFd = prepared.deviceFd;
    this.memoryFd = prepared.memoryFd;
    this.server = prepared.server;
    this.order = {
      roots: options.roots,
      treeRoot: options.treeRoot === null ? null : Buffer.from(options.treeRoot).toString('hex'),
      logDir: options.logDir,
      readOnly,
      limit: options.limit ?? null,
      writeback: options.writeback ?? true,
      label: options.label,
      budget: options.budget ?? null,
      agreement: null,
    };
    process.on('exit', this.onExit);
    this.closed = this.hold().then(
      () => this.letGo(null),
      (error: Error) => {
        this.letGo(error);
        throw error;
      },
    );
    this.closed.catch(() => undefined);
  }

  get serverPid(): number {
    return this.server.pid;
  }

  /** Resolves when it serves for the first time; rejects when it never did. */
  start(): Promise<void> {
    return Promise.race([this.serving.promise, this.closed]);
  }

  async commit(): Promise<Position> {
    return positionOf(await this.ask('commit'));
  }

  async position(): Promise<Position> {
    return positionOf(await this.ask('position'));
  }

  async stats(): Promise<FsStats> {
    return { ...(await this.ask('stats')), serverPid: this.server.pid, restarts: this.restarts };
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
    for (const ino of new Set([...inodes, ...names.map((name) => name.dir)])) await writeBackInode(this.deviceFd, ino);
    for (const { dir: holder, name } of names) await invalidateEntry(this.deviceFd, holder, name);
  }

  async setBudget(budget: Budget | null): Promise<void> {
    this.order.budget = budget;
    await this.ask('budget', { budget });
  }

  async appendNamespace(claim: NamespaceClaim): Promise<{ size: number; root: Uint8Array | null }> {
    const data = { ...claim, root: Buffer.from(claim.root).toString('hex') };
    const { size, root } = await this.ask('namespace', { claim: data });
    return { size, root: root === null ? null : Buffer.from(root, 'hex') };
  }

  async replaceServer(program: ServerProgram = this.program): Promise<void> {
    if (!this.open || this.stopping || this.leaving !== undefined) throw notMounted(this.options.label);
    if (this.order.agreement?.resends !== true) throw cannotReplace(this.options.label);
    const { server } = this;
    const next = new ServerProcess(program, this.deviceFd, this.memoryFd);
    const ready = new Promise<string | null>((resolve) => {
      next.onMessage((message) => {
        if (message.kind === 'ready') {
          resolve(message.protocol === PROTOCOL ? null : `it speaks protocol ${message.protocol}, not ${PROTOCOL}`);
        } else this.hear(next, message);
      });
      void next.exited.then(({ code, signal }) => resolve(`it ended (${signal ?? `exit code ${code}`})`));
    });
    const unfit = await Promise.race([ready, sleep(READY_MS, 'it did not get ready', { ref: false })]);
    if (unfit !== null || !this.open || this.server !== server) {
      next.kill();
      throw new PgError(
        'MOUNT_BUSY',
        `${this.options.label}: ${program.script} cannot take over: ${unfit ?? 'the server has just been replaced'}`,
      );
    }
    this.program = program;
    this.leaving = { server, next };
    const { restarts } = this;
    server.send({ kind: 'stop' });
    while (this.open && (this.restarts === restarts || this.servingSince === 0)) await sleep(2);
    if (!this.open) await this.closed;
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
      this.stopping = true;
      this.server.send({ kind: 'stop' });
    }
    await this.closed;
  }

  /** Until the mount has ended: one server after the other. Throws what made the last one end, when it should not have. */
  private async hold(): Promise<void> {
    const first = this.server;
    first.onMessage((message) => this.hear(first, message));
    this.brief();
    for (;;) {
      const { server } = this;
      const exit = await server.exited;
      if (this.ended !== undefined && this.ended.error === null && this.leaving?.server !== server) return;
      const next = this.leaving?.server === server ? this.leaving.next : await this.successor(exit);
      this.leaving = undefined;
      this.ended = undefined;
      this.servingSince = 0;
      this.restarts++;
      this.server = next;
      this.brief();
    }
  }

  /** Tells the server what to serve, and asks it what the one before left unanswered. */
  private brief(): void {
    this.server.send({ kind: 'mount', order: this.order });
    for (const { request, reject } of this.questions.values()) {
      if (request.verb !== 'merge' || this.restarts === 0) this.server.send({ kind: 'ask', request });
      else {
        // It may be done, and must not be done twice.
        this.questions.delete(request.id);
        reject(new PgError('MOUNT_FAILED', `the filesystem's server of ${this.options.label} ended meanwhile`));
      }
    }
    if (this.stopping) this.server.send({ kind: 'stop' });
  }

  /** Another server, after one that ended by itself. Throws when another would be no better. */
  private async successor(exit: ServerExit): Promise<ServerProcess> {
    const how = exit.signal === null ? `exit code ${exit.code}` : exit.signal;
    const error =
      this.ended?.error ??
      new PgError('MOUNT_FAILED', `the filesystem's server of ${this.options.label} ended (${how})`);
    if (this.order.agreement?.resends !== true) throw error;
    const served = this.servingSince > 0;
    // Somebody's kill is no sign of anything, as long as it serves in between.
    if (served && (exit.signal === 'SIGKILL' || performance.now() - this.servingSince > SOUND_MS)) this.strikes = 0;
    else this.strikes++;
    if (this.strikes > MOST_STRIKES) {
      this.report(`its server ended ${this.strikes} times in a row, the last time so: ${error.message}`);
      throw error;
    }
    this.report(`its server ended (${how}); another takes over${this.ended?.error ? `: ${error.message}` : ''}`);
    if (this.strikes > 1) await sleep(STRIKE_PAUSE_MS);
    const next = new ServerProcess(this.program, this.deviceFd, this.memoryFd);
    next.onMessage((message) => this.hear(next, message));
    return next;
  }

  private report(message: string): void {
    const { report, label } = this.options;
    if (report === undefined) console.error(`pg: ${label}: ${message}`);
    else report(message);
  }

  private hear(server: ServerProcess, message: ToHolder): void {
    switch (message.kind) {
      case 'ready':
        return;
      case 'serving':
        this.servingSince = performance.now();
        return this.serving.resolve();
      case 'agreed':
        this.order.agreement = message.agreement;
        return;
      case 'report':
        return this.report(message.message);
      case 'damage':
        // What opening the log found, hashing it finds again.
        if (message.message === this.damage) return;
        return this.report((this.damage = message.message));
      case 'writeBack': {
        const { seek } = message;
        void writeBackInode(this.deviceFd, message.ino).then(() => server.send({ kind: 'writtenBack', seek }));
        return;
      }
      case 'inUse':
        return void this.findGone(server, message.inos);
      case 'ended':
        this.ended = { error: message.error === null ? null : fromErrorData(message.error) };
        return;
      case 'answer':
      case 'failure': {
        const question = this.questions.get(message.id);
        if (question === undefined) return;
        this.questions.delete(message.id);
        if (message.kind === 'answer') question.resolve(message.value as never);
        else question.reject(fromErrorData(message.error));
      }
    }
  }

  private async findGone(server: ServerProcess, inos: readonly number[]): Promise<void> {
    let gone: number[] = [];
    for (const [i, ino] of inos.entries()) {
      if (!this.open) return;
      if (!(await kernelHolds(this.deviceFd, ino))) gone.push(ino);
      if (gone.length < GONE_AT_ONCE && i < inos.length - 1) continue;
      server.send({ kind: 'gone', inos: gone });
      gone = [];
    }
  }

  private ask<V extends keyof Verbs>(verb: V, about: Omit<ControlRequest, 'id' | 'verb'> = {}): Promise<Verbs[V]> {
    if (!this.open) return Promise.reject(notMounted(this.options.label));
    const request: ControlRequest = { id: this.nextId++, verb, ...about };
    return new Promise<Verbs[V]>((resolve, reject) => {
      this.questions.set(request.id, { request, resolve: resolve as (value: never) => void, reject });
      this.server.send({ kind: 'ask', request });
    });
  }

  private letGo(failure: Error | null): void {
    this.open = false;
    process.off('exit', this.onExit);
    if (failure !== null) detachPath(this.mountPoint);
    closeDevice(this.deviceFd);
    if (this.memoryFd !== null) closeSync(this.memoryFd);
    const error = failure ?? notMounted(this.options.label);
    for (const { reject } of this.questions.values()) reject(error);
    this.questions.clear();
  }
}

function cannotReplace(label: string): PgError {
  return new PgError(
    'MOUNT_BUSY',
    `the server of ${label} cannot be replaced: this kernel does not send requests again`,
    {
      hint: 'Linux 6.9 or later can; or stop the container and start it again',
    },
  );
}

/** Mounts and serves; see `startMount`. */
export async function mountAndServe(options: MountOptions, ready?: PreparedMount): Promise<Mount> {
  const readOnly = options.readOnly === true || options.logDir === null;
  assert.ok(readOnly || options.limit === undefined, 'the past is not written');
  assert.ok(ready === undefined || !readOnly, 'what was prepared to be written is mounted read-only');
  const prepared = ready ?? prepareServer(!readOnly);
  try {
    const { mountPoint, label, noSuid = false, noDev = false } = options;
    clearMountPoint(mountPoint);
    mountDevice(prepared.deviceFd, { mountPoint, source: label, readOnly, noSuid, noDev });
  } catch (error) {
    prepared.server.kill();
    await prepared.server.exited;
    closeDevice(prepared.deviceFd);
    if (prepared.memoryFd !== null) closeSync(prepared.memoryFd);
    throw error;
  }
  const mount = new HeldMount(options, readOnly, prepared);
  await mount.start();
  await tuneDevice(options.mountPoint);
  return mount;
}
