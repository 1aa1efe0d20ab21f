import { mkdir, open, rm, writeFile } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { requirePosition } from '../../fs/log/position-check.ts';
import type { Mount, startMount } from '../../fs/mount.ts';
import { isPgError, PgError, toErrorData } from '../../mdm/error.ts';
import { containerDir, containerRunDir, type Roots } from '../../store/paths.ts';
import { beginAtomic, settleAtomic } from '../atomic.ts';
import { cgroupPaths, oomKills } from '../cgroup.ts';
import { keepRetention } from '../retain.ts';
import type { AttachOptions, ExecOptions } from '../control.ts';
import { findInit, hostCgroup, hostDevices, hostLimits } from '../host.ts';
import type { Lock } from '../lock.ts';
import { mountBudget } from '../prices.ts';
import { removesItself } from '../migrate-state.ts';
import { syncfs } from '../native.ts';
import { connectToBridge, disconnect, publishPorts } from '../network/bridge.ts';
import { writeEtcFiles } from '../network/etc-files.ts';
import { type HeldPorts, holdPorts } from '../network/ports.ts';
import {
  bootId,
  type ContainerRecord,
  type ContainerState,
  type IoBudget,
  logDirOf,
  outputPath,
  readRecord,
  readState,
  writeState,
} from '../record.ts';
import { removeContainerFiles, rootPathOf, runtimeStateDir } from '../remains.ts';
import { readInRoot } from '../rootfs.ts';
import { buildSpec, type HostSide } from '../spec.ts';
import type { Trace } from '../trace.ts';
import { resolveUser, type ResolvedUser } from '../users.ts';
import { prepareVolumes } from '../volumes.ts';
import { signalNumber } from '../signals.ts';
import type { execAtomic } from './atomic-exec.ts';
import { execInContainer, startWithStreams } from './exec.ts';
import { OciRuntime } from './oci.ts';
import { OutputLog, timestamp } from './output-log.ts';
import type { Reaper } from './reaper.ts';
import { restartDelayMs } from './restart.ts';
import { ProcessStreams } from './streams.ts';

const DRAIN_MS = 1000;
/** How long the end waits for users of the mount who are not the container's. */
const LINGER_MS = 1000;

/** One container while it runs: its mount, network, process and streams, and their orderly end. */
export class RunningContainer {
  readonly roots: Roots;
  readonly record: ContainerRecord;
  readonly state: ContainerState;
  /** Resolves when everything has been taken down and the state written. */
  readonly ended: Promise<void>;
  private readonly lock: Lock;
  private readonly startMount: typeof startMount;
  private readonly reaper: Reaper;
  private readonly trace: Trace;
  private readonly runDir: string;
  private readonly runtime: OciRuntime;
  private readonly output: OutputLog;
  private streams: ProcessStreams;
  private mount: Mount | undefined;
  private ports: HeldPorts | undefined;
  private etc: HostSide['etc'] | undefined;
  private hostname = '';
  private resolveEnded: () => void = () => {};
  private exitWaiters: ((code: number) => void)[] = [];
  private cancelRestart: (() => void) | undefined;
  /** Commands that run beside it (atomic-exec.ts), until nothing is left of them. */
  private readonly beside = new Set<Promise<unknown>>();

  /** The caller has the container's lock and has cleaned up after whoever had it before. */
  constructor(roots: Roots, id: string, lock: Lock, reaper: Reaper, trace: Trace, mount: typeof startMount) {
    this.startMount = mount;
    this.roots = roots;
    this.record = readRecord(roots, id);
    this.state = readState(roots, id);
    this.lock = lock;
    this.reaper = reaper;
    this.trace = trace;
    this.runDir = containerRunDir(roots, id);
    this.runtime = new OciRuntime(this.record.config.runtime, runtimeStateDir(roots));
    this.output = new OutputLog(outputPath(roots, id), this.record.config.log);
    this.streams = new ProcessStreams(this.output);
    this.ended = new Promise((resolve) => (this.resolveEnded = resolve));
  }

  /** Starts everything; on failure everything is taken down again and the reason is in the state. */
  async start(attach: { client: Socket; options: AttachOptions } | null): Promise<void> {
    const state = this.state;
    Object.assign(state, {
      shimPid: process.pid,
      bootId: bootId(),
      error: '',
      stoppedByUser: false,
      restartCount: 0,
      wasLost: false,
    });
    try {
      this.save();
      await mkdir(rootPathOf(this.roots, this.record.id), { recursive: true, mode: 0o700 });
      const [mounted, connected] = await Promise.allSettled([this.mountRoot(), this.connect()]);
      for (const step of [mounted, connected]) if (step.status === 'rejected') throw step.reason;
      await this.startProcess(attach);
    } catch (thrown) {
      const error = isQuota(thrown) ? budgetExhausted(this.record, thrown) : thrown;
      const data = toErrorData(error);
      state.error = data.message;
      state.exitCode = data.code === 'COMMAND_NOT_FOUND' ? 127 : data.code === 'COMMAND_NOT_EXECUTABLE' ? 126 : 128;
      await this.takeDown(state.status === 'created' ? 'created' : 'exited');
      throw error;
    }
  }

