import { setTimeout as sleep } from 'node:timers/promises';
import type { Connection } from '../grid/connection.ts';
import { dial } from '../grid/dial.ts';
import { bytesOf, flagOf, mapOf, textOf, uintOf, type Body } from '../grid/envelope.ts';
import { loadIdentity } from '../grid/identity.ts';
import { planImage, shipImage, type ImagePlan } from '../grid/image-offer.ts';
import { findLacking, shipLacking } from '../grid/contents-offer.ts';
import { getPeer, type Peer } from '../grid/peers.ts';
import { readMeter } from '../fs/log/meter-file.ts';
import { isPgError, PgError, toErrorData } from '../mdm/error.ts';
import { loadImage, type ImageRecord } from '../layers/images.ts';
import { openStore, type Store } from '../store/store.ts';
import { startContainer } from './containers.ts';
import { connectShim } from './control.ts';
import { waitLock, type Lock } from './lock.ts';
import { closedLogEnd, LogShipper, type LogEnd } from './migrate-log.ts';
import type { MoveOptions, MovePlan, MoveReport } from './migrate-report.ts';
import { openRelease, signRelease } from './migrate-release.ts';
import {
  movingTo,
  moveLockPath,
  readOwnership,
  requireOwner,
  changeOwnership,
  type Ownership,
  type SignedRelease,
} from './migrate-state.ts';
import { resolveContainer } from './names.ts';
import { lockPath, logDirOf, readRecord, type ContainerRecord, type ContainerState } from './record.ts';
import { currentState } from './remains.ts';
import { type Phase, Trace } from './trace.ts';

/** The most a settled hand-over is waited for when the connection breaks at the wrong moment: attempts, and the pause between. */
const SETTLE_ATTEMPTS = 5;
const SETTLE_PAUSE_MS = 1000;
const LOCK_WAIT_MS = 15_000;

/** What would be shipped, and whether the peer would take it; nothing is changed on either side. */
export async function planMove(options: Omit<MoveOptions, 'stopTimeoutSec' | 'say'>): Promise<MovePlan> {
  const move = await Move.open({ ...options, stopTimeoutSec: null, say: () => undefined });
  try {
    return await move.plan();
  } finally {
    await move.close();
  }
}

/**
 * Moves a container to a peer: ships what the peer lacks of the image and of the log, stops the container, ships the tail, compares roots, releases it
 * durably, and has the peer start it. Whatever fails before the release is written leaves the container here, running if it ran. Called again
 * for a container that was released but not confirmed, it settles that.
 * Errors: those of `dial` and of the peer's checks; CONTAINER_MOVED; MOVE_UNDER_WAY; MOVE_UNSETTLED: released, and the peer does not answer.
 */
export async function moveOut(options: MoveOptions): Promise<MoveReport> {
  const move = await Move.open(options);
  try {
    return await move.run();
  } finally {
    await move.close();
  }
}

class Move {
  readonly #options: MoveOptions;
  readonly #peer: Peer;
  readonly #record: ContainerRecord;
  readonly #store: Store;
  readonly #moveLock: Lock;
  readonly #image: ImageRecord | undefined;
  readonly #treeRoot: Uint8Array | null;
  #connection: Connection;
  #rounds = 0;
  #stoppedAt: number | null = null;
  /** What the time without the container goes to. */
  readonly #down = new Trace();
  #wireBytes = 0;
  #logBytes = 0;
  #sectors = 0;

  private constructor(options: MoveOptions, peer: Peer, record: ContainerRecord, lock: Lock, connection: Connection) {
    this.#options = options;
    this.#peer = peer;
    this.#record = record;
    this.#moveLock = lock;
    this.#connection = connection;
    this.#store = openStore(options.roots);
    this.#image = record.image.id === '' ? undefined : loadImage(this.#store, imageKey(record.image.id));
    this.#treeRoot = record.treeRoot === null ? null : Buffer.from(record.treeRoot, 'hex');
  }

