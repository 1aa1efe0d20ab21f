import { mkdirSync } from 'node:fs';
import { createServer, Socket } from 'node:net';
import { IdleMemory } from '../fs/idle-memory.ts';
import { prepareMount } from '../fs/mount.ts';
import { PgError, toErrorData } from '../mdm/error.ts';
import { exitWithoutTeardown } from '../store/end-process.ts';
import { containerRunDir, type Roots } from '../store/paths.ts';
import { diskError, isDiskFull } from '../store/sector.ts';
import {
  type AttachOptions,
  ConnectionReader,
  connectShim,
  listenControl,
  type Request,
  type Response,
} from './control.ts';
import { parseRequest } from './control-request.ts';
import { usage, cgroupPids } from './cgroup.ts';
import { type Lock, waitLock } from './lock.ts';
import { becomeSubreaper } from './native.ts';
import { requireOwner } from './migrate-state.ts';
import { type ContainerState, lockPath, readRecord } from './record.ts';
import { cleanUpAfterShim, rootPathOf } from './remains.ts';
import { RunningContainer } from './shim/container.ts';
import { Reaper } from './shim/reaper.ts';
import { Trace } from './trace.ts';

/**
 * The process that one container lives in: it serves the container's root, holds its streams, its network and its log, and outlives the
 * command that started it. Started by shim-process.ts, which talks to it over descriptor 3 as every other command does over the
 * container's socket (control.ts).
 */
const BOOTSTRAP_FD = 3;
/** How long a start waits for the container's last shim to finish its end. */
const LOCK_WAIT_MS = 15_000;
/** How often it looks meanwhile whether another shim has started it. */
const LOCK_LOOK_MS = 50;
/** The arguments and the environment of a command have at most 2 MiB (execve(2)), in JSON a few times that. */
const REQUEST_MAX_BYTES = 1 << 24;
const REFUSAL_LINGER_MS = 2000;

const trace = new Trace();
const idle = new IdleMemory();
let container: RunningContainer | undefined;
/** A container has been taken on: when it ends this process ends, even if it never came to run. */
let lives = false;
/** Settles when the start is over; requests of other commands wait for it. */
let starting: Promise<unknown> | undefined;

/** Answers requests on one connection, one after the other. */
class Connection {
  private readonly socket: Socket;
  private readonly reader: ConnectionReader;
  private busy: Promise<void> = Promise.resolve();

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('error', () => socket.destroy());
    this.reader = new ConnectionReader(
      socket,
      (line) => {
        this.busy = this.busy.then(() => this.answer(line));
      },
      (error) => this.refuse(error),
      REQUEST_MAX_BYTES,
    );
  }

  /** What came is nothing that the protocol has: where the next request begins is not known, so there is none. The rest is read and dropped, so that the answer is. */
  private refuse(error: Error): void {
    const answer: Response = { ok: false, error: toErrorData(error) };
    this.socket.end(`${JSON.stringify(answer)}\n`);
    setTimeout(() => this.socket.destroy(), REFUSAL_LINGER_MS).unref();
  }

  private async answer(line: string): Promise<void> {
    let op = 'request';
    try {
      const request = parseRequest(line);
      op = request.op;
      const { result, after } = await this.perform(request);
      idle.busy();
      this.socket.write(`${JSON.stringify({ ok: true, result: result ?? null })}\n`);
      after?.();
    } catch (error) {
      if (process.env['PG_DEBUG']) process.stderr.write(`${op}: ${(error as Error).stack}\n`);
      const told = isDiskFull(error) ? diskError(error, `container ${container?.record.name ?? ''}`.trimEnd()) : error;
      this.socket.write(`${JSON.stringify({ ok: false, error: toErrorData(told) })}\n`);
    }
  }

  /** The result, and what is to be done once it has been sent. */
  private async perform(request: Request): Promise<{ result?: unknown; after?: () => void }> {
    if (request.op === 'start') {
      const started = this.start(request);
      starting = started.catch(() => {
        // There is no container that would end, and this process with it.
        if (!lives) exitWhenSent();
      });
      return { result: await started };
    }
    await starting;
    const running = container;
    if (running === undefined) throw new PgError('NOT_RUNNING', 'the container is not running');
    switch (request.op) {
      case 'attach':
        this.stream((type, payload) => running.takeFrame(this.socket, type, payload));
        return { after: () => running.attach(this.socket, request.attach) };
      case 'exec':
        return this.exec(running, request.exec, request.attach);
      case 'state':
        return { result: running.state };
      case 'wait':
        return { result: await running.exitCode() };
      case 'kill':
        running.killByUser(request.signal);
        return {};
      case 'stop':
        await running.stop(request.signal, request.timeoutSec);
        return {};
      case 'stats':
        return {
          result: {
            usage: await usage(running.state.cgroups, running.state.initPid),
            filesystem: await running.root.stats(),
          },
        };
      case 'pids':
        return { result: await cgroupPids(running.state.cgroups) };
      case 'commit':
        return { result: await running.commit() };
      case 'changes':
        return { result: await running.root.changes() };
      case 'namespace': {
        const { claim } = request;
        const { size, root } = await running.root.appendNamespace({ ...claim, root: Buffer.from(claim.root, 'hex') });
        return { result: { size, root: root === null ? null : Buffer.from(root).toString('hex') } };
      }
      case 'checkpoint':
        await running.root.checkpoint();
        return {};
      case 'clean':
        return { result: await running.root.clean() };
      case 'budget':
        await running.setIoBudget(request.budget);
        return {};
      case 'replaceFs':
        await running.root.replaceServer(request.program);
        return { result: { serverPid: running.root.serverPid } };
      case 'root':
        return { result: { shimPid: process.pid, path: rootPathOf(running.roots, running.record.id) } };
    }
  }

  private stream(onFrame: (type: number, payload: Buffer) => void): void {
    this.reader.frames(onFrame);
  }

  private async start(request: Request & { op: 'start' }): Promise<unknown> {
    if (starting !== undefined) throw new PgError('ALREADY_RUNNING', 'this shim has a container');
    const { roots, id, attach } = request;
    trace.mark('shim: request');
    if (attach !== null) this.stream((type, payload) => container?.takeFrame(this.socket, type, payload));
    mkdirSync(containerRunDir(roots, id), { recursive: true, mode: 0o700 });
    const { name } = readRecord(roots, id);
    const lock = await lockToStart(roots, id);
    let running: RunningContainer;
    try {
      requireOwner(roots, id, name);
      await cleanUpAfterShim(roots, id);
      // The directory may have gone with what was cleaned up.
      mkdirSync(containerRunDir(roots, id), { recursive: true, mode: 0o700 });
      running = new RunningContainer(roots, id, lock, reaper, trace, startMount);
      await listenControl(roots, id, server);
    } catch (error) {
      lock.release();
      throw error;
    }
    lives = true;
    void running.ended.then(exitWhenSent);
    await running.start(attach === null ? null : { client: this.socket, options: attach });
    container = running;
    return { trace: trace.phases, damage: running.state.logDamage ?? null };
  }

  private async exec(
    running: RunningContainer,
    exec: Parameters<RunningContainer['exec']>[0],
    attach: AttachOptions | null,
  ): Promise<{ result: unknown; after: () => void }> {
    const started = await running.exec(exec, attach, this.socket);
    // The client sends frames only once it has the answer, so it is early enough to expect them now.
    if (attach !== null) this.stream((type, payload) => started.streams.take(this.socket, type, payload));
    return { result: { pid: started.pid }, after: started.begin };
  }
}

