import { existsSync, mkdirSync, mkdtempSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { commitEndingAt } from '../fs/history/commits-back.ts';
import { checkSnapshotName, parsePosition } from '../fs/history/positions.ts';
import { resolvePosition } from '../fs/history/resolve.ts';
import { rootAt } from '../fs/history/root-at.ts';
import { dropSnapshot, keepSnapshot, readSnapshots, type Snapshot } from '../fs/history/snapshots.ts';
import { openImageState, openStateAt, type StateAt } from '../fs/history/state-at.ts';
import { openLog } from '../fs/log/log.ts';
import type { FsChange } from '../fs/mount.ts';
import { changesOf } from '../fs/view/changes.ts';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import type { Store } from '../store/store.ts';
import { lockStopped, withoutMountPoints } from './containers.ts';
import { waitLock } from './lock.ts';
import { commitRunning, findSubject, logEnd, type Subject, withStore } from './subject.ts';

const SNAPSHOT_LOCK_MS = 60_000;

/** A container, or a named mount, at a position of its history. `size` 0: it has no log, its files are the image's. */
export interface Located {
  subject: Subject;
  size: number;
  /** Root (hex) of so many bytes, if it is known without hashing. */
  root: string | null;
  running: boolean;
}

/**
 * The container (or named mount) that `ref` means, at `position` as it was typed; undefined is now. What a running container has written so far is committed
 * first. PgError NO_SUCH_CONTAINER, BAD_POSITION, NO_SUCH_POSITION, AMBIGUOUS_POSITION.
 */
export async function locate(roots: Roots, ref: string, position: string | undefined): Promise<Located> {
  const word = parsePosition(position ?? 'latest', Date.now());
  const subject = await findSubject(roots, ref);
  const running = await commitRunning(roots, subject);
  const { size: end, root = null }: { size: number; root?: string | null } = running ?? (await logEnd(roots, subject));
  if (end === 0 && word.kind !== 'latest') {
    throw new PgError('NO_SUCH_POSITION', `container ${subject.name} has never run: it has no history yet`, {
      hint: `leave out @${position}`,
    });
  }
  const size = end === 0 ? 0 : resolvePosition(subject.dir, end, word, subject.name);
  const known = size === end ? root : (readSnapshots(subject.dir).find((one) => one.size === size)?.root ?? null);
  return { subject, size, root: known, running: running !== undefined };
}

/** Opens the files as they were there, for as long as `use` takes. */
export async function withFilesAt<T>(
  store: Store,
  { subject, size }: Located,
  use: (at: StateAt) => T | Promise<T>,
): Promise<T> {
  const { treeRoot, dir } = subject;
  const at = size === 0 ? openImageState(store, treeRoot) : openStateAt(store, treeRoot, dir, size);
  try {
    return await use(at);
  } finally {
    at.close();
  }
}

/** What a container had changed against its image at a position. What was only made to mount on is left out. */
export async function changesAt(roots: Roots, ref: string, position: string): Promise<FsChange[]> {
  const located = await locate(roots, ref, position);
  return withStore(roots, (store) =>
    withFilesAt(store, located, ({ state }) => withoutMountPoints([...changesOf(state)])),
  );
}

/** Runs `action` with a path where the container, as it was at a position, is mounted read-only meanwhile. Symlinks there are the container's. */
export async function withRootAt<T>(
  roots: Roots,
  ref: string,
  position: string,
  action: (rootPath: string) => Promise<T>,
): Promise<T> {
  const { startMount } = await import('../fs/mount.ts');
  const { subject, size } = await locate(roots, ref, position);
  mkdirSync(roots.run, { recursive: true, mode: 0o711 });
  const mountPoint = mkdtempSync(join(roots.run, 'past-'));
  try {
    const mount = await startMount({
      roots,
      treeRoot: subject.treeRoot,
      ...(size === 0 ? { logDir: null } : { logDir: subject.dir, limit: size }),
      mountPoint,
      readOnly: true,
      noSuid: true,
      noDev: true,
      label: `${subject.name}@${position}`,
    });
    try {
      return await action(mountPoint);
    } finally {
      await mount.unmount(true);
    }
  } finally {
    rmdirSync(mountPoint);
  }
}

/** The snapshots of a container or a named mount, oldest state first. */
export async function listSnapshots(roots: Roots, ref: string): Promise<Snapshot[]> {
  return readSnapshots((await findSubject(roots, ref)).dir);
}

/**
 * Keeps the state at a position under a name (`undefined`: one made of the time); it stays whatever is cleaned. A container may run meanwhile, and is not
 * stopped for it. PgError as `locate`, BAD_NAME, NAME_TAKEN.
 */
export async function createSnapshot(
  roots: Roots,
  ref: string,
  position: string | undefined,
  name: string | undefined,
): Promise<Snapshot> {
  if (name !== undefined) checkSnapshotName(name);
  const first = await locate(roots, ref, position);
  const { subject } = first;
  return changingSnapshots(roots, first, async () => {
    const { size } = first.size === 0 ? await begun(subject) : first;
    const now = Date.now();
    const snapshot = {
      name: name ?? nameOfTime(now, readSnapshots(subject.dir)),
      size,
      root: rootAt(subject.dir, size),
      ms: commitEndingAt(subject.dir, size)?.ms ?? now,
      createdMs: now,
    };
    await withStore(roots, (store) => keepSnapshot(store, subject.treeRoot, subject.dir, snapshot));
    return snapshot;
  });
}

/** Makes the log of a container that has never run. */
async function begun({ dir, treeRoot }: Subject): Promise<{ size: number }> {
  const log = openLog(dir, { create: true, ...(treeRoot === null ? {} : { base: treeRoot }) });
  log.close();
  return { size: log.written };
}

/** `s20261127-182400`. */
function nameOfTime(ms: number, taken: readonly Snapshot[]): string {
  const digits = new Date(ms).toISOString().replaceAll(/[-:]/g, '');
  const base = `s${digits.slice(0, 8)}-${digits.slice(9, 15)}`;
  for (let i = 1; ; i++) {
    const name = i === 1 ? base : `${base}.${i}`;
    if (!taken.some((snapshot) => snapshot.name === name)) return name;
  }
}

/** Removes a snapshot: what only it kept may be cleaned from now on. PgError NO_SUCH_SNAPSHOT. */
export async function removeSnapshot(roots: Roots, ref: string, name: string): Promise<void> {
  const subject = await findSubject(roots, ref);
  const running = (await commitRunning(roots, subject)) !== undefined;
  await changingSnapshots(roots, { subject, running }, () => dropSnapshot(subject.dir, name, subject.name));
}

/** One command at a time changes the snapshots of a log; a container that does not run is kept from being started, moved or removed meanwhile. */
async function changingSnapshots<T>(
  roots: Roots,
  { subject, running }: Pick<Located, 'subject' | 'running'>,
  action: () => T | Promise<T>,
): Promise<T> {
  const { id, dir } = subject;
  const stopped = id === undefined || running ? undefined : await lockStopped(roots, id);
  try {
    if (!existsSync(dir)) await begun(subject);
    const lock = await waitLock(join(dir, 'snapshots.lock'), SNAPSHOT_LOCK_MS);
    if (lock === undefined) {
      throw new PgError('BUSY', `another command is at the snapshots of ${subject.name}`, { hint: 'try again' });
    }
    try {
      return await action();
    } finally {
      lock.release();
    }
  } finally {
    stopped?.release();
  }
}
