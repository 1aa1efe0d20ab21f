import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { loadIdentity } from '../grid/identity.ts';
import { listen } from '../grid/listen.ts';
import { formatAddress } from '../grid/peers.ts';
import { PgError, toErrorData } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { shaped, text, uint } from '../store/shape.ts';
import { openStore } from '../store/store.ts';
import { reviveContainers, startContainer } from './containers.ts';
import type { ControlClient } from './control.ts';
import { readJson, writeJsonAtomic } from './json-file.ts';
import { tryLock } from './lock.ts';
import { MigrateIn, type Landing } from './migrate-in.ts';
import { recoverMoves } from './migrate-recover.ts';
import { changeOwnership, startTicksOf } from './migrate-state.ts';
import { readState, recordPath } from './record.ts';

/** A running daemon, as the commands see it: `<run>/node.json`. */
export interface NodeStatus {
  pid: number;
  startTicks: string;
  id: string;
  address: { host: string; port: number };
  startedAt: string;
}

const STATUS = shaped({
  pid: uint,
  startTicks: text,
  id: text,
  address: shaped({ host: text, port: uint }),
  startedAt: text,
});
const RECOVER_MS = 5000;
const statusPath = (roots: Roots): string => join(roots.run, 'node.json');

/** The daemon of this installation, if it runs. */
export function nodeStatus(roots: Roots): NodeStatus | undefined {
  const status = readJson<NodeStatus>(statusPath(roots), STATUS);
  return status !== undefined && startTicksOf(status.pid) === status.startTicks ? status : undefined;
}

/**
 * The daemon: listens for known peers, takes in the containers that they move here, and settles moves that a crash has cut in two. It holds
 * nothing that a container needs to run: every container has a shim of its own. Resolves when `signal` is aborted and all is closed.
 * Errors: NODE_RUNNING, and those of `listen`.
 */
export async function runNode(
  roots: Roots,
  at: { host: string; port: number },
  log: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const dir of [roots.data, roots.run]) mkdirSync(dir, { recursive: true, mode: 0o711 });
  const lock = tryLock(join(roots.run, 'node.lock'));
  if (lock === undefined) {
    throw new PgError('NODE_RUNNING', 'the node daemon of this installation is running already', {
      hint: 'pg node status',
    });
  }
  const identity = loadIdentity(roots);
  const store = openStore(roots);
  const landing: Landing = {
    roots,
    store,
    log,
    start: onceAtATime((id, shim?: ControlClient) => startArrived(roots, id, shim)),
    isRunning: (id) => ['running', 'restarting'].includes(readState(roots, id).status),
  };
  const listener = await listen(roots, at, {
    serve: (peer, connection) => {
      const arrival = new MigrateIn(landing, peer);
      queueMicrotask(() => void connection().closed.then(() => arrival.close()));
      return arrival.services;
    },
    log,
  });
  const status: NodeStatus = {
    pid: process.pid,
    startTicks: startTicksOf(process.pid) ?? '',
    id: identity.id,
    address: listener.address,
    startedAt: new Date().toISOString(),
  };
  writeJsonAtomic(statusPath(roots), status);
  log(`node ${identity.id} listens on ${formatAddress(listener.address)}`);
  const recover = onceAtATime(() => recoverMoves(landing));
  const watch = async (): Promise<void> => {
    await recover('').catch((error) => log(`looking after unfinished moves: ${toErrorData(error).message}`));
  };
  await watch();
  const revived = await reviveContainers(roots, (name, error) => log(`${name} is not brought back: ${error.message}`));
  for (const id of revived) log(`container ${id.slice(0, 12)} is brought back, as its restart policy says`);
  const timer = setInterval(() => void watch(), RECOVER_MS);
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  clearInterval(timer);
  await listener.close();
  rmSync(statusPath(roots), { force: true });
  await store.close();
  lock.release();
  log('the node has stopped');
}

/** Starts a container that came here by a move. Whether that works or not, it is tried once: from then on it is `pg start`'s. */
async function startArrived(roots: Roots, id: string, shim: ControlClient | undefined): Promise<void> {
  try {
    await startContainer(roots, id, shim === undefined ? {} : { shim });
  } catch (error) {
    // The shim that was waiting for it has died meanwhile: another one will do.
    if (shim === undefined || !(error instanceof Error && 'shimGone' in error)) throw error;
    await startContainer(roots, id);
  } finally {
    // One with --rm may have ended and gone by now.
    if (existsSync(recordPath(roots, id))) {
      changeOwnership(roots, id, ({ role }) => (role === 'owner' ? { startDue: false } : undefined));
    }
  }
}

/** `action`, but a call while one with the same key is under way waits for that one. */
function onceAtATime<T>(
  action: (key: string, detail?: T) => Promise<void>,
): (key: string, detail?: T) => Promise<void> {
  const underWay = new Map<string, Promise<void>>();
  return (key, detail) => {
    let running = underWay.get(key);
    if (running === undefined) {
      running = action(key, detail).finally(() => underWay.delete(key));
      underWay.set(key, running);
    }
    return running;
  };
}
