import { existsSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isPgError } from '../mdm/error.ts';
import { containerDir, containerRunDir, containersDir, type Roots } from '../store/paths.ts';
import { settleAtomic } from './atomic.ts';
import { connectShim } from './control.ts';
import { tryLock } from './lock.ts';
import { removesItself, startTicksOf } from './migrate-state.ts';
import { namesOf, releaseName } from './names.ts';
import { detachMount } from './native.ts';
import { disconnect, leftoverNetwork } from './network/bridge.ts';
import {
  bootId,
  lockPath,
  readRecord,
  readState,
  writeState,
  type ContainerRecord,
  type ContainerState,
  type NetworkState,
} from './record.ts';
import { OciRuntime } from './shim/oci.ts';
import { isAnonymousVolume, volumeDir } from './volumes.ts';

/** Where a container's root is mounted while it runs. */
export const rootPathOf = (roots: Roots, id: string): string => join(containerRunDir(roots, id), 'root');

/** The OCI runtime's own state (--root). */
export const runtimeStateDir = (roots: Roots): string => join(roots.run, 'runtime');

const REMOVING = 'removing-';
const MAKING = 'making-';

/** Where this process makes a container that is not there yet; its name tells whether the process lives. */
export const makingDir = (roots: Roots, id: string): string =>
  join(containersDir(roots), `${MAKING}${id}-${process.pid}-${startTicksOf(process.pid)}`);

/**
 * Removes a container's files and its name, with `volumes` also its volumes without a name. Its lock is held. A crash in between leaves a
 * directory that `sweepRemnants` takes.
 */
export async function removeContainerFiles(roots: Roots, record: ContainerRecord, volumes: boolean): Promise<void> {
  const gone = join(containersDir(roots), `${REMOVING}${record.id}`);
  renameSync(containerDir(roots, record.id), gone);
  await releaseName(roots, record.name, record.id);
  await rm(containerRunDir(roots, record.id), { recursive: true, force: true });
  for (const { kind, source } of volumes ? record.config.volumes : []) {
    if (kind === 'volume' && isAnonymousVolume(source)) {
      await rm(dirname(volumeDir(roots, source)), { recursive: true, force: true });
    }
  }
  await rm(gone, { recursive: true, force: true });
}

/** Removes a container whose record cannot be read, with all that may be left of it. Its lock is held, and it has no shim. */
export async function removeDamaged(roots: Roots, id: string): Promise<void> {
  await takeAwayLeftovers(roots, id, 'runc', leftoverNetwork(roots, id));
  const gone = join(containersDir(roots), `${REMOVING}${id}`);
  renameSync(containerDir(roots, id), gone);
  for (const name of namesOf(roots, id)) await releaseName(roots, name, id);
  await rm(containerRunDir(roots, id), { recursive: true, force: true });
  await rm(gone, { recursive: true, force: true });
}

/** Finishes removals that were interrupted, and removes what was being made by a command that was killed. */
export function sweepRemnants(roots: Roots): void {
  if (!existsSync(containersDir(roots))) return;
  for (const entry of readdirSync(containersDir(roots))) {
    if (entry.startsWith(REMOVING) || isAbandoned(entry))
      rmSync(join(containersDir(roots), entry), { recursive: true, force: true });
  }
}

function isAbandoned(entry: string): boolean {
  if (!entry.startsWith(MAKING)) return false;
  const [pid, startTicks] = entry.split('-').slice(2);
  return startTicksOf(Number(pid)) !== startTicks;
}

/**
 * Takes away what a dead shim left: the runtime's container and its processes, the mount, the network. The caller holds the
 * container's lock. Nothing when the state says that the last shim ended in order.
 */
export async function cleanUpAfterShim(roots: Roots, id: string): Promise<ContainerState> {
  const state = readState(roots, id);
  if (state.shimPid === 0) return state;
  const record = readRecord(roots, id);
  const ran = state.status === 'running' || state.status === 'restarting';
  if (state.bootId === bootId()) {
    const network = state.network ?? (record.config.network === 'bridge' ? leftoverNetwork(roots, id) : null);
    await takeAwayLeftovers(roots, id, record.config.runtime, network);
  }
  rmSync(containerRunDir(roots, id), { recursive: true, force: true });
  Object.assign(state, { shimPid: 0, initPid: 0, network: null, cgroups: {} });
  try {
    // An atomic run did not come to its end: nothing of it stays.
    const position = await settleAtomic(roots, record, false);
    if (position !== undefined) state.position = position;
  } catch (error) {
    if (!isPgError(error)) throw error;
    process.stderr.write(
      `pg: container ${record.name}: what its atomic run wrote cannot be undone: ${error.message}\n`,
    );
  }
  if (ran) {
    const lost = state.bootId === bootId() ? 'its shim was killed' : 'the machine was restarted';
    Object.assign(state, {
      status: 'exited',
      exitCode: 137,
      finishedAt: new Date().toISOString(),
      error: lost,
      wasLost: !state.stoppedByUser,
    });
  }
  try {
    writeState(roots, id, state);
  } catch (error) {
    // Nothing of it is left all the same; the next command finds so again, until there is space to write it down.
    if (!isPgError(error, 'DISK_FULL')) throw error;
  }
  return state;
}

/** What commands that ran beside the container (`pg exec --atomic`) have left. */
async function takeAwayBeside(roots: Roots, id: string, runtime: OciRuntime): Promise<void> {
  const dirs = [containerDir(roots, id), containerRunDir(roots, id)].flatMap((dir) =>
    existsSync(dir)
      ? readdirSync(dir).flatMap((name) => (/^atomic-\d+$/.test(name) ? [{ name, path: join(dir, name) }] : []))
      : [],
  );
  for (const { name, path } of dirs) {
    await runtime.remove(`${id}-${name}`);
    while (detachMount(join(path, 'root'))) {
      // All that is mounted there.
    }
    rmSync(path, { recursive: true, force: true });
  }
}

/** The runtime's container with its processes, the mount, the network: what there is of them. */
async function takeAwayLeftovers(
  roots: Roots,
  id: string,
  runtime: 'runc' | 'crun',
  network: NetworkState | null,
): Promise<void> {
  const oci = new OciRuntime(runtime, runtimeStateDir(roots));
  await oci.remove(id);
  await takeAwayBeside(roots, id, oci);
  while (detachMount(rootPathOf(roots, id))) {
    // Mounted over one another by starts that did not end: all go.
  }
  if (network !== null) await disconnect(roots, id, network);
}

/**
 * The state of a container as it is now: when it claims to run but its shim is gone, what is left is cleaned up first, so that no
 * command ever sees a container half dead. A container that another command is busy with is reported as it is.
 */
export async function currentState(roots: Roots, id: string): Promise<ContainerState> {
  const state = readState(roots, id);
  if (state.shimPid === 0) return state;
  if (state.bootId === bootId()) {
    const client = await connectShim(roots, id);
    if (client !== undefined) {
      client.close();
      return state;
    }
  }
  if (!existsSync(dirname(lockPath(roots, id)))) return state;
  const lock = tryLock(lockPath(roots, id));
  if (lock === undefined) return readState(roots, id);
  try {
    const cleaned = await cleanUpAfterShim(roots, id);
    const record = readRecord(roots, id);
    // --rm promises that nothing stays, also when its shim could not keep it.
    if (removesItself(roots, record)) await removeContainerFiles(roots, record, true);
    return cleaned;
  } finally {
    lock.release();
  }
}
