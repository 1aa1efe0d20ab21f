import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { encodeSectorRecord } from './catalog.ts';
import { indexDamage } from './index-check.ts';
import { openIndex } from './index-db.ts';
import { indexDir, type Roots, sectorsDir } from './paths.ts';
import { SectorPool } from './sector-pool.ts';
import { SECTOR_FILE_BYTES, syncDirectory, syncFile } from './sector.ts';

/** What an index was made of again. */
export interface Rebuilt {
  /** When the copy was made that was put in its place; undefined when there was no whole one: then it is made of the sectors alone. */
  copiedAt: Date | undefined;
  /** Sectors whose files were whole and which were not in the copy. */
  sectors: number;
  /** Sector files that are damaged, and which it does not have either. */
  damaged: string[];
  /** Where the damaged index is now. */
  aside: string;
}

/**
 * Makes the index again: from the copy that is kept of it, if that is whole, and from the sector files, each of which is read and hashed. What was
 * imported or removed since the copy was made is as it was then: images that are missing are to be imported again, which finds their sectors here.
 * Without a copy nothing is known but sectors. STORE_IN_USE while any other process has the store open.
 */
export async function rebuildIndex(roots: Roots): Promise<Rebuilt> {
  const dir = indexDir(roots);
  const data = join(dir, 'data.mdb');
  refuseUsers(join(dir, 'lock.mdb'));
  const aside = join(dir, `damaged-${new Date().toISOString().replaceAll(':', '')}.mdb`);
  const copy = join(dir, 'copy', 'data.mdb');
  const hasCopy = existsSync(copy) && (await indexDamage(roots, join(dir, 'copy'))) === undefined;
  const copiedAt = hasCopy ? statSync(copy).mtime : undefined;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const made = `${data}.new`;
  if (hasCopy) {
    copyFileSync(copy, made);
    syncFile(made);
  }
  // There is an index at every moment: with none a new, empty one would be made, by which the collector takes every sector.
  if (hasCopy) {
    if (existsSync(data)) linkSync(data, aside);
    renameSync(made, data);
  } else if (existsSync(data)) renameSync(data, aside);
  // The table of readers is of the old one.
  rmSync(join(dir, 'lock.mdb'), { force: true });
  syncDirectory(dir);
  return { copiedAt, aside, ...(await addSectors(roots)) };
}

/**
 * A process that had the old index open would go on writing to it. LMDB holds a lock on its lock file as long as it is open (mdb.c,
 * mdb_env_share_locks); looking at the descriptors of processes instead would wait for those that are stuck.
 */
function refuseUsers(lockFile: string): void {
  if (!existsSync(lockFile)) return;
  const { ino } = statSync(lockFile);
  // `1: POSIX  ADVISORY  READ 1234 08:01:5678 0 0` (proc(5)); whoever waits has an arrow.
  const users = readFileSync('/proc/locks', 'latin1')
    .split('\n')
    .map((line) => /POSIX +\S+ +\S+ +(-?\d+) +[0-9a-f]+:[0-9a-f]+:(\d+) /.exec(line))
    .filter((match) => match !== null && Number(match[2]) === ino && Number(match[1]) !== process.pid)
    .map((match) => match![1]);
  if (users.length === 0) return;
  throw new PgError('STORE_IN_USE', `the store is in use by process ${[...new Set(users)].join(', ')}`, {
    hint: 'stop the containers, mounts and the node daemon first: pg stop, pg umount, pg node stop',
  });
}

/** Enters the sectors that have a whole file and no entry. */
async function addSectors(roots: Roots): Promise<{ sectors: number; damaged: string[] }> {
  const index = openIndex(roots, false);
  const pool = new SectorPool();
  const damaged: string[] = [];
  const found: { root: Buffer; used: number; isPacked: boolean }[] = [];
  try {
    const table = index.table('sectors');
    const names = sectorFiles(roots).filter(({ name }) => !table.has(Buffer.from(name, 'hex')));
    await Promise.all(
      names.map(async ({ name, path }) => {
        const root = Buffer.from(name, 'hex');
        const { root: got, bad, used } = await pool.run({ kind: 'check', path, spans: new Uint32Array(0) });
        if (bad!.length > 0 || Buffer.compare(got, root) !== 0) damaged.push(path);
        else found.push({ root, used: used!, isPacked: statSync(path).size !== SECTOR_FILE_BYTES });
      }),
    );
    index.transaction(() => {
      for (const { root, used, isPacked } of found)
        table.put(root, encodeSectorRecord({ used, form: isPacked ? 'packed' : 'plain' }));
    });
  } finally {
    await pool.close();
    await index.close();
  }
  return { sectors: found.length, damaged };
}

function sectorFiles(roots: Roots): { name: string; path: string }[] {
  const dir = sectorsDir(roots);
  if (!existsSync(dir)) return [];
  return readdirSync(dir)
    .filter((name) => /^[0-9a-f]{2}$/.test(name))
    .flatMap((prefix) =>
      readdirSync(join(dir, prefix))
        .filter((name) => /^[0-9a-f]{64}$/.test(name) && name.startsWith(prefix))
        .map((name) => ({ name, path: join(dir, prefix, name) })),
    );
}
