import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { listOf, number, oneOf, shaped, text, uint } from '../../store/shape.ts';
import type { Store } from '../../store/store.ts';
import { closeLog, openToRead } from '../log/bases.ts';
import { replaceFile, syncDirectory } from '../log/disk.ts';
import { KEPT_STATES } from '../log/checkpoints.ts';
import { readHeader } from '../log/header.ts';
import { commitBefore } from '../log/recover.ts';
import { isRetainedState } from '../log/retention.ts';
import { CHECKPOINT_MAGIC, writeMark } from '../log/sidecar.ts';
import { serializeState } from '../view/state-walk.ts';
import { needsWhatIsGone, notRetained } from './retained.ts';
import { openStateAt } from './state-at.ts';

/** A state of a log that is kept under a name (docs/formats/snapshots.md): it stays mountable whatever is cleaned. */
export interface Snapshot {
  name: string;
  /** Bytes of the log, and the root (hex) of so many. */
  size: number;
  root: string;
  /** When that commit was written, and when it got the name: milliseconds since 1970. */
  ms: number;
  createdMs: number;
}

interface IndexFile {
  version: 1;
  snapshots: Snapshot[];
}

const INDEX = shaped({
  version: oneOf(1),
  snapshots: listOf(shaped({ name: text, size: uint, root: text, ms: number, createdMs: number })),
});

/** Directory of the states themselves: a file each, in the form of a checkpoint, named as the snapshot. */
export const snapshotsDir = (dir: string): string => join(dir, KEPT_STATES);
const indexPath = (dir: string): string => join(dir, 'snapshots.json');

/** The snapshots of the log in `dir`, in the order of their sizes. PgError LOG_CORRUPT, LOG_VERSION. */
export function readSnapshots(dir: string): Snapshot[] {
  let json: string;
  try {
    json = readFileSync(indexPath(dir), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  let file: IndexFile;
  try {
    file = JSON.parse(json) as IndexFile;
  } catch {
    throw damagedIndex(dir, 'it is not JSON');
  }
  if (Number.isSafeInteger(file?.version) && file.version !== 1)
    throw new PgError('LOG_VERSION', `${indexPath(dir)} was written by a newer pg`, {
      hint: 'update pg on this machine',
    });
  const wrong = INDEX(file);
  if (wrong !== undefined) throw damagedIndex(dir, `${wrong.slice(1)} is not what it must be`);
  return file.snapshots.toSorted((a, b) => a.size - b.size);
}

function damagedIndex(dir: string, why: string): PgError {
  return new PgError('LOG_CORRUPT', `${indexPath(dir)} is damaged: ${why}`, {
    hint: `remove it: the container keeps its files, and the states in ${snapshotsDir(dir)} lose their names`,
  });
}

/** Replaces the list; durable on return. */
function writeSnapshots(dir: string, snapshots: Snapshot[]): void {
  const file: IndexFile = { version: 1, snapshots };
  replaceFile(indexPath(dir), [Buffer.from(`${JSON.stringify(file, null, 1)}\n`)]);
}

/**
 * Keeps the state of the log in `dir` at `size`, a commit's end, under a name: first the state, then the name. The caller keeps others from doing the same
 * at once. PgError NAME_TAKEN, and what replay throws.
 */
export function keepSnapshot(store: Store, treeRoot: Uint8Array | null, dir: string, snapshot: Snapshot): void {
  const others = readSnapshots(dir);
  if (others.some(({ name }) => name === snapshot.name)) {
    throw new PgError('NAME_TAKEN', `there is a snapshot "${snapshot.name}" already`, {
      hint: 'take another name, or remove it: pg snapshot rm',
    });
  }
  removeNameless(dir, others);
  const at = openStateAt(store, treeRoot, dir, snapshot.size);
  try {
    if (mkdirSync(snapshotsDir(dir), { recursive: true, mode: 0o700 }) !== undefined) syncDirectory(dir);
    const mark = markAt(dir, snapshot.size);
    const path = join(snapshotsDir(dir), snapshot.name);
    writeMark(path, CHECKPOINT_MAGIC, mark, serializeState(at.state));
    // From here on it is kept; the cleaner may have been at it just before.
    if (needsWhatIsGone(dir, at.state)) {
      rmSync(path);
      throw notRetained(snapshot.size);
    }
  } finally {
    at.close();
  }
  writeSnapshots(dir, [...others, snapshot]);
}

/** The mark of a commit's end: what a checkpoint of it begins with. LOG_CORRUPT. */
export function markAt(dir: string, size: number): Parameters<typeof writeMark>[2] {
  const path = join(dir, 'log');
  const fd = openToRead(dir);
  try {
    const { salt } = readHeader(fd, path);
    const commit = commitBefore(fd, salt, size);
    if (commit === undefined) throw new PgError('LOG_CORRUPT', `${path} has no commit that ends at byte ${size}`);
    return { size, salt, ...commit };
  } finally {
    closeLog(fd);
  }
}

/** The state that an atomic run goes back to, among those that are kept (docs/formats/snapshots.md). */
const ATOMIC_STATE = '.atomic';

/** Keeps the state at `size` of a log, whatever is cleaned, until its file is removed. Durable on return. */
export function keepAtomicState(store: Store, treeRoot: Uint8Array | null, dir: string, size: number): void {
  const at = openStateAt(store, treeRoot, dir, size);
  try {
    mkdirSync(snapshotsDir(dir), { recursive: true, mode: 0o700 });
    const path = join(snapshotsDir(dir), ATOMIC_STATE);
    writeMark(path, CHECKPOINT_MAGIC, markAt(dir, size), serializeState(at.state));
  } finally {
    at.close();
  }
}

/** Gives a name up, and then what was kept for it. PgError NO_SUCH_SNAPSHOT. */
export function dropSnapshot(dir: string, name: string, container: string): void {
  const snapshots = readSnapshots(dir);
  const left = snapshots.filter((snapshot) => snapshot.name !== name);
  if (left.length === snapshots.length) {
    throw new PgError('NO_SUCH_SNAPSHOT', `container ${container} has no snapshot "${name}"`, {
      hint: `pg snapshot ls ${container} lists them`,
    });
  }
  writeSnapshots(dir, left);
  removeNameless(dir, left);
}

/** States whose making or removal was interrupted. */
function removeNameless(dir: string, named: readonly Snapshot[]): void {
  const names = new Set(named.map(({ name }) => name));
  let found: string[];
  try {
    found = readdirSync(snapshotsDir(dir));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  for (const file of found)
    if (!names.has(file) && !isRetainedState(file) && file !== ATOMIC_STATE)
      rmSync(join(snapshotsDir(dir), file), { force: true });
}
