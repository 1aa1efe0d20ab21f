import { existsSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { FollowerThread } from '../fs/follow.ts';
import { openLog } from '../fs/log/log.ts';
import { parseMeter, writeMeter } from '../fs/log/meter-file.ts';
import type { BaseCopy } from '../fs/log/base-copy.ts';
import { openReplica, type Replica } from '../fs/log/replica.ts';
import { syncDirectory } from '../fs/log/disk.ts';
import type { Answer, Message, Service, Services } from '../grid/connection.ts';
import { ContentsTaker } from '../grid/contents-take.ts';
import { copyServices } from '../grid/copies.ts';
import { badMessage, bytesOf, flagOf, textOf, uintOf, type Body } from '../grid/envelope.ts';
import { loadIdentity } from '../grid/identity.ts';
import { imageServices } from '../grid/image-take.ts';
import type { Peer } from '../grid/peers.ts';
import { isPgError, PgError, toErrorData } from '../mdm/error.ts';
import { readNode } from '../layers/tree.ts';
import { containerDir, type Roots } from '../store/paths.ts';
import { isMap } from '../store/shape.ts';
import type { Store } from '../store/store.ts';
import type { ControlClient } from './control.ts';
import { tryLock, type Lock } from './lock.ts';
import { checkArrival, checkOwnership, nameTaken } from './migrate-check.ts';
import { openRelease } from './migrate-release.ts';
import { readOwnership, changeOwnership, type SignedRelease } from './migrate-state.ts';
import { checkName, claimName, releaseName, shortId } from './names.ts';
import {
  lockPath,
  logDirOf,
  readRecord,
  readState,
  recordPath,
  writeRecord,
  writeState,
  type ContainerRecord,
} from './record.ts';
import { containerRecord } from './record-shape.ts';
import { spawnShim } from './shim-process.ts';

/** What the receiving side needs of the daemon. */
export interface Landing {
  roots: Roots;
  store: Store;
  log(line: string): void;
  /**
   * Starts a container that is owned here; resolves when it runs. Concurrent calls for one container are one start. `shim` is one that was
   * spawned in advance.
   */
  start(id: string, shim?: ControlClient): Promise<void>;
  isRunning(id: string): boolean;
}

/** A container on its way in over one connection: from `prepare` to `hand-over`, or to the end of the connection. */
interface Arriving {
  record: ContainerRecord;
  lock: Lock;
  replica: Replica;
  /** Replays the copy while it comes in. */
  follower: FollowerThread | undefined;
  /** The beginning of a cleaned log that is coming. */
  base: BaseCopy | undefined;
  /** Offset that the next bytes of the log belong at. */
  next: number;
  /** For a container that is to run here: a shim, up and waiting, so that starting one is no part of the downtime. */
  shim: ControlClient | undefined;
}

/** The receiving side of moves over one connection (docs/protocols/migrate.md): one container at a time. */
export class MigrateIn {
  readonly services: Services;
  readonly #landing: Landing;
  readonly #peer: Peer;
  readonly #taker: ContentsTaker;
  #arriving: Arriving | undefined;
  /** The start that a hand-over on this connection set off. */
  #starting: { id: string; answer: Promise<Answer> } | undefined;
  /** The last step that was asked for: the next is begun when it is over, in whatever order and however early the peer asks. */
  #steps: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(landing: Landing, peer: Peer) {
    this.#landing = landing;
    this.#peer = peer;
    this.#taker = new ContentsTaker(landing.store, `move from ${peer.name}`);
    const steps: Record<string, Service> = {
      prepare: (message) => this.#prepare(message),
      log: async (message) => this.#takeLog(message),
      base: ({ body }) => this.#takeBase(body),
      'base-checkpoint': async ({ bulk }) => this.#takeOfBase((base) => base.takeCheckpoint(bulk)),
      'base-bytes': async ({ body, bulk }) => this.#takeOfBase((base) => base.takeBytes(uintOf(body, 'offset'), bulk)),
      'base-gone': async ({ body }) =>
        this.#takeOfBase((base) => base.takeGone(uintOf(body, 'sector'), bytesOf(body, 'root', 32))),
      'base-done': async () => this.#finishBase(),
      sync: ({ body }) => this.#sync(body),
      seal: ({ body }) => this.#seal(body),
      'hand-over': ({ body }) => this.#handOver(body),
    };
    const migrate: Record<string, Service> = {
      start: ({ body }) => this.#start(textOf(body, 'container')),
      status: async ({ body }) => this.#status(textOf(body, 'container')),
    };
    for (const [name, step] of Object.entries(steps)) migrate[name] = (message) => this.#inTurn(() => step(message));
    const { store } = landing;
    const contents = { ...this.#taker.services, ...imageServices(store, this.#taker), ...copyServices(store) };
    this.services = { contents, migrate };
  }

  /** The connection has ended. What has come so far stays, as a copy from which the next try goes on. */
  async close(): Promise<void> {
    this.#closed = true;
    // What is under way would otherwise take hold of things that nobody lets go of.
    await this.#steps;
    await this.#leave();
    await this.#taker.close();
  }

  #inTurn(step: () => Promise<Answer>): Promise<Answer> {
    const answer = this.#steps.then(() => {
      if (this.#closed) throw badMessage('the connection has ended');
      return step();
    });
    this.#steps = answer.catch(() => undefined);
    return answer;
  }

  async #leave(): Promise<void> {
    const arriving = this.#arriving;
    if (arriving === undefined) return;
    this.#arriving = undefined;
    // A shim whose connection is closed before it was given a container ends.
    arriving.shim?.close();
    arriving.replica.close();
    // It may be writing a checkpoint, which is nobody else's to write before the lock is free.
    await arriving.follower?.terminate();
    arriving.lock.release();
  }

  #current(): Arriving {
    if (this.#arriving === undefined) throw badMessage('no move has been prepared on this connection');
    return this.#arriving;
  }

  /** Can it come here? With `dry`, that is all; otherwise there is a place for it from now on. */
  async #prepare({ body }: Message): Promise<Answer> {
    const { roots } = this.#landing;
    const record = recordOf(textOf(body, 'record'));
    const epoch = uintOf(body, 'epoch');
    const arrival = {
      record,
      epoch,
      running: flagOf(body, 'running'),
      platform: textOf(body, 'platform'),
      bytes: uintOf(body, 'bytes'),
    };
    mkdirSync(roots.data, { recursive: true, mode: 0o711 });
    await checkArrival(roots, arrival);
    await this.#leave();
    if (flagOf(body, 'dry')) return { body: replicaSize(roots, record.id) };
    const dir = containerDir(roots, record.id);
    if (mkdirSync(dir, { recursive: true, mode: 0o700 }) !== undefined) syncDirectory(dirname(dir));
    const lock = tryLock(lockPath(roots, record.id));
    if (lock === undefined) {
      throw new PgError(
        'CONTAINER_BUSY',
        `the copy of container ${record.name} on the target node is in use by another command`,
      );
    }
    try {
      // Again, now that nobody else can change it.
      checkOwnership(roots, record, epoch);
      // Ownership comes first: at no instant does the record stand there as if the container were this node's.
      changeOwnership(roots, record.id, () => ({
        epoch,
        role: 'replica',
        peer: { id: this.#peer.id, name: this.#peer.name },
        release: null,
        settled: false,
      }));
      if (!(await claimName(roots, record.name, record.id))) throw nameTaken(record.name);
      const before = existsSync(recordPath(roots, record.id)) ? readRecord(roots, record.id).name : record.name;
      writeRecord(roots, record);
      if (before !== record.name) await releaseName(roots, before, record.id);
      const replica = openReplica(logDirOf(roots, record.id), { create: true, epoch });
      const shim = arrival.running ? spawnShim(roots) : undefined;
      this.#arriving = { record, lock, replica, follower: undefined, base: undefined, next: replica.size, shim };
      this.#landing.log(`container ${record.name} is on its way from ${this.#peer.name} (epoch ${epoch})`);
      return { body: { size: replica.size, lastCommit: replica.lastCommit() } };
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  #takeLog({ body, bulk }: Message): Answer {
    const arriving = this.#current();
    const offset = uintOf(body, 'offset');
    if (offset === 0 && arriving.next > 0) {
      if (arriving.follower !== undefined) throw badMessage('the log begins anew in the middle of a move');
      // The owner's log is not a continuation of the copy here: the copy is of another history, and worth nothing.
      arriving.replica.reset();
      arriving.next = 0;
    }
    if (offset !== arriving.next) throw badMessage(`log bytes at ${offset}, wanted at ${arriving.next}`);
    arriving.replica.append(bulk);
    arriving.next += bulk.length;
    return {};
  }

  /** The beginning of a cleaned log comes. What was replayed of the log here counts for nothing: replay goes on from the checkpoint that comes along. */
  async #takeBase(body: Body): Promise<Answer> {
    const arriving = this.#current();
    await arriving.follower?.terminate();
    arriving.follower = undefined;
    arriving.base = arriving.replica.beginBase(uintOf(body, 'from'), uintOf(body, 'size'));
    return {};
  }

  #takeOfBase(take: (base: BaseCopy) => void): Answer {
    const { base } = this.#current();
    if (base === undefined) throw badMessage('a part of a log whose beginning was not announced');
    take(base);
    return {};
  }

  #finishBase(): Answer {
    const arriving = this.#current();
    if (arriving.base === undefined) throw badMessage('the end of what was not announced');
    arriving.replica.finishBase();
    arriving.base = undefined;
    arriving.next = arriving.replica.size;
    return {};
  }

  /** What has come is durable; with `follow`, while the owner still runs the container, it is replayed too, and the next mount is spared that. */
  async #sync(body: Body): Promise<Answer> {
    const arriving = this.#current();
    const { record, replica } = arriving;
    const { size } = replica.sync();
    if (body['follow'] === true && size > 0) {
      arriving.follower ??= new FollowerThread({
        roots: this.#landing.roots,
        treeRoot: treeRootOf(record),
        logDir: logDirOf(this.#landing.roots, record.id),
      });
      await arriving.follower.follow(size, true);
    }
    return { body: { size } };
  }

  /** The log has come whole: durable, replayed, and its root compared. ROOTS_DIFFER otherwise. */
  async #seal(body: Body): Promise<Answer> {
    const { record, replica, follower } = this.#current();
    const { size, root } = replica.sync();
    const wanted = { size: uintOf(body, 'size'), root: bytesOf(body, 'root', 32) };
    if (size !== wanted.size || Buffer.compare(root, wanted.root) !== 0) {
      throw new PgError(
        'ROOTS_DIFFER',
        `the log of container ${record.name} came out as ${describePosition({ size, root })}, not ${describePosition(wanted)}`,
      );
    }
    requireVouched(record, replica);
    const treeRoot = treeRootOf(record);
    if (treeRoot !== null) readNode(this.#landing.store, treeRoot);
    if (follower !== undefined) await follower.follow(size, false);
    else if (size > 0)
      openLog(logDirOf(this.#landing.roots, record.id), {
        readOnly: true,
        ...(treeRoot && { base: treeRoot }),
      }).close();
    const meter = parseMeter(textOf(body, 'meter'));
    if (meter !== undefined) writeMeter(logDirOf(this.#landing.roots, record.id), meter);
    return { body: { epoch: uintOf(body, 'epoch'), size, root } };
  }

  /** From here on the container is this node's: durable before the answer goes out. Asking again changes nothing. */
  async #handOver(body: Body): Promise<Answer> {
    const { roots, log } = this.#landing;
    const signed: SignedRelease = { envelope: textOf(body, 'envelope'), signature: textOf(body, 'signature') };
    const release = openRelease(signed);
    if (release.from !== this.#peer.id || release.to !== loadIdentity(roots).id) {
      throw new PgError('BAD_RELEASE', 'a release that is not from this peer to this node');
    }
    const known = readOwnership(roots, release.container);
    if (known.epoch >= release.epoch) {
      if (known.release?.envelope === signed.envelope) return {};
      throw new PgError('EPOCH_OLD', `the release is of epoch ${release.epoch}, but epoch ${known.epoch} has begun`);
    }
    const { record, replica, follower, lock, shim } = this.#current();
    const { size, root } = replica.sync();
    if (record.id !== release.container || size !== release.size || Buffer.compare(root, release.root) !== 0) {
      throw new PgError('ROOTS_DIFFER', `the release is not of the copy that is here`);
    }
    requireVouched(record, replica);
    replica.setEpoch(release.epoch);
    changeOwnership(roots, record.id, () => ({
      epoch: release.epoch,
      role: 'owner',
      peer: { id: this.#peer.id, name: this.#peer.name },
      release: signed,
      settled: true,
      moving: null,
      startDue: flagOf(body, 'start'),
    }));
    replica.close();
    await follower?.close();
    const position = { epoch: release.epoch, size, root: Buffer.from(root).toString('hex') };
    writeState(roots, record.id, { ...readState(roots, record.id), position });
    lock.release();
    this.#arriving = undefined;
    log(`container ${record.name} is this node's from epoch ${release.epoch}`);
    // It starts whether the giver hears of it or not.
    if (flagOf(body, 'start')) this.#starting = { id: record.id, answer: this.#startNow(record.id, shim) };
    else shim?.close();
    return {};
  }

  /** Whether it runs, after starting it if that is due. */
  async #start(id: string): Promise<Answer> {
    if (this.#starting?.id === id) return this.#starting.answer;
    const { role, startDue } = readOwnership(this.#landing.roots, id);
    if (role !== 'owner') throw new PgError('NOT_OWNER', `container ${shortId(id)} does not belong to the target node`);
    return startDue ? this.#startNow(id) : { body: { running: this.#landing.isRunning(id) } };
  }

  /** What goes wrong with the start is an answer and not an error: the move itself has succeeded. */
  async #startNow(id: string, shim?: ControlClient): Promise<Answer> {
    try {
      await this.#landing.start(id, shim);
      return { body: { running: true } };
    } catch (error) {
      const data = toErrorData(error);
      this.#landing.log(`container ${shortId(id)} came here, but does not start: ${data.message}`);
      return { body: { running: false, error: { ...data } } };
    }
  }

  #status(id: string): Answer {
    if (!isId(id)) throw badMessage('a container without an id');
    const { roots } = this.#landing;
    const { role, epoch } = readOwnership(roots, id);
    const here = existsSync(recordPath(roots, id));
    return { body: here ? { here, role, epoch } : { here } };
  }
}

