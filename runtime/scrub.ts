import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { openStateAt } from '../fs/history/state-at.ts';
import { pathsOver } from '../fs/history/paths-over.ts';
import { basesOf } from '../fs/log/bases.ts';
import { RootsFile } from '../fs/log/roots.ts';
import { damagedSidecars, describeDamage, logSalt, verifyLog } from '../fs/log/verify.ts';
import { volumeNames } from '../fs/volumes.ts';
import type { ProgressSink } from '../layers/progress.ts';
import { isPgError, type PgError } from '../mdm/error.ts';
import { SECTOR_BYTES } from '../mdm/merkle.ts';
import type { Roots } from '../store/paths.ts';
import { SectorPool } from '../store/sector-pool.ts';
import type { Store } from '../store/store.ts';
import { commitContainer, isNotRunning, listContainers } from './containers.ts';
import { logDirOf } from './record.ts';
import { findSubject, type Subject } from './subject.ts';

/** Something that is not as it was written, and what cannot be read for it, a line each. */
export interface Finding {
  message: string;
  affects: string[];
}

/** The writable files of a container or a named mount. */
export interface Writable extends Omit<Subject, 'origins'> {
  what: string;
  /** It runs: what its shim has not committed yet is no part of it. */
  isRunning: boolean;
}

/** All containers and named mounts. Those whose records are damaged are told to `damaged` and left out. */
export async function listWritables(roots: Roots, damaged: (error: PgError) => void): Promise<Writable[]> {
  const found: Writable[] = [];
  for (const { record, state } of await listContainers(roots, damaged)) {
    const { id, name, treeRoot } = record;
    found.push({
      label: `container/${id}`,
      what: `container ${name}`,
      name,
      id,
      treeRoot: treeRoot === null ? null : Buffer.from(treeRoot, 'hex'),
      dir: logDirOf(roots, id),
      recorded: state.position,
      isRunning: state.shimPid !== 0,
    });
  }
  for (const name of volumeNames(roots)) {
    try {
      found.push({ ...(await findSubject(roots, name)), what: `mount ${name}`, isRunning: false });
    } catch (error) {
      if (!isPgError(error, 'BAD_RECORD')) throw error;
      damaged(error);
    }
  }
  return found;
}

/** Reads a log and the files beside it: every checksum, and the roots that are kept of its sectors, on all cores. */
export async function scrubLog(
  roots: Roots,
  store: Store,
  subject: Writable,
  pool: SectorPool,
  progress: ProgressSink,
): Promise<{ bytes: number; findings: Finding[] }> {
  const { dir, what } = subject;
  if (!existsSync(join(dir, 'log'))) return { bytes: 0, findings: [] };
  const findings: Finding[] = [];
  const task = `log:${subject.label}`;
  progress.start(task, what, statSync(join(dir, 'log')).size);
  let bytes = 0;
  try {
    const running = subject.isRunning ? await positionNow(roots, subject) : undefined;
    const found = verifyLog(dir, running ?? subject.recorded?.size ?? 0, running !== undefined);
    bytes = found.bytes;
    const damage = describeDamage(found);
    if (damage !== undefined)
      findings.push({
        message: `${what}: the log is damaged: ${damage}`,
        affects: affectedFiles(store, subject, found.places),
      });
    for (const { message } of damagedSidecars(dir)) findings.push({ message: `${what}: ${message}`, affects: [] });
    for (const message of await compareRoots(dir, found.rootsChecked, bytes, pool))
      findings.push({ message: `${what}: ${message}`, affects: [] });
    if (findings.length === 0) openStateAt(store, subject.treeRoot, dir, bytes).close();
  } catch (error) {
    if (!isPgError(error)) throw error;
    findings.push({ message: `${what}: ${error.message}`, affects: [] });
  }
  progress.advance(task, bytes);
  progress.done(task, findings.length === 0 ? undefined : 'damaged');
  return { bytes, findings };
}

async function positionNow(roots: Roots, { id }: Writable): Promise<number | undefined> {
  try {
    return id === undefined ? undefined : (await commitContainer(roots, id)).size;
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    return undefined;
  }
}

const latin1ToText = (path: string): string => Buffer.from(path, 'latin1').toString();

function affectedFiles(
  store: Store,
  { treeRoot, dir, what }: Writable,
  places: { at: number; length: number }[],
): string[] {
  if (places.length === 0) return [];
  const where = (at: number): string => `byte ${at} of the log (sector ${Math.floor(at / SECTOR_BYTES)})`;
  try {
    const paths = pathsOver(store, treeRoot, dir, places);
    if (paths.length === 0) return [`${what}: nothing that is in use now; ${where(places[0]!.at)}`];
    return paths.map((path) => `${what}: ${latin1ToText(path)}; ${where(places[0]!.at)}`);
  } catch (error) {
    if (!isPgError(error)) throw error;
    return [`${what}: ${where(places[0]!.at)}; which files these are is not known: ${error.message}`];
  }
}

/** Full sectors of the log, from sector `from` on, whose bytes have another root than was kept of them. */
async function compareRoots(dir: string, from: number, bytes: number, pool: SectorPool): Promise<string[]> {
  const bases = basesOf(dir);
  const kept = new RootsFile(dir, logSalt(dir)).all().slice(0, Math.floor(bytes / SECTOR_BYTES));
  const words = await Promise.all(
    kept.map(async ({ root, isGone }, sector) => {
      if (isGone || sector < from) return [];
      const offset = sector * SECTOR_BYTES;
      const file = bases.find(({ end }) => offset < end)?.name ?? 'log';
      const found = await pool.run({ kind: 'root', path: join(dir, file), offset });
      if (Buffer.compare(found.root, root) === 0) return [];
      return [`sector ${sector} of the log (from byte ${offset} on) has another root than was kept of it`];
    }),
  );
  return words.flat();
}