  static async open(options: MoveOptions): Promise<Move> {
    const { roots } = options;
    const record = readRecord(roots, resolveContainer(roots, options.container));
    const peer = getPeer(roots, options.peer);
    // The daemon may be settling it at this moment.
    const inDoubt = readOwnership(roots, record.id).role === 'released';
    const lock = await waitLock(moveLockPath(roots, record.id), inDoubt ? LOCK_WAIT_MS : 0);
    if (lock === undefined) {
      throw new PgError('MOVE_UNDER_WAY', `container ${record.name} is being moved by another command`);
    }
    try {
      return new Move(options, peer, record, lock, await dial(roots, peer));
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#connection.close();
    this.#moveLock.release();
    await this.#store.close();
  }

  async plan(): Promise<MovePlan> {
    const { roots } = this.#options;
    const ownership = readOwnership(roots, this.#record.id);
    if (ownership.role !== 'owner') requireOwner(roots, this.#record.id, this.#record.name);
    const running = await this.#isRunning();
    const image = await this.#planImage();
    const logSize = await this.#logSize(running);
    const replica = await this.#prepare(ownership.epoch, running, image.lacking.bytes + logSize, true);
    const shipper = new LogShipper(this.#connection, roots, this.#record.id, replica);
    const { lacking } = image;
    return {
      container: this.#record.name,
      peer: this.#peer.name,
      running,
      sectors: lacking.sectors.length,
      contents: lacking.contents.length,
      nodes: lacking.nodes.length,
      imageBytes: lacking.bytes,
      logBytes: shipper.missing(logSize),
      logSize,
      notes: this.#notes(),
    };
  }

  async run(): Promise<MoveReport> {
    const { roots } = this.#options;
    const ownership = readOwnership(roots, this.#record.id);
    if (ownership.role === 'released' && !ownership.settled) return this.#resume(ownership);
    if (ownership.role !== 'owner') requireOwner(roots, this.#record.id, this.#record.name);
    const running = await this.#isRunning();
    const shipper = await this.#preCopy(ownership.epoch, running);
    changeOwnership(roots, this.#record.id, () => ({ moving: movingTo(this.#peer.name, running) }));
    let release: SignedRelease;
    let end: LogEnd;
    try {
      if (running) await this.#stop();
      const lock = await this.#containerLock();
      this.#down.mark('stopped');
      try {
        end = await closedLogEnd(roots, this.#record.id);
        this.#down.mark('rooted');
        await shipper.shipTo(end.size, this.#options.progress, 'log, tail', this.#options.signal);
        this.#down.mark('tail');
        await this.#seal(end, ownership.epoch);
        this.#down.mark('sealed');
        this.#options.signal.throwIfAborted();
        release = this.#release(end, ownership.epoch + 1);
      } finally {
        lock.release();
      }
    } catch (error) {
      await this.#rollBack(running);
      throw error;
    }
    this.#logBytes += shipper.sentBytes;
    return this.#settle(release, end, running, true);
  }

  /** Everything that can be done while the container runs. */
  async #preCopy(epoch: number, running: boolean): Promise<LogShipper> {
    const { roots, progress, signal } = this.#options;
    const image = await this.#planImage();
    const logSize = await this.#logSize(running);
    const replica = await this.#prepare(epoch, running, image.lacking.bytes + logSize, false);
    await this.#shipImage(image);
    const shipper = new LogShipper(this.#connection, roots, this.#record.id, replica);
    if (running) await this.#checkpoint();
    this.#rounds = await shipper.rounds(() => this.#logSize(running), progress, signal);
    return shipper;
  }

  async #planImage(): Promise<ImagePlan> {
    if (this.#image !== undefined) return planImage(this.#connection, this.#store, this.#image);
    // Removed by `pg rmi --force` while the container was there: its tree still is.
    return { known: false, lacking: await findLacking(this.#connection, this.#store, this.#treeRoot, []) };
  }

  async #shipImage(plan: ImagePlan): Promise<void> {
    const { progress, signal } = this.#options;
    if (this.#image !== undefined) await shipImage(this.#connection, this.#store, this.#image, plan, progress, signal);
    else await shipLacking(this.#connection, this.#store, plan.lacking, progress, signal);
    this.#sectors = plan.lacking.sectors.length;
  }

  #prepare(epoch: number, running: boolean, bytes: number, dry: boolean): Promise<Body> {
    const body = {
      record: JSON.stringify(this.#record),
      epoch,
      running,
      platform: this.#image?.platform ?? '',
      bytes,
      dry,
    };
    return this.#connection.request('migrate', 'prepare', body).then((answer) => answer.body);
  }

  async #isRunning(): Promise<boolean> {
    const { status } = await currentState(this.#options.roots, this.#record.id);
    return status === 'running' || status === 'restarting';
  }

  /** How long the log is, after committing what a running container has written. */
  async #logSize(running: boolean): Promise<number> {
    const { roots } = this.#options;
    const shim = running ? await connectShim(roots, this.#record.id) : undefined;
    if (shim === undefined) {
      const lock = await this.#containerLock();
      try {
        return (await closedLogEnd(roots, this.#record.id)).size;
      } finally {
        lock.release();
      }
    }
    try {
      return ((await shim.request({ op: 'commit' })) as NonNullable<ContainerState['position']>).size;
    } finally {
      shim.close();
    }
  }

  /** With a fresh checkpoint there is next to nothing to write when the container is stopped. */
  async #checkpoint(): Promise<void> {
    const shim = await connectShim(this.#options.roots, this.#record.id);
    await shim?.request({ op: 'checkpoint' }).finally(() => shim.close());
  }

  async #stop(): Promise<void> {
    this.#options.say(`stopping ${this.#record.name} (its memory does not travel)`);
    this.#stoppedAt = performance.now();
    const shim = await connectShim(this.#options.roots, this.#record.id);
    if (shim === undefined) return;
    try {
      await shim.request({ op: 'stop', signal: null, timeoutSec: this.#options.stopTimeoutSec });
    } catch (error) {
      // A shim that has ended meanwhile has stopped the container.
      if (!(error instanceof Error && 'shimGone' in error)) throw error;
    } finally {
      shim.close();
    }
  }

  /** The lock under which no shim can run the container. */
  async #containerLock(): Promise<Lock> {
    const lock = await waitLock(lockPath(this.#options.roots, this.#record.id), LOCK_WAIT_MS);
    if (lock === undefined) {
      throw new PgError(
        'CONTAINER_BUSY',
        `container ${this.#record.name} is in use by another command, or was started again`,
      );
    }
    return lock;
  }

  async #seal(end: LogEnd, epoch: number): Promise<void> {
    const meter = readMeter(logDirOf(this.#options.roots, this.#record.id));
    const { body } = await this.#connection.request('migrate', 'seal', {
      epoch,
      size: end.size,
      root: end.root,
      meter: meter === undefined ? '' : JSON.stringify(meter),
    });
    const isEqual =
      uintOf(body, 'epoch') === epoch &&
      uintOf(body, 'size') === end.size &&
      Buffer.compare(bytesOf(body, 'root', 32), end.root) === 0;
    if (!isEqual)
      throw new PgError('ROOTS_DIFFER', `the copy on ${this.#peer.name} has another root: the container stays here`);
  }

  /** The point of no return: durable when this returns. */
  #release(end: LogEnd, epoch: number): SignedRelease {
    const { roots } = this.#options;
    const { id } = this.#record;
    const identity = loadIdentity(roots);
    const release = signRelease(identity, { container: id, epoch, size: end.size, root: end.root, to: this.#peer.id });
    const peer = { id: this.#peer.id, name: this.#peer.name };
    changeOwnership(roots, id, (now) => {
      if (now.role !== 'owner' || now.epoch !== epoch - 1) {
        throw new PgError('EPOCH_OLD', `container ${this.#record.name} does not belong to this node any more`);
      }
      return { epoch, role: 'released', peer, release, settled: false, startDue: now.moving?.wasRunning ?? false };
    });
    return release;
  }

  /** The move comes to nothing: the container is as it was. */
  async #rollBack(wasRunning: boolean): Promise<void> {
    const { roots, say } = this.#options;
    changeOwnership(roots, this.#record.id, () => ({ moving: null }));
    if (!wasRunning || (await this.#isRunning())) return;
    say(`the move failed: starting ${this.#record.name} here again`);
    try {
      await startContainer(roots, this.#record.id);
    } catch (error) {
      // The reason why the move failed is what the caller must see; this one shows in `pg ps -a` and here.
      say(`${this.#record.name} does not start: ${toErrorData(error).message}`);
    }
  }

  /**
   * The container is released: sees to it that the peer knows, and takes over. Asking again is safe, so a broken connection is made anew.
   * `sealed`: this connection has just sealed the copy that the release is of.
   */
  async #settle(release: SignedRelease, end: LogEnd, start: boolean, sealed: boolean): Promise<MoveReport> {
    const { roots } = this.#options;
    for (let attempt = 1; ; attempt++) {
      try {
        if (attempt > 1) await this.#redial();
        const isSealed = attempt === 1 && sealed;
        if (!isSealed && (await this.#hasTakenOver(release))) break;
        if (!isSealed) await this.#deliver(release, end, start);
        await this.#connection.request('migrate', 'hand-over', { ...release, start });
        this.#down.mark('handed over');
        break;
      } catch (error) {
        if (!isPgError(error, 'PEER_GONE') && !isPgError(error, 'PEER_UNREACHABLE')) throw this.#unsettled(error);
        if (attempt === SETTLE_ATTEMPTS || this.#options.signal.aborted) throw this.#unsettled(error);
        await sleep(SETTLE_PAUSE_MS);
      }
    }
    const { epoch } = openRelease(release);
    changeOwnership(roots, this.#record.id, (now) => {
      // The peer may have given it back meanwhile.
      if (now.role !== 'released' || now.epoch !== epoch) return undefined;
      return { settled: true, moving: null, startDue: false };
    });
    return this.#report(epoch, end, start);
  }

  /** Everything up to the seal, for a container that is released already. */
  async #deliver(release: SignedRelease, end: LogEnd, start: boolean): Promise<void> {
    const { roots, progress, signal } = this.#options;
    const epoch = openRelease(release).epoch - 1;
    const image = await this.#planImage();
    const replica = await this.#prepare(epoch, start, image.lacking.bytes + end.size, false);
    await this.#shipImage(image);
    const shipper = new LogShipper(this.#connection, roots, this.#record.id, replica);
    await shipper.shipTo(end.size, progress, 'log', signal);
    this.#logBytes += shipper.sentBytes;
    await this.#seal(end, epoch);
  }

  async #redial(): Promise<void> {
    this.#countTraffic();
    this.#connection.close();
    this.#connection = await dial(this.#options.roots, this.#peer);
  }

  /** Whether the peer owns the container under this release, or has handed it on since. */
  async #hasTakenOver(release: SignedRelease): Promise<boolean> {
    const { body } = await this.#connection.request('migrate', 'status', { container: this.#record.id });
    return flagOf(body, 'here') && uintOf(body, 'epoch') >= openRelease(release).epoch;
  }

  /** `pg migrate` again after a hand-over whose answer was lost: whatever of it has not been done is done now. */
  async #resume(ownership: Ownership): Promise<MoveReport> {
    const { say } = this.#options;
    const release = ownership.release!;
    const { size, root, to } = openRelease(release);
    if (to !== this.#peer.id) {
      throw new PgError(
        'MOVE_UNSETTLED',
        `container ${this.#record.name} was released to node ${ownership.peer?.name}, which has not confirmed it`,
        {
          hint: `pg migrate ${this.#record.name} ${ownership.peer?.name}`,
        },
      );
    }
    say(`${this.#record.name} was released to ${this.#peer.name} before: settling that`);
    return this.#settle(release, { size, root }, ownership.startDue, false);
  }

  /** Waits until it runs there, and puts the report together. */
  async #report(epoch: number, position: LogEnd, start: boolean): Promise<MoveReport> {
    const { running, error } = start ? await this.#awaitStart() : { running: false, error: null };
    this.#down.mark('started');
    const downtimeMs = this.#stoppedAt === null || !running ? null : performance.now() - this.#stoppedAt;
    this.#countTraffic();
    return {
      container: this.#record.name,
      peer: this.#peer.name,
      epoch,
      position,
      wireBytes: this.#wireBytes,
      logBytes: this.#logBytes,
      sectors: this.#sectors,
      rounds: this.#rounds,
      downtimeMs,
      downPhases: downtimeMs === null ? [] : durations(this.#stoppedAt!, this.#down.phases),
      running,
      startError: error,
      notes: this.#notes(),
    };
  }

  async #awaitStart(): Promise<{ running: boolean; error: PgError | null }> {
    try {
      const { body } = await this.#connection.request('migrate', 'start', { container: this.#record.id });
      const running = flagOf(body, 'running');
      if (body['error'] === undefined) return { running, error: null };
      const error = mapOf(body, 'error');
      return { running, error: new PgError(textOf(error, 'code'), textOf(error, 'message')) };
    } catch (error) {
      const { code, message } = toErrorData(error);
      return { running: false, error: isPgError(error) ? error : new PgError(code, message) };
    }
  }

  #countTraffic(): void {
    const { sentBytes, receivedBytes } = this.#connection.traffic;
    this.#wireBytes += sentBytes + receivedBytes;
  }

  #unsettled(cause: unknown): PgError {
    const { name } = this.#record;
    return new PgError(
      'MOVE_UNSETTLED',
      `container ${name} is released to ${this.#peer.name}, which has not confirmed it: ${toErrorData(cause).message}`,
      {
        hint: `it will not run here again; once ${this.#peer.name} answers: pg migrate ${name} ${this.#peer.name}`,
        cause,
      },
    );
  }

  /** What does not travel. */
  #notes(): string[] {
    const notes = this.#record.config.volumes.map(
      ({ kind, source, target }) =>
        `${kind === 'bind' ? 'the bind mount' : 'the volume'} ${source} on ${target} does not travel: ${this.#peer.name} uses its own`,
    );
    return notes;
  }
}

/** How long each phase took, the first since `startMs` (of `performance.now()`). */
function durations(startMs: number, phases: readonly Phase[]): { name: string; ms: number }[] {
  let before = performance.timeOrigin + startMs;
  return phases.map(({ name, atMs }) => {
    const ms = atMs - before;
    before = atMs;
    return { name, ms };
  });
}

/** Container records have the bare hex digits of an image's id, image records `sha256:` before it. */
const imageKey = (id: string): string => (id.startsWith('sha256:') ? id : `sha256:${id}`);