const describePosition = ({ size, root }: { size: number; root: Uint8Array }): string =>
  `${Buffer.from(root).toString('hex')} at ${size}`;

const treeRootOf = (record: ContainerRecord): Buffer | null =>
  record.treeRoot === null ? null : Buffer.from(record.treeRoot, 'hex');

const isId = (text: string): boolean => /^[0-9a-f]{64}$/.test(text);

function recordOf(text: string): ContainerRecord {
  let record: ContainerRecord;
  try {
    record = JSON.parse(text) as ContainerRecord;
  } catch (cause) {
    throw badMessage('a container record that is not JSON', cause);
  }
  if (!isMap(record)) throw badMessage('a container record that is no object');
  if (Number.isSafeInteger(record.formatVersion) && record.formatVersion !== 1) {
    throw new PgError('BAD_RECORD', 'the container was made by a newer pg than the target node runs', {
      hint: 'update pg there',
    });
  }
  const wrong = containerRecord(record);
  if (wrong !== undefined) throw badMessage(`a container record whose ${wrong.slice(1)} is not what it must be`);
  checkName(record.name);
  return record;
}

/** How much of the container's log is here already. */
function replicaSize(roots: Roots, id: string): Body {
  const dir = logDirOf(roots, id);
  if (!existsSync(join(dir, 'log'))) return { size: 0, lastCommit: new Uint8Array(0) };
  try {
    const replica = openReplica(dir, { epoch: Number.MAX_SAFE_INTEGER });
    try {
      return { size: replica.size, lastCommit: replica.lastCommit() };
    } finally {
      replica.close();
    }
  } catch (error) {
    if (isPgError(error, 'LOG_BUSY')) return { size: 0, lastCommit: new Uint8Array(0) };
    throw error;
  }
}

/** LOG_CORRUPT while a checkpoint is here that the log itself does not vouch for. */
function requireVouched({ name }: ContainerRecord, replica: Replica): void {
  if (replica.isVouched) return;
  throw new PgError('LOG_CORRUPT', `the log of container ${name} does not name the checkpoint that came with it`, {
    hint: 'move it again',
  });
}
