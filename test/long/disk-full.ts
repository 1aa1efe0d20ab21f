import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { constants, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import * as fs from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { damagedSidecars, describeDamage, verifyLog } from '../../fs/log/verify.ts';
import type { Mount, MountOptions } from '../../fs/mount.ts';
import { LoopDisk } from './loop-disk.ts';

/**
 * A disk of its own that a mount fills, with data, with names, with a database, and that others fill while it writes checkpoints and cleans: programs get ENOSPC, what was
 * acknowledged stays, rm gives space back, and everything goes on then, also after kill -9. `npm run test:long -- disk-full [MIB]`.
 */
const MIB = Number(process.argv[2] ?? 160);
const BUILT = new URL('../../dist/fs/mount.js', import.meta.url).href;
const { startMount } = (await import(BUILT)) as typeof import('../../fs/mount.ts');
const run = promisify(execFile);
const isFull = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOSPC';

const dir = mkdtempSync('/var/tmp/pg-long-full-');
const at = join(dir, 'mnt');
mkdirSync(at);
const disk = new LoopDisk(dir, MIB);
const logDir = join(disk.at, 'log');
const roots = { data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') };
const reports: string[] = [];

function mountDisk(): Promise<Mount> {
  const report = (text: string): void => void reports.push(text);
  const options: MountOptions = { roots, treeRoot: null, logDir, mountPoint: at, label: 'full', report };
  return startMount(options);
}

let mount = await mountDisk();

async function mountAgain(): Promise<void> {
  mount = await mountDisk();
}

const contentOf = (name: string, bytes: number): Buffer => Buffer.alloc(bytes, `${name};`);

/** Makes and syncs files until there is no space; their sizes by name. What was refused is removed. */
async function fillWithFiles(prefix: string, bytes: number): Promise<Map<string, number>> {
  const known = new Map<string, number>();
  for (let i = 0; ; i++) {
    const name = `${prefix}${i}`;
    try {
      const file = await fs.open(join(at, name), 'w');
      try {
        await file.writeFile(contentOf(name, bytes));
        await file.sync();
      } finally {
        await file.close();
      }
      known.set(name, bytes);
    } catch (error) {
      assert.ok(isFull(error), `${name}: ${(error as Error).message}`);
      await fs.rm(join(at, name), { force: true });
      return known;
    }
  }
}

async function check(known: ReadonlyMap<string, number>): Promise<void> {
  for (const [name, bytes] of known)
    assert.ok((await fs.readFile(join(at, name))).equals(contentOf(name, bytes)), `${name} is not what was written`);
}

/** Waits until so much of the disk is free: given back by the cleaner. */
async function freed(bytes: number, what: string): Promise<void> {
  const start = performance.now();
  while (disk.free < bytes) {
    assert.ok(performance.now() - start < 60_000, `${what}: ${disk.free} bytes free, not ${bytes}`);
    await sleep(100);
    // Somebody uses the mount now and then.
    await fs.readdir(at);
  }
  console.log(
    `${what}: ${(disk.free / 2 ** 20).toFixed(0)} of ${MIB} MiB free after ${((performance.now() - start) / 1000).toFixed(1)} s`,
  );
}

/** What there was no space for goes once the cleaner has given some back. */
async function succeeds(what: string, action: () => Promise<unknown>): Promise<void> {
  const start = performance.now();
  for (;;) {
    try {
      await action();
      break;
    } catch (error) {
      assert.ok(isFull(error) && performance.now() - start < 60_000, `${what}: ${(error as Error).message}`);
      await sleep(50);
    }
  }
  console.log(`${what}: after ${((performance.now() - start) / 1000).toFixed(1)} s`);
}

async function killAll(): Promise<void> {
  process.kill(mount.serverPid, 'SIGKILL');
  await mount.stats();
}

async function byData(): Promise<void> {
  const before = disk.free;
  const known = await fillWithFiles('data', 1 << 20);
  console.log(`data: ${known.size} files of 1 MiB, ${(disk.free / 2 ** 20).toFixed(1)} MiB free`);
  assert.ok(known.size > MIB * 0.6, `only ${known.size} MiB`);
  await check(known);
  await killAll();
  await check(known);
  await mount.unmount();
  await mountAgain();
  await check(known);
  for (const [i, name] of [...known.keys()].entries())
    if (i % 2 === 0) {
      await fs.rm(join(at, name));
      known.delete(name);
    }
  await freed(before * 0.2, 'half of the data removed');
  await check(known);
  const more = await fillWithFiles('more', 300_000);
  assert.ok(more.size > 30, `${more.size} more`);
  await check(more);
  await check(known);
  for (const name of [...known.keys(), ...more.keys()]) await fs.rm(join(at, name));
  await freed(before * 0.5, 'all data removed');
}

async function byNames(): Promise<void> {
  const before = disk.free;
  // The least space that it takes to be full soon.
  disk.fill(24 << 20);
  let made = 0;
  try {
    for (; ; made++) {
      if (made % 1000 === 0) await fs.mkdir(join(at, `d${made / 1000}`));
      await (
        await fs.open(join(at, `d${Math.floor(made / 1000)}`, `name${made}`), constants.O_CREAT | constants.O_EXCL)
      ).close();
    }
  } catch (error) {
    assert.ok(isFull(error), String(error));
  }
  console.log(`names: ${made} made`);
  assert.ok(made > 20_000);
  await assert.rejects(fs.mkdir(join(at, 'no more')), isFull);
  await killAll();
  const names = (await fs.readdir(at, { recursive: true })).length;
  assert.ok(
    names === made + Math.ceil(made / 1000) || names === made + Math.floor(made / 1000) + 1,
    `${names} names of ${made}`,
  );
  // Removing works with no byte left, and is how a user gets out of this.
  await run('rm', ['-rf', ...(await fs.readdir(at)).map((name) => join(at, name))]);
  await succeeds('a name behind the removal', () => fs.mkdir(join(at, 'again')));
  assert.deepEqual(await fs.readdir(at), ['again']);
  await fs.rm(join(disk.at, 'filler'));
  await mount.clean();
  await freed(before * 0.6, 'all names removed');
}

const SQL = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute('pragma journal_mode=' + sys.argv[2]); db.execute('pragma synchronous=full')
db.execute('create table if not exists t(i integer primary key, v blob)')
n = db.execute('select count(*) from t').fetchone()[0]
try:
    while n < int(sys.argv[3]):
        db.execute('insert into t values(?, zeroblob(20000))', (n,)); n += 1
except sqlite3.OperationalError as e:
    if 'full' not in str(e) and 'disk I/O' not in str(e): raise
print(n)
`;

async function byDatabase(): Promise<void> {
  for (const journal of ['wal', 'delete']) {
    const path = join(at, `db-${journal}`);
    const insert = async (upTo: number): Promise<number> =>
      Number((await run('python3', ['-c', SQL, path, journal, String(upTo)])).stdout);
    const sql = async (text: string): Promise<string> => (await run('sqlite3', [path, text])).stdout.trim();
    disk.fill(12 << 20);
    const acknowledged = await insert(1e9);
    await killAll();
    // To be opened a database in WAL mode needs space for an index of it.
    await fs.rm(join(disk.at, 'filler'));
    assert.equal(await sql('pragma integrity_check'), 'ok');
    const rows = Number(await sql('select count(*) from t'));
    // The commit that was refused may be there: its pages were in the cache when the sync failed.
    assert.ok(rows === acknowledged || rows === acknowledged + 1, `${rows} of ${acknowledged}`);
    assert.equal(await insert(rows + 100), rows + 100);
    assert.equal(await sql('pragma integrity_check'), 'ok');
    await fs.rm(path);
    console.log(`database (${journal}): ${rows} rows until the disk was full, ${rows + 100} behind that`);
  }
}

/** The disk has no byte left for a checkpoint, for what the cleaner moves, or for the end of a mount: each says so, or does without. */
async function besideTheWork(): Promise<void> {
  const known = new Map<string, number>();
  for (let i = 0; i < 3000; i++) {
    const name = `small${i}`;
    await fs.writeFile(join(at, name), contentOf(name, 3000));
    known.set(name, 3000);
  }
  await mount.commit();
  for (const [i, name] of [...known.keys()].entries())
    if (i % 4 !== 0) {
      await fs.rm(join(at, name));
      known.delete(name);
    }
  await mount.commit();
  for (const but of [0, 100_000, 300_000, 600_000]) {
    disk.fill(but);
    const results = await Promise.allSettled([mount.checkpoint(), mount.clean(), mount.commit()]);
    console.log(
      `${but} bytes free: ${results.map((result) => (result.status === 'fulfilled' ? 'done' : String(result.reason.message))).join('; ')}`,
    );
    await check(known);
    await mount.unmount();
    await mountAgain();
    await check(known);
    await killAll();
    await check(known);
    const [first] = known.keys();
    await fs.rm(join(at, first!));
    known.delete(first!);
    await fs.rm(join(disk.at, 'filler'));
    await fs.writeFile(join(at, `behind${but}`), contentOf(`behind${but}`, 100_000));
    known.set(`behind${but}`, 100_000);
    await mount.commit();
  }
  await mount.checkpoint();
  await mount.clean();
  await check(known);
}

try {
  await byData();
  await byNames();
  await byDatabase();
  await besideTheWork();
  assert.equal((await mount.stats()).failed, null);
  await mount.unmount();
  const fd = openSync(join(logDir, 'log'), 'r');
  assert.equal(describeDamage(verifyLog(logDir, fstatSync(fd).size, false)), undefined);
  closeSync(fd);
  assert.deepEqual(damagedSidecars(logDir), []);
  console.log(
    `all is well; reported meanwhile:\n  ${[...new Set(reports.map((text) => text.replaceAll(/\d+/g, 'N')))].join('\n  ')}`,
  );
} finally {
  await mount.unmount(true).catch(() => undefined);
  await mount.closed.catch(() => undefined);
  disk.unmount();
  rmSync(dir, { recursive: true, force: true });
}
