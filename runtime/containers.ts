import { mkdirSync } from 'node:fs';
import type { FsChange, FsStats, Mount } from '../fs/mount.ts';
import { isPgError, PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import type { Usage } from './cgroup.ts';
import { connectShim, type AttachOptions, type ControlClient, type ExecOptions, type FrameHandler } from './control.ts';
import { nameTaken } from './create.ts';
import { type Lock, waitLock } from './lock.ts';
import { requireOwner } from './migrate-state.ts';
import { checkName, claimName, containerIds, releaseName, resolveContainer } from './names.ts';
import {
  type ContainerRecord,
  type ContainerState,
  lockPath,
  logDirOf,
  noSuchContainer,
  readRecord,
  writeRecord,
} from './record.ts';
import {
  cleanUpAfterShim,
  currentState,
  removeContainerFiles,
  removeDamaged,
  rootPathOf,
  sweepRemnants,
} from './remains.ts';
import { spawnShim } from './shim-process.ts';
import type { Phase } from './trace.ts';

/** A container as it is now. */
export interface Container {
  record: ContainerRecord;
  state: ContainerState;
}

const BUSY_WAIT_MS = 15_000;

/** The container that a name or id means, with its state; a shim that was killed is cleaned up after first. PgError('NO_SUCH_CONTAINER'). */
export async function findContainer(roots: Roots, ref: string): Promise<Container> {
  const id = resolveContainer(roots, ref);
  const state = await currentState(roots, id);
  return { record: readRecord(roots, id), state };
}

/** All containers, the newest first. Those that vanish meanwhile are left out, and those whose record is damaged, of which `onDamaged` is told. */
export async function listContainers(roots: Roots, onDamaged: (error: PgError) => void = warn): Promise<Container[]> {
  sweepRemnants(roots);
  const found = await Promise.all(
    containerIds(roots).map(async (id) => {
      try {
        return await findContainer(roots, id);
      } catch (error) {
        if (isPgError(error, 'BAD_RECORD')) onDamaged(error);
        else if (!isPgError(error, 'NO_SUCH_CONTAINER')) throw error;
        return undefined;
      }
    }),
  );
  return found
    .filter((container) => container !== undefined)
    .toSorted((a, b) => (a.record.createdAt < b.record.createdAt ? 1 : -1));
}

/** The client's side of a container's, or an exec's, streams: frames from the shim (control.ts), and the connection to send others on. */
export interface Stream {
  client: ControlClient;
  onFrame: FrameHandler;
  options: AttachOptions;
}

/**
 * Starts a container in a shim of its own. With `stream` its streams are attached before its first byte, and the shim's connection
 * stays open; else it is closed. `shim` is one that was started in advance. True when it runs because of this call, false when it
 * ran already. Rejects with whatever kept it from starting; the container is there still (unless it is one that removes itself).
 */
export async function startContainer(
  roots: Roots,
  ref: string,
  with_: { shim?: ControlClient; stream?: Omit<Stream, 'client'>; onTrace?: (phases: Phase[]) => void } = {},
): Promise<ControlClient | false> {
  const id = resolveContainer(roots, ref);
  if (with_.shim === undefined) {
    const running = await connectShim(roots, id);
    if (running !== undefined) {
      const state = (await running.request({ op: 'state' }).catch(() => undefined)) as ContainerState | undefined;
      running.close();
      if (state?.status === 'running' || state?.status === 'restarting') return false;
    }
  }
  const shim = with_.shim ?? spawnShim(roots);
  const attach = with_.stream?.options ?? null;
  try {
    const result = await shim.request({ op: 'start', roots, id, attach }, with_.stream?.onFrame);
    const { trace, damage } = result as { trace: Phase[]; damage: string | null };
    if (damage !== null) process.stderr.write(`pg: warning: container ${id.slice(0, 12)}: ${damage}\n`);
    with_.onTrace?.(trace);
  } catch (error) {
    shim.close();
    if (isPgError(error, 'ALREADY_RUNNING')) return false;
    throw error;
  }
  if (with_.stream === undefined) shim.close();
  return shim;
}

/** A connection to the shim of a running container; PgError('NOT_RUNNING') when there is none. */
async function shimOf(roots: Roots, ref: string): Promise<{ id: string; client: ControlClient }> {
  const id = resolveContainer(roots, ref);
  const client = await connectShim(roots, id);
  if (client !== undefined) return { id, client };
  throw await notRunning(roots, id);
}

async function notRunning(roots: Roots, id: string): Promise<PgError> {
  const { record, state } = await findContainer(roots, id);
  return new PgError('NOT_RUNNING', `Container ${record.name} is not running`, {
    hint:
      state.status === 'created' || state.status === 'exited' ? `pg start ${record.name}` : 'pg ps -a shows its state',
  });
}

/** Asks a running container's shim. PgError('NOT_RUNNING'). */
export async function ask(
  roots: Roots,
  ref: string,
  request: Parameters<ControlClient['request']>[0],
): Promise<unknown> {
  const { id, client } = await shimOf(roots, ref);
  try {
    return await client.request(request);
  } catch (error) {
    // It was asked while the container ended: its root is unmounted, or its shim is gone.
    if (!isPgError(error, 'NOT_MOUNTED') && !isNotRunning(error)) throw error;
    throw await notRunning(roots, id).catch(() => new PgError('NOT_RUNNING', `container ${id} is not running`));
  } finally {
    client.close();
  }
}

/** Whether the error says that the container is not running (or has just ended). */
export function isNotRunning(error: unknown): boolean {
  return isPgError(error, 'NOT_RUNNING') || (error as { shimGone?: boolean }).shimGone === true;
}

/**
 * Stops a container: its stop signal (or this one), after the timeout (its own, or this one; negative waits for ever) SIGKILL. Resolves when its
 * process has ended, its writable layer is committed and unmounted, and its network gone. Nothing when it does not run.
 */
export async function stopContainer(
  roots: Roots,
  ref: string,
  options: { signal?: number; timeoutSec?: number } = {},
): Promise<void> {
  const id = resolveContainer(roots, ref);
  try {
    await ask(roots, id, { op: 'stop', signal: options.signal ?? null, timeoutSec: options.timeoutSec ?? null });
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    await currentState(roots, id).catch(() => {});
  }
}

/**
 * Starts the containers that ran when the machine, or their shim, went down and whose policy brings them back (`always`, `unless-stopped`,
 * and `on-failure`, for which this counts as one). For whoever comes first after a boot: the node daemon. Their ids; those that do not
 * start are told to `failed`.
 */
export async function reviveContainers(roots: Roots, failed: (name: string, error: Error) => void): Promise<string[]> {
  const revived: string[] = [];
  for (const { record, state } of await listContainers(roots)) {
    if (!state.wasLost || record.config.restart.name === 'no') continue;
    try {
      if (await startContainer(roots, record.id)) revived.push(record.id);
    } catch (error) {
      failed(record.name, error as Error);
    }
  }
  return revived;
}

/** Sends a signal to the container's first process. PgError('NOT_RUNNING'). */
export async function killContainer(roots: Roots, ref: string, signal: number): Promise<void> {
  await ask(roots, ref, { op: 'kill', signal });
}

/** The exit code, when the container's process ends, or at once when it does not run. */
export async function waitContainer(roots: Roots, ref: string): Promise<number> {
  const id = resolveContainer(roots, ref);
  try {
    return (await ask(roots, id, { op: 'wait' })) as number;
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    return (await currentState(roots, id)).exitCode;
  }
}

/** Waits until no command and no shim has the container, and keeps it so until the lock is released. PgError('BUSY'). */
export async function lockStopped(roots: Roots, id: string): Promise<Lock> {
  let lock: Lock | undefined;
  try {
    lock = await waitLock(lockPath(roots, id), BUSY_WAIT_MS);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw noSuchContainer(id);
    throw error;
  }
  if (lock === undefined) throw new PgError('BUSY', `container ${id} is in use by another command`);
  return lock;
}

/**
 * Removes a container and its writable layer, with `volumes` also its volumes without a name; its id. A running one only by `force`, which
 * kills it: else PgError('CONTAINER_RUNNING'). A container whose record is damaged goes by `force`, too.
 */
export async function removeContainer(
  roots: Roots,
  ref: string,
  options: { force?: boolean; volumes?: boolean } = {},
): Promise<string> {
  const id = resolveContainer(roots, ref);
  let container: Container;
  try {
    container = await findContainer(roots, id);
  } catch (error) {
    if (!isPgError(error, 'BAD_RECORD') || options.force !== true) throw error;
    return forceRemoval(roots, id);
  }
  const { record, state } = container;
  if (state.shimPid !== 0) {
    if (options.force !== true) {
      throw new PgError(
        'CONTAINER_RUNNING',
        `You cannot remove a running container ${record.id}. Stop the container before attempting removal or force remove`,
        { hint: `pg stop ${record.name}, or pg rm -f ${record.name}` },
      );
    }
    await stopContainer(roots, record.id, { signal: 9, timeoutSec: 0 });
  }
  try {
    const lock = await lockStopped(roots, record.id);
    try {
      await cleanUpAfterShim(roots, record.id);
      await removeContainerFiles(roots, record, options.volumes === true);
    } finally {
      lock.release();
    }
  } catch (error) {
    // One that removes itself was quicker.
    if (!isPgError(error, 'NO_SUCH_CONTAINER')) throw error;
  }
  if (containerIds(roots).length === 0) {
    const { removeUnusedBridge } = await import('./network/bridge.ts');
    await removeUnusedBridge(roots);
  }
  return record.id;
}

async function forceRemoval(roots: Roots, id: string): Promise<string> {
  const shim = await connectShim(roots, id);
  await shim?.request({ op: 'stop', signal: 9, timeoutSec: 0 }).catch(() => {});
  shim?.close();
  const lock = await lockStopped(roots, id);
  try {
    await removeDamaged(roots, id);
  } finally {
    lock.release();
  }
  return id;
}

const warn = (error: PgError): void => void process.stderr.write(`pg: ${error.message}\n`);

/** Gives a container another name. PgError('NAME_TAKEN' | 'BAD_NAME'). It may run meanwhile. */
export async function renameContainer(roots: Roots, ref: string, name: string): Promise<void> {
  checkName(name);
  const record = readRecord(roots, resolveContainer(roots, ref));
  if (record.name === name)
    throw new PgError('BAD_USAGE', 'Renaming a container with the same name as its current name');
  if (!(await claimName(roots, name, record.id))) throw nameTaken(name);
  writeRecord(roots, { ...record, name });
  await releaseName(roots, record.name, record.id);
}

/** Attaches to a running container: its streams from now on. The connection to send frames on. */
export async function attachContainer(
  roots: Roots,
  ref: string,
  stream: Omit<Stream, 'client'>,
): Promise<ControlClient> {
  const { client } = await shimOf(roots, ref);
  await client.request({ op: 'attach', attach: stream.options }, stream.onFrame);
  return client;
}

/** Starts a command in a running container; with `stream`, attached to it. Errors as a start's: COMMAND_NOT_FOUND and so on. */
export async function execContainer(
  roots: Roots,
  ref: string,
  exec: ExecOptions,
  stream: Omit<Stream, 'client'> | null,
): Promise<ControlClient> {
  const { client } = await shimOf(roots, ref);
  try {
    await client.request({ op: 'exec', exec, attach: stream?.options ?? null }, stream?.onFrame);
  } catch (error) {
    client.close();
    throw error;
  }
  if (stream === null) client.close();
  return client;
}

/** What a running container uses, and what its filesystem has done. PgError('NOT_RUNNING'). */
export async function containerStats(roots: Roots, ref: string): Promise<{ usage: Usage; filesystem: FsStats }> {
  return (await ask(roots, ref, { op: 'stats' })) as { usage: Usage; filesystem: FsStats };
}

/** Numbers, on this host, of a running container's processes. */
export async function containerPids(roots: Roots, ref: string): Promise<number[]> {
  return (await ask(roots, ref, { op: 'pids' })) as number[];
}

/** Flushes a running container's writable layer and commits it: where its log is then, durable and hashed. */
export async function commitContainer(roots: Roots, ref: string): Promise<NonNullable<ContainerState['position']>> {
  return (await ask(roots, ref, { op: 'commit' })) as NonNullable<ContainerState['position']>;
}

/** Places that the OCI runtime makes in the root to mount something on. */
export const MADE_BY_RUNTIME: ReadonlySet<string> = new Set([
  '/dev',
  '/proc',
  '/sys',
  '/etc/hostname',
  '/etc/hosts',
  '/etc/resolv.conf',
]);

/**
 * What the writable layer changed against the image; of a stopped container by mounting it for the moment. What was only made to mount on is
 * left out.
 */
export async function containerChanges(roots: Roots, ref: string): Promise<FsChange[]> {
  const id = resolveContainer(roots, ref);
  const changes = await changesOf(roots, id);
  return withoutMountPoints(changes);
}

/** A directory in which nothing else changed has itself changed only by them. */
export function withoutMountPoints(changes: FsChange[]): FsChange[] {
  const hidden = changes.filter(({ kind, path }) => kind === 'A' && MADE_BY_RUNTIME.has(path));
  const shown = changes.filter((change) => !hidden.includes(change));
  return shown.filter(({ kind, path }) => {
    const below = (change: FsChange): boolean => change.path.startsWith(path === '/' ? path : `${path}/`);
    return kind !== 'C' || !hidden.some(below) || shown.some((change) => change.path !== path && below(change));
  });
}

async function changesOf(roots: Roots, id: string): Promise<FsChange[]> {
  try {
    return (await ask(roots, id, { op: 'changes' })) as FsChange[];
  } catch (error) {
    if (!isNotRunning(error)) throw error;
  }
  return withStoppedRoot(roots, id, true, (mount) => mount.changes());
}

/** Mounts the root of a container that does not run, for as long as `action` takes. Nobody can start it meanwhile. */
async function withStoppedRoot<T>(
  roots: Roots,
  id: string,
  readOnly: boolean,
  action: (mount: Mount) => Promise<T>,
): Promise<T> {
  const { startMount } = await import('../fs/mount.ts');
  const lock = await lockStopped(roots, id);
  try {
    const record = readRecord(roots, id);
    if (!readOnly) requireOwner(roots, id, record.name);
    const mountPoint = rootPathOf(roots, id);
    mkdirSync(mountPoint, { recursive: true, mode: 0o700 });
    const mount = await startMount({
      roots,
      treeRoot: record.treeRoot === null ? null : Buffer.from(record.treeRoot, 'hex'),
      logDir: logDirOf(roots, id),
      mountPoint,
      readOnly,
      label: record.name,
    });
    try {
      return await action(mount);
    } finally {
      await mount.unmount(true);
    }
  } finally {
    lock.release();
  }
}

/**
 * Runs `action` with a path to the container's root as the container sees it: of a running one with its volumes and mounts, of a stopped one its
 * image and writable layer alone, mounted for the moment. Only look things up below it by `openInRoot`: symlinks there are the container's.
 */
export async function withContainerRoot<T>(
  roots: Roots,
  ref: string,
  readOnly: boolean,
  action: (rootPath: string, running: boolean) => Promise<T>,
): Promise<T> {
  const { record, state } = await findContainer(roots, ref);
  if (state.initPid !== 0 && state.status === 'running') return action(`/proc/${state.initPid}/root`, true);
  return withStoppedRoot(roots, record.id, readOnly, (mount) => action(mount.mountPoint, false));
}