  private async mountRoot(): Promise<void> {
    const gone = await settleAtomic(this.roots, this.record, false);
    if (gone !== undefined) this.state.position = gone;
    const { position } = this.state;
    let rot: string | undefined;
    if (position !== null) {
      const root = Buffer.from(position.root, 'hex');
      rot = requirePosition(logDirOf(this.roots, this.record.id), { size: position.size, root });
    }
    keepRetention(this.roots, this.record);
    if (this.record.config.atomic === true) await beginAtomic(this.roots, this.record);
    this.mount = await this.startMount({
      roots: this.roots,
      treeRoot: this.record.treeRoot === null ? null : Buffer.from(this.record.treeRoot, 'hex'),
      logDir: logDirOf(this.roots, this.record.id),
      mountPoint: rootPathOf(this.roots, this.record.id),
      label: this.record.name,
      budget: await mountBudget(this.roots, this.record.config.ioBudget ?? null),
    });
    this.mount.closed.catch((error: Error) => process.stderr.write(`${this.record.name}: ${error.message}\n`));
    const damage = this.mount.damage ?? (rot === undefined ? null : `the log is damaged: ${rot}`);
    if (damage !== null) this.state.logDamage = damage;
    this.trace.mark('mount');
  }

  private async connect(): Promise<void> {
    const { config, id } = this.record;
    if (config.network === 'bridge') {
      this.ports = await holdPorts(config.ports);
      const network = await connectToBridge(this.roots, id, config.ports.length > 0);
      this.state.network = network;
      this.ports.forwardTo(network.ip);
      network.ports = this.ports.ports.map((port) => ({ ...port, containerIp: network.ip }));
      this.save();
      await publishPorts(this.roots, network.ports);
    }
    this.hostname = config.hostname;
    this.etc = writeEtcFiles(containerDir(this.roots, id), config, this.hostname, this.state.network);
    this.trace.mark('network');
  }

  private async hostSide(options: AttachOptions | null): Promise<HostSide> {
    const { config, id } = this.record;
    const rootPath = rootPathOf(this.roots, id);
    return {
      rootPath,
      user: await this.userOf(config.user),
      netns: config.network === 'host' ? '' : config.network === 'none' ? 'new' : this.state.network!.netns,
      etc: this.etc!,
      hostname: this.hostname,
      volumeDirs: await prepareVolumes(this.roots, config.volumes, rootPath),
      devices: hostDevices(config),
      initPath: config.init ? findInit() : null,
      ...hostLimits(),
      cgroup: hostCgroup(id),
      terminalSize: config.tty ? (options?.size ?? null) : null,
    };
  }

  private async userOf(spec: string): Promise<ResolvedUser> {
    const rootPath = rootPathOf(this.roots, this.record.id);
    const [passwd, group] = await Promise.all([readInRoot(rootPath, 'etc/passwd'), readInRoot(rootPath, 'etc/group')]);
    return resolveUser(spec, passwd, group, this.record.config.groupAdd);
  }

  /** Writes the bundle and has the runtime start the process. Called again by every restart. */
  private async startProcess(attach: { client: Socket; options: AttachOptions } | null): Promise<void> {
    const { config, id } = this.record;
    const spec = buildSpec(this.record, await this.hostSide(attach?.options ?? null));
    await writeFile(join(this.runDir, 'config.json'), JSON.stringify(spec), { mode: 0o600 });
    this.trace.mark('spec');
    const pid = await startWithStreams(this.streams, config.tty, config.openStdin, (stdio, socket) =>
      this.runtime.run(id, this.runDir, stdio, socket),
    );
    this.trace.mark('runtime');
    const cgroups = await cgroupPaths(pid);
    Object.assign(this.state, {
      status: 'running',
      initPid: pid,
      startedAt: timestamp(),
      exitCode: 0,
      oomKilled: false,
      cgroups,
    });
    this.save();
    if (attach !== null) this.streams.attach(attach.client, attach.options);
    void this.reaper.exitOf(pid).then((exit) => this.processEnded(exit.code));
    // Output is read only after the answer to the command has been sent (the next turn of the loop).
    const { streams } = this;
    setImmediate(() => streams.begin());
  }