/** The container's lock, once its last shim has finished its end. PgError('ALREADY_RUNNING') when another shim has it running; PgError('BUSY'). */
async function lockToStart(roots: Roots, id: string): Promise<Lock> {
  for (const deadline = performance.now() + LOCK_WAIT_MS; performance.now() < deadline;) {
    const lock = await waitLock(lockPath(roots, id), LOCK_LOOK_MS);
    if (lock !== undefined) return lock;
    const other = await connectShim(roots, id);
    // One that starts it just now answers when that is done.
    const state = (await other?.request({ op: 'state' }).catch(() => undefined)) as ContainerState | undefined;
    other?.close();
    if (state?.status === 'running' || state?.status === 'restarting')
      throw new PgError('ALREADY_RUNNING', `container ${id} is running`);
  }
  throw new PgError('BUSY', `container ${id} is in use by another command`, {
    hint: 'is it mounted to be written? grep fuse.pg /proc/mounts, pg umount DIR',
  });
}

/** Everything is over: the process ends when the last answers have left. */
function exitWhenSent(): void {
  server.close();
  const deadline = Date.now() + 2000;
  const look = (): void => {
    if (connections.size === 0 || Date.now() > deadline) process.exit(0);
    setTimeout(look, 2);
  };
  // Answers that are ready now are written before the sockets are ended.
  setImmediate(() => {
    for (const socket of connections) socket.end();
    look();
  });
}

const connections = new Set<Socket>();
function accept(socket: Socket): void {
  connections.add(socket);
  socket.on('close', () => connections.delete(socket));
  void new Connection(socket);
}

exitWithoutTeardown();
// Its messages go to a file: a disk that is full must not end it (an unheard 'error' would be one more message, for ever).
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
// What it makes for the container (/etc/hosts, volumes) is for the container's users, whoever started this.
process.umask(0o022);
// Its threads load their code while the command that started us finds out what is to run.
const startMount = await prepareMount();
becomeSubreaper();
// It lives on when the terminal it was started from is closed, or Ctrl-C is pressed there.
for (const signal of ['SIGHUP', 'SIGINT', 'SIGPIPE'] as const) process.on(signal, () => {});
process.on('uncaughtException', (error) => process.stderr.write(`pg shim ${process.pid}: ${error.stack}\n`));
// The machine is going down, or an administrator asks: the container is stopped in order.
process.on('SIGTERM', () => void (container === undefined ? process.exit(0) : container.stop(null, null)));
const reaper = new Reaper();
const server = createServer(accept);
const bootstrap = new Socket({ fd: BOOTSTRAP_FD, readable: true, writable: true });
bootstrap.on('close', () => {
  // The command ended without asking for anything.
  if (trace.phases.length === 1) process.exit(0);
});
trace.mark('shim: ready');
accept(bootstrap);
