import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { openLog } from '../fs/log/log.ts';
import { findVolume, volumeLogDir } from '../fs/volumes.ts';
import { isPgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { openStore, type Store } from '../store/store.ts';
import { ask, findContainer, isNotRunning } from './containers.ts';
import { logDirOf, type Origin } from './record.ts';

/** A log that commands can be asked about: a container's, or a named mount's. */
export interface Subject {
  /** Whose files they are, as a claim says it. */
  label: string;
  name: string;
  /** Of a container. */
  id: string | undefined;
  treeRoot: Uint8Array | null;
  dir: string;
  /** The position that was last recorded of a container. */
  recorded: { size: number; root: string } | null;
  /** Of a clone: whose history its log begins with. */
  origins: readonly Origin[];
}

const fromHex = (hex: string | null): Uint8Array | null => (hex === null ? null : Buffer.from(hex, 'hex'));

/** What a name or an id means: a container, else a named mount. NO_SUCH_CONTAINER. */
export async function findSubject(roots: Roots, ref: string): Promise<Subject> {
  try {
    const { record, state } = await findContainer(roots, ref);
    const { id, name } = record;
    return {
      label: `container/${id}`,
      name,
      id,
      treeRoot: fromHex(record.treeRoot),
      dir: logDirOf(roots, id),
      recorded: state.position,
      origins: record.origins ?? [],
    };
  } catch (error) {
    const volume = isPgError(error, 'NO_SUCH_CONTAINER') ? findVolume(roots, ref) : undefined;
    if (volume === undefined) throw error;
    const { name } = volume;
    return {
      label: `mount/${name}`,
      name,
      id: undefined,
      treeRoot: fromHex(volume.treeRoot),
      dir: volumeLogDir(roots, name),
      recorded: null,
      origins: [],
    };
  }
}

/** Where a log ends, and its root (hex) there as its writer has computed it, null when it is not known. */
export interface End {
  size: number;
  root: string | null;
  epoch: number;
}

/** Commits what a running container has written so far; where its log ends then. Undefined when it does not run. */
export async function commitRunning(roots: Roots, { id }: Subject): Promise<End | undefined> {
  if (id === undefined) return undefined;
  try {
    return (await ask(roots, id, { op: 'commit' })) as End;
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    return undefined;
  }
}

/** A log as it ends now. Nothing but what is in its file counts; of a running container everything written so far is. */
export async function logEnd(roots: Roots, subject: Subject): Promise<{ size: number; epoch: number }> {
  const running = await commitRunning(roots, subject);
  if (running !== undefined) return running;
  if (!existsSync(join(subject.dir, 'log'))) return { size: 0, epoch: 0 };
  const log = openLog(subject.dir, { readOnly: true });
  log.close();
  return { size: log.written, epoch: log.epoch };
}

/** Opens the store for as long as `action` takes. */
export async function withStore<T>(roots: Roots, action: (store: Store) => T | Promise<T>): Promise<T> {
  const store = openStore(roots);
  try {
    return await action(store);
  } finally {
    await store.close();
  }
}
