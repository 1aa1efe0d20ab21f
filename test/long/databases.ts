import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Database } from './databases/database.ts';
import { Postgres, postgresPrograms } from './databases/postgres.ts';
import { Redis } from './databases/redis.ts';
import { Sqlite } from './databases/sqlite.ts';
import { type Kill, KilledMount } from './holder.ts';
import { LoopDisk } from './loop-disk.ts';

/**
 * Databases on a mount that loses its server, its holder or both to kill -9, or its disk the power, at random moments while they commit: whatever they have
 * acknowledged is there afterwards, and their own checks find nothing. `npm run test:long -- databases [KILLS]`. Needs Debian's postgresql and redis-server.
 */
const KILLS = Number(process.argv[2] ?? 120);
const DISK_MIB = 3072;
type Blow = Kill | 'power';
const BLOWS: Blow[] = ['server', 'server', 'holder', 'server, holder', 'holder, server', 'power', 'power'];
/** A database goes on within this after its filesystem's server was killed. */
const GO_ON_MS = 30_000;

function need(): void {
  const missing = [
    postgresPrograms() === undefined ? 'postgresql' : '',
    existsSync('/usr/bin/redis-server') ? '' : 'redis-server',
  ].filter(Boolean);
  if (missing.length > 0) throw new Error(`install first, without starting them: apt-get install ${missing.join(' ')}`);
}

/** The server alone was killed: nobody may notice, but for the pause. */
async function goOn(databases: readonly Database[]): Promise<void> {
  const before = databases.map(({ acknowledged }) => acknowledged);
  const deadline = performance.now() + GO_ON_MS;
  for (const [i, database] of databases.entries()) {
    while (database.acknowledged < before[i]! + 3) {
      assert.equal(database.failure, undefined, `${database.name} after its filesystem's server was killed`);
      assert.ok(performance.now() < deadline, `${database.name} does not go on`);
      await sleep(20);
    }
  }
}

need();
const dir = mkdtempSync('/var/tmp/pg-long-db-');
const sockets = join(dir, 'sockets');
mkdirSync(sockets, { mode: 0o755 });
execFileSync('chmod', ['755', dir]);
const disk = new LoopDisk(dir, DISK_MIB);
const mount = new KilledMount(disk.at);
const counts: Partial<Record<Blow, number>> = {};
let databases: Database[] = [];
try {
  execFileSync('chmod', ['755', mount.dir]);
  await mount.mount();
  const sqlites = (['wal', 'delete', 'persist'] as const).map((journal) => new Sqlite(mount.at, journal));
  databases = [...sqlites, new Postgres(mount.at, join(sockets, 'pg')), new Redis(mount.at, sockets)];
  await Promise.all(databases.map((database) => database.create()));
  execFileSync('sync', ['-f', mount.at]);
  await Promise.all(databases.map((database) => database.startAndCheck()));
  for (const database of databases) database.load();
  for (let kill = 0; kill < KILLS; kill++) {
    await sleep(100 + Math.random() * 1500);
    for (const { name, failure } of databases) assert.equal(failure, undefined, name);
    const blow = BLOWS[Math.floor(Math.random() * BLOWS.length)]!;
    counts[blow] = (counts[blow] ?? 0) + 1;
    if (blow === 'server') {
      await mount.kill('server');
      await goOn(databases);
      continue;
    }
    if (blow === 'power') disk.cutPower();
    await mount.kill(blow === 'power' ? 'server, holder' : blow);
    await Promise.all(databases.map((database) => database.kill()));
    if (blow === 'power') disk.powerOn();
    await mount.mount();
    await Promise.all(databases.map((database) => database.startAndCheck()));
    for (const database of databases) database.load();
    if (kill % 20 === 19)
      console.log(
        `${kill + 1} kills, ${databases.map(({ name, acknowledged }) => `${name} ${acknowledged}`).join(', ')}`,
      );
  }
  await Promise.all(databases.map((database) => database.kill()));
  await Promise.all(databases.map((database) => database.startAndCheck()));
  await Promise.all(databases.map((database) => database.kill()));
  await mount.verify();
  console.log(
    `killed: ${JSON.stringify(counts)}; acknowledged: ${databases.map(({ name, acknowledged }) => `${name} ${acknowledged}`).join(', ')}`,
  );
  console.log(mount.mountTimes());
} catch (error) {
  console.error(mount.messages());
  throw error;
} finally {
  await Promise.all(databases.map((database) => database.kill()));
  await mount.remove();
  disk.unmount();
  rmSync(dir, { recursive: true, force: true });
}
