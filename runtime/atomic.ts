import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isPgError, PgError } from '../mdm/error.ts';
import { containerDir, type Roots } from '../store/paths.ts';
import { readJson, syncDirectory, writeJsonAtomic } from './json-file.ts';
import { type ContainerRecord, type ContainerState, logDirOf } from './record.ts';
import { shaped, uint } from '../store/shape.ts';

/**
 * `pg run --atomic`: where the log ended before the run, kept in `containers/<id>/atomic.json` from before its first write until it is settled. As long as the
 * file is there what follows that place is not to be: whoever has the container's lock and finds it after a crash goes back there.
 */
interface Unsettled {
  formatVersion: 1;
  size: number;
}

/** How long the log may still be somebody's who is ending. */
const FREE_MS = 10_000;

const unsettledPath = (roots: Roots, id: string): string => join(containerDir(roots, id), 'atomic.json');

const treeRootOf = ({ treeRoot }: ContainerRecord): Uint8Array | null =>
  treeRoot === null ? null : Buffer.from(treeRoot, 'hex');

/** Before the root of a container is mounted for a run of which all is to be kept, or nothing. Durable on return. The container's lock is held. */
export async function beginAtomic(roots: Roots, record: ContainerRecord): Promise<void> {
  const { openLog } = await import('../fs/log/log.ts');
  const treeRoot = treeRootOf(record);
  const log = openLog(logDirOf(roots, record.id), { create: true, ...(treeRoot === null ? {} : { base: treeRoot }) });
  log.close();
  const [{ keepAtomicState }, { openStore }] = await Promise.all([
    import('../fs/history/snapshots.ts'),
    import('../store/store.ts'),
  ]);
  const store = openStore(roots, { readOnly: true });
  try {
    keepAtomicState(store, treeRoot, logDirOf(roots, record.id), log.written);
  } finally {
    await store.close();
  }
  const unsettled: Unsettled = { formatVersion: 1, size: log.written };
  writeJsonAtomic(unsettledPath(roots, record.id), unsettled, true);
}

/**
 * Ends an atomic run whose root is not mounted any more: what it wrote stays (`keep`), or the container goes back to where it began. Nothing when none is
 * unsettled. The position of the log if it was gone back. The container's lock is held. PgError of the disk or the log: then it is unsettled still.
 */
export async function settleAtomic(
  roots: Roots,
  record: ContainerRecord,
  keep: boolean,
): Promise<ContainerState['position'] | undefined> {
  const path = unsettledPath(roots, record.id);
  if (!existsSync(path)) return undefined;
  const unsettled = readJson<Unsettled>(path, shaped({ formatVersion: uint, size: uint }))!;
  if (unsettled.formatVersion !== 1) {
    throw new PgError('BAD_RECORD', `${path} was written by a newer pg`, { hint: 'update pg on this machine' });
  }
  const position = keep ? undefined : await goBack(roots, record, unsettled.size);
  rmSync(path);
  rmSync(join(logDirOf(roots, record.id), 'snapshots', '.atomic'), { force: true });
  syncDirectory(containerDir(roots, record.id));
  if (position === undefined) return undefined;
  return { epoch: position.epoch, size: position.size, root: Buffer.from(position.root).toString('hex') };
}

/** Loaded only here: every command comes by, and nearly none has anything to undo. */
async function goBack(
  roots: Roots,
  record: ContainerRecord,
  size: number,
): Promise<{ epoch: number; size: number; root: Uint8Array } | undefined> {
  const { openLog } = await import('../fs/log/log.ts');
  const dir = logDirOf(roots, record.id);
  // The process that served the files of a shim that was killed has them a moment longer, and writes what it has before it ends.
  for (const deadline = Date.now() + FREE_MS; ;) {
    try {
      const log = openLog(dir);
      log.close();
      if (log.written <= size) return undefined;
      break;
    } catch (error) {
      if (!isPgError(error, 'LOG_BUSY') || Date.now() > deadline) throw error;
      await sleep(20);
    }
  }
  const [{ rollBackLog }, { openStore }] = await Promise.all([
    import('../fs/history/rollback.ts'),
    import('../store/store.ts'),
  ]);
  const store = openStore(roots, { readOnly: true });
  try {
    return rollBackLog(store, treeRootOf(record), dir, size);
  } finally {
    await store.close();
  }
}