  private async processEnded(code: number): Promise<void> {
    const { state, record } = this;
    // The number may be another process's from now on.
    state.initPid = 0;
    state.oomKilled = await oomKills(state.cgroups).then((count) => count > 0);
    state.exitCode = code;
    state.finishedAt = timestamp();
    this.trace.mark('process');
    const delayMs = restartDelayMs(record.config.restart, state, Date.now());
    for (const waiter of this.exitWaiters.splice(0)) waiter(code);
    if (delayMs === null) return this.takeDown('exited');
    state.status = 'restarting';
    state.restartCount++;
    this.save();
    await Promise.all([this.runtime.remove(record.id), this.streams.end(DRAIN_MS)]);
    const cancelled = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), delayMs);
      this.cancelRestart = () => {
        clearTimeout(timer);
        resolve(true);
      };
      if (state.stoppedByUser) this.cancelRestart();
    });
    this.cancelRestart = undefined;
    if (cancelled) return this.takeDown('exited');
    const before = this.streams;
    this.streams = new ProcessStreams(this.output);
    before.handOver(this.streams);
    try {
      await this.startProcess(null);
    } catch (error) {
      state.error = toErrorData(error).message;
      await this.takeDown('exited');
    }
  }

  /** The end, in whatever state the start had come to. Everything that can be is done at once. */
  private async takeDown(status: ContainerState['status']): Promise<void> {
    const { state, record } = this;
    const network = state.network;
    this.ports?.release();
    await Promise.allSettled([
      this.runtime.remove(record.id).then(() => {
        this.trace.mark('runtime removed');
        return this.unmount();
      }),
      this.streams.end(DRAIN_MS).then(() => this.output.close()),
      network === null
        ? undefined
        : disconnect(this.roots, record.id, network).then(() => this.trace.mark('disconnected')),
    ]).then((results) => {
      for (const result of results) {
        if (result.status === 'rejected') process.stderr.write(`${record.name}: ${String(result.reason)}\n`);
      }
    });
    await Promise.allSettled(this.beside);
    await this.settle();
    Object.assign(state, { status, shimPid: 0, initPid: 0, network: null, cgroups: {} });
    if (state.finishedAt < state.startedAt) state.finishedAt = timestamp();
    await this.putAway().catch((error: Error) => process.stderr.write(`${record.name}: ${error.message}\n`));
    this.lock.release();
    this.trace.mark('end');
    for (const waiter of this.exitWaiters.splice(0)) waiter(state.exitCode);
    this.streams.finish({ exitCode: state.exitCode, trace: this.trace.phases });
    this.resolveEnded();
  }

  /** What an atomic run has written stays, or goes. If it cannot go the next start tries again. */
  private async settle(): Promise<void> {
    if (this.record.config.autoRemove) return;
    try {
      const position = await settleAtomic(this.roots, this.record, this.state.exitCode === 0);
      if (position !== undefined) this.state.position = position;
    } catch (error) {
      this.state.error = `what its atomic run wrote cannot be undone: ${toErrorData(error).message}`;
      process.stderr.write(`${this.record.name}: ${this.state.error}\n`);
    }
  }

  /** The last state, and nothing else left. When the disk is full the next command does it (remains.ts). */
  private async putAway(): Promise<void> {
    const removed = removesItself(this.roots, this.record);
    if (!removed) this.save();
    await rm(this.runDir, { recursive: true, force: true });
    if (removed) await removeContainerFiles(this.roots, this.record, true);
  }

  private async unmount(): Promise<void> {
    if (this.mount === undefined) return;
    try {
      // What is about to be removed need not be made durable.
      if (!this.record.config.autoRemove) await this.commit();
    } finally {
      await this.letGo(this.mount);
    }
    this.trace.mark('unmounted');
  }

  /** When this resolves nobody here has the log open any more: only then the container's lock may be released. */
  private async letGo(mount: Mount): Promise<void> {
    const unmounted = mount.unmount().catch(async (error: Error) => {
      if (!isPgError(error, 'MOUNT_BUSY')) throw error;
      await mount.unmount(true);
      await mount.closed;
    });
    // Somebody on the host may be in it, or in the container's own view of it. Everything is durable; he is given a moment.
    await Promise.race([unmounted, sleep(LINGER_MS, undefined, { ref: false })]);
    await mount.end();
  }

  private save(): void {
    writeState(this.roots, this.record.id, this.state);
  }

  /** Flushes the kernel's pages of the root, commits the writable layer; the position goes into the state. */
  async commit(): Promise<NonNullable<ContainerState['position']>> {
    const root = await open(rootPathOf(this.roots, this.record.id), 'r');
    try {
      await syncfs(root.fd);
    } finally {
      await root.close();
    }
    const position = await this.mount!.commit();
    this.state.position = {
      epoch: position.epoch,
      size: position.size,
      root: Buffer.from(position.root).toString('hex'),
    };
    return this.state.position;
  }

  /** Limits what is spent on I/O from now on. */
  async setIoBudget(budget: IoBudget | null): Promise<void> {
    await this.root.setBudget(await mountBudget(this.roots, budget));
    this.record.config.ioBudget = budget;
  }

  /** The view of the writable layer's changes against the image, and the means to checkpoint it. */
  get root(): Mount {
    if (this.mount === undefined) throw notRunning(this.record);
    return this.mount;
  }

  attach(client: Socket, options: AttachOptions): void {
    this.streams.attach(client, options);
  }

  takeFrame(client: Socket, type: number, payload: Buffer): void {
    this.streams.take(client, type, payload);
  }

  /** kill(2) for the container's first process. */
  kill(signal: number): void {
    if (this.state.initPid === 0) throw notRunning(this.record);
    process.kill(this.state.initPid, signal);
  }

  /** `kill` by a command: one that is meant to end the container also ends its restarts. */
  killByUser(signal: number): void {
    if (signal === 9 || signal === signalNumber(this.record.config.stopSignal)) this.state.stoppedByUser = true;
    this.kill(signal);
  }

  /**
   * Stops it for good: the signal, then after the timeout SIGKILL (never when it is negative). Null are the container's own.
   * Resolves when everything has been taken down.
   */
  async stop(givenSignal: number | null, givenTimeoutSec: number | null): Promise<void> {
    const signal = givenSignal ?? signalNumber(this.record.config.stopSignal);
    const timeoutSec = givenTimeoutSec ?? this.record.config.stopTimeoutSec;
    this.state.stoppedByUser = true;
    this.cancelRestart?.();
    if (this.state.initPid !== 0) this.kill(signal);
    const timer =
      timeoutSec < 0
        ? undefined
        : setTimeout(() => {
            if (this.state.initPid !== 0) this.kill(9);
          }, timeoutSec * 1000);
    await this.ended;
    clearTimeout(timer);
  }

  /** The exit code, at the next end of the process (which a restart may follow). */
  exitCode(): Promise<number> {
    return new Promise((resolve) => this.exitWaiters.push(resolve));
  }

  /** Runs a command in the container. */
  async exec(exec: ExecOptions, attach: AttachOptions | null, client: Socket): ReturnType<typeof execInContainer> {
    if (this.state.initPid === 0) throw notRunning(this.record);
    const { config, id } = this.record;
    const resolvedUser = await this.userOf(exec.user ?? config.user);
    if (exec.atomic === true) return this.execAtomic({ ...exec, resolvedUser }, attach, client);
    const place = { id, runDir: this.runDir, config, runtime: this.runtime, reaper: this.reaper };
    return execInContainer(
      place,
      { ...hostLimits(), hostname: this.hostname },
      { ...exec, resolvedUser },
      attach,
      client,
    );
  }

  private async execAtomic(
    exec: Parameters<typeof execAtomic>[1],
    attach: AttachOptions | null,
    client: Socket,
  ): ReturnType<typeof execAtomic> {
    const { roots, record, runtime, reaper, root } = this;
    const host = await this.hostSide(null);
    const { initPid } = this.state;
    const { execAtomic } = await import('./atomic-exec.ts');
    const commit = (): ReturnType<typeof this.commit> => this.commit();
    const started = execAtomic({ roots, record, runtime, reaper, initPid, host, root, commit }, exec, attach, client);
    const ended = started.then(({ exit }) => exit).finally(() => this.beside.delete(ended));
    ended.catch(() => {});
    this.beside.add(ended);
    return started;
  }
}

/** EDQUOT of a read or write in the container's root, which Node has no name for. */
const isQuota = (error: unknown): boolean =>
  error instanceof Error && 'errno' in error && error.errno === -constants.errno.EDQUOT;

function budgetExhausted(record: ContainerRecord, cause: unknown): PgError {
  return new PgError('IO_BUDGET', `the I/O budget of container ${record.name} is exhausted`, {
    hint: `pg inspect ${record.name} shows what was spent; give it more: pg update --io-budget ...`,
    cause,
  });
}

function notRunning(record: ContainerRecord): PgError {
  return new PgError('NOT_RUNNING', `Container ${record.name} is not running`, { hint: `pg start ${record.name}` });
}
