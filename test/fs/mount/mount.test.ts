import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { canonicalMountPoint, mountRecordPath, startDetachedMount, stopDetachedMount } from '../../../fs/detached.ts';
import { RootsFile } from '../../../fs/log/roots.ts';
import { logSalt } from '../../../fs/log/verify.ts';
import { bufferRoot } from '../../../mdm/merkle.ts';
import { isPgError } from '../../../mdm/error.ts';
import { Bench, needFuse } from './harness.ts';

const mountTable = (): string => readFileSync('/proc/self/mounts', 'utf8');

describe('fs: a mount', () => {
  let bench: Bench;
  before(function () {
    needFuse(this);
  });
  beforeEach(() => {
    bench = new Bench();
  });
  afterEach(() => bench.clean());

  it('keeps what was written over unmount and mount', async () => {
    let mount = await bench.mount();
    mkdirSync(bench.path('d'));
    const bytes = Buffer.alloc(3 << 20, 'pattern 123 ');
    writeFileSync(bench.path('d/big'), bytes);
    writeFileSync(bench.path('caf\u00e9'), 'utf8 name');
    renameSync(bench.path('caf\u00e9'), bench.path('d/other'));
    await mount.unmount();
    await mount.closed;
    assert.deepEqual(readdirSync(bench.at), []);
    mount = await bench.mount();
    assert.deepEqual(readdirSync(bench.at), ['d']);
    assert.deepEqual(readdirSync(bench.path('d')).toSorted(), ['big', 'other']);
    assert.ok(readFileSync(bench.path('d/big')).equals(bytes));
    assert.equal(readFileSync(bench.path('d/other'), 'utf8'), 'utf8 name');
  });

  it('is seen by others with suid, dev, and the label as its source', async () => {
    await bench.mount();
    const line = mountTable()
      .split('\n')
      .find((l) => l.includes(bench.at));
    assert.match(line!, /^test \S+ fuse\.pg rw,.*default_permissions,allow_other/);
    assert.doesNotMatch(line!, /nosuid|nodev/);
    assert.ok(statfsSync(bench.at).blocks > 0);
  });

  it('is nosuid and nodev if it is to be', async () => {
    await bench.mount({ noSuid: true, noDev: true });
    const line = mountTable()
      .split('\n')
      .find((l) => l.includes(bench.at));
    assert.match(line!, /^test \S+ fuse\.pg rw,nosuid,nodev/);
  });

  it('commit says where everything is, and the root is that of the log', async () => {
    const mount = await bench.mount();
    writeFileSync(bench.path('a'), Buffer.alloc(100_000, 7), { flush: true });
    const position = await mount.commit();
    const log = readFileSync(join(bench.logDir, 'log')).subarray(0, position.size);
    assert.equal(log.length, position.size);
    assert.deepEqual(Buffer.from(position.root), Buffer.from(bufferRoot(log)));
    assert.deepEqual(await mount.position(), position);
    writeFileSync(bench.path('b'), 'more', { flush: true });
    const later = await mount.commit();
    assert.ok(later.size > position.size);
    assert.equal((await mount.stats()).dirty, false);
  });

  /** A log with 5 MiB, of which a mount must read everything again. */
  const leaveLog = async (): Promise<void> => {
    const mount = await bench.mount();
    writeFileSync(bench.path('big'), Buffer.alloc(5 << 20, 'pattern'));
    await mount.commit();
    writeFileSync(bench.path('small'), 'tells that the other was durable');
    await mount.commit();
    await mount.unmount();
    for (const name of ['hash', 'checkpoint']) rmSync(join(bench.logDir, name));
  };
  const writeNew = (): void => {
    const file = openSync(bench.path('new'), 'w');
    fsyncSync(file);
    closeSync(file);
  };
  const isEio = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'EIO';

  it('takes no more writes once the log turns out not to have the root that was recorded of it', async () => {
    await leaveLog();
    const roots = new RootsFile(bench.logDir, logSalt(bench.logDir));
    roots.put(0, { root: new Uint8Array(32).fill(7), isGone: false });
    roots.close();
    const reports: string[] = [];
    const mount = await bench.mount({ report: (message) => reports.push(message) });
    await assert.rejects(mount.commit(), (error) => isPgError(error) && /root/.test(error.message));
    assert.match(reports.join('\n'), /do not have the root that was recorded/);
    assert.match(mount.damage ?? '', /root/);
    assert.throws(writeNew, isEio);
    assert.equal(readFileSync(bench.path('small')).length, 32);
    assert.equal(statSync(bench.path('big')).size, 5 << 20, 'what is there can still be read');
  });

  it('goes on when checksums tell what has rotted: only reading that fails', async () => {
    await leaveLog();
    const fd = openSync(join(bench.logDir, 'log'), 'r+');
    writeSync(fd, Buffer.from('other'), 0, 5, 1 << 20);
    closeSync(fd);
    const reports: string[] = [];
    const mount = await bench.mount({ report: (message) => reports.push(message) });
    await mount.commit();
    assert.match(mount.damage ?? '', /1 of its payloads/);
    writeNew();
    await mount.commit();
    assert.throws(() => readFileSync(bench.path('big')), isEio);
    assert.equal(readFileSync(bench.path('small')).length, 32);
    await mount.stats();
    assert.match(reports.join('\n'), /\/big/);
  });

  it('writes checkpoints while it is served, and starts from one', async () => {
    let mount = await bench.mount();
    for (let i = 0; i < 300; i++) writeFileSync(bench.path(`file${i}`), `${i}`);
    const asked = [mount.checkpoint(), mount.checkpoint()];
    for (let i = 0; i < 300; i += 2) unlinkSync(bench.path(`file${i}`));
    await Promise.all(asked);
    await mount.checkpoint();
    assert.ok(existsSync(join(bench.logDir, 'checkpoint')) && existsSync(join(bench.logDir, 'checkpoint.1')));
    assert.equal(existsSync(join(bench.logDir, 'checkpoint.part')), false);
    assert.ok((await mount.stats()).bytesSinceCheckpoint < 1000);
    void mount.checkpoint().catch(() => undefined);
    await mount.unmount();
    mount = await bench.mount();
    assert.ok((await mount.stats()).bytesSinceCheckpoint < 1000);
    assert.equal(readdirSync(bench.at).length, 150);
    assert.equal(readFileSync(bench.path('file299'), 'utf8'), '299');
  });

  it('gives the space of removed files back by itself', async () => {
    const mount = await bench.mount();
    writeFileSync(bench.path('keep'), Buffer.alloc(3 << 20, 'keep'));
    for (let i = 0; i < 12; i++) writeFileSync(bench.path(`file${i}`), Buffer.alloc(6 << 20, `${i}`));
    await mount.commit();
    const blocks = (): number => statSync(join(bench.logDir, 'log')).blocks * 512;
    assert.ok(blocks() > 72 << 20);
    for (let i = 0; i < 12; i++) unlinkSync(bench.path(`file${i}`));
    const end = Date.now() + 40_000;
    while (blocks() > 24 << 20 && Date.now() < end) await sleep(100);
    assert.ok(blocks() <= 24 << 20, `${blocks()} bytes`);
    assert.ok(readFileSync(bench.path('keep')).equals(Buffer.alloc(3 << 20, 'keep')));
    assert.equal((await mount.clean()).damaged, 0);
    const before = await mount.commit();
    await mount.unmount();
    const again = await bench.mount();
    assert.ok((await again.commit()).size >= before.size);
    assert.equal(again.damage, null);
    assert.ok(readFileSync(bench.path('keep')).equals(Buffer.alloc(3 << 20, 'keep')));
  });

  it('copies by copy_file_range(2) without writing the bytes again', async () => {
    const mount = await bench.mount();
    writeFileSync(bench.path('source'), Buffer.alloc(8 << 20, 'shared'));
    const before = (await mount.commit()).size;
    const script =
      'import os,sys; a=os.open(sys.argv[1],0); b=os.open(sys.argv[2],os.O_CREAT|os.O_RDWR); print(os.copy_file_range(a,b,8<<20)); os.fsync(b)';
    const { stdout } = spawnSync('python3', ['-c', script, bench.path('source'), bench.path('copy')], {
      encoding: 'utf8',
    });
    assert.equal(Number(stdout), 8 << 20);
    const grown = (await mount.commit()).size - before;
    assert.ok(grown < 4096, `the log grew by ${grown} bytes`);
    assert.ok(readFileSync(bench.path('copy')).equals(Buffer.alloc(8 << 20, 'shared')));
  });

  it('lists what changed', async () => {
    const mount = await bench.mount();
    mkdirSync(bench.path('d'));
    writeFileSync(bench.path('d/f'), 'x');
    const changes = await mount.changes();
    assert.deepEqual(
      changes.filter((c) => c.path !== '/'),
      [
        { kind: 'A', path: '/d' },
        { kind: 'A', path: '/d/f' },
      ],
    );
  });

  it('counts operations, and answers many fsyncs at once', async () => {
    const mount = await bench.mount();
    const fds = Array.from({ length: 8 }, (_, i) => openSync(bench.path(`f${i}`), 'w'));
    const { fsync } = await import('node:fs');
    for (const fd of fds) writeSync(fd, 'data');
    await Promise.all(
      fds.map((fd) => new Promise<void>((resolve, reject) => fsync(fd, (e) => (e ? reject(e) : resolve())))),
    );
    for (const fd of fds) closeSync(fd);
    const stats = await mount.stats();
    assert.equal(stats.operations['MKNOD'], 8);
    assert.ok(stats.syncs >= 1 && stats.syncRequests <= 8, JSON.stringify(stats));
    assert.equal(stats.bytesWritten, 32);
    assert.equal(stats.failed, null);
  });

  it('keeps an unlinked file for those who have it open, and lets it go with the last', async () => {
    const mount = await bench.mount();
    const fd = openSync(bench.path('gone'), 'w+');
    writeSync(fd, 'still here');
    unlinkSync(bench.path('gone'));
    assert.equal(fstatSync(fd).nlink, 0);
    const into = Buffer.alloc(10);
    readSync(fd, into, 0, 10, 0);
    assert.equal(into.toString(), 'still here');
    assert.equal((await mount.stats()).orphans, 1);
    closeSync(fd);
    // The kernel gives the inode back when it likes: dropping its caches makes it.
    for (let i = 0; i < 50 && (await mount.stats()).orphans > 0; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.equal((await mount.stats()).orphans, 0);
  });

  it('read-only mounts refuse changes, with and without a log', async () => {
    let mount = await bench.mount();
    writeFileSync(bench.path('f'), 'x');
    await mount.unmount();
    for (const logDir of [bench.logDir, null]) {
      mount = await bench.mount({ readOnly: true, logDir });
      assert.throws(() => mkdirSync(bench.path('d')), { code: 'EROFS' });
      assert.deepEqual(readdirSync(bench.at), logDir === null ? [] : ['f']);
      await mount.unmount();
    }
  });

  it('refuses what cannot be a mount point, a second mount on one, and a log in use', async () => {
    await assert.rejects(bench.mount({ mountPoint: join(bench.dir, 'none') }), { code: 'MOUNT_POINT' });
    writeFileSync(join(bench.dir, 'file'), '');
    await assert.rejects(bench.mount({ mountPoint: join(bench.dir, 'file') }), { code: 'MOUNT_POINT' });
    await bench.mount();
    await assert.rejects(bench.mount(), { code: 'MOUNT_POINT' });
    mkdirSync(join(bench.dir, 'mnt2'));
    await assert.rejects(bench.mount({ mountPoint: join(bench.dir, 'mnt2') }), { code: 'LOG_BUSY' });
    assert.ok(!mountTable().includes('mnt2'));
  });

  it('says busy, and lazily goes with the last user', async () => {
    const mount = await bench.mount();
    const fd = openSync(bench.path('open'), 'w');
    await assert.rejects(mount.unmount(), { code: 'MOUNT_BUSY' });
    await mount.unmount(true);
    assert.deepEqual(readdirSync(bench.at), []);
    writeSync(fd, 'late');
    closeSync(fd);
    await mount.closed;
    await bench.mount();
    assert.equal(readFileSync(bench.path('open'), 'utf8'), 'late');
  });

  it('ends though somebody is in it, with all that was written kept', async () => {
    let mount = await bench.mount();
    writeFileSync(bench.path('kept'), 'here', { flush: true });
    const fd = openSync(bench.path('kept'), 'r+');
    await mount.unmount(true);
    await mount.end();
    assert.throws(() => fstatSync(fd), { code: 'ENOTCONN' });
    closeSync(fd);
    // The log is nobody's any more.
    mount = await bench.mount();
    assert.equal(readFileSync(bench.path('kept'), 'utf8'), 'here');
  });

  it('ends with its process, which it does not keep from ending', () => {
    const script = `
      const { startMount } = await import(${JSON.stringify(new URL('../../../fs/mount.ts', import.meta.url).href)});
      await startMount(${JSON.stringify({ roots: bench.roots, treeRoot: null, logDir: bench.logDir, mountPoint: bench.at, label: 'x' })});
      (await import('node:fs')).writeFileSync(${JSON.stringify(bench.path('f'))}, 'x');
      process.exit(7);`;
    writeFileSync(join(bench.dir, 'script.mjs'), script);
    const result = spawnSync(process.execPath, [join(bench.dir, 'script.mjs')], {
      timeout: 20_000,
      encoding: 'utf8',
    });
    assert.equal(result.status, 7, result.stderr);
    assert.ok(!mountTable().includes(bench.at));
  });
});

describe('fs: a mount with a process of its own', () => {
  let bench: Bench;
  before(function () {
    needFuse(this);
  });
  beforeEach(() => {
    bench = new Bench();
  });
  afterEach(async () => {
    spawnSync('umount', ['-l', bench.at]);
    await bench.clean();
  });

  const start = (): Promise<void> =>
    startDetachedMount({
      roots: bench.roots,
      treeRoot: null,
      logDir: bench.logDir,
      mountPoint: canonicalMountPoint(bench.at),
      label: 'test',
    });
  const serverPid = (): number =>
    (JSON.parse(readFileSync(mountRecordPath(bench.roots, bench.at), 'utf8')) as { pid: number }).pid;

  it('umount waits until all is kept', async () => {
    await start();
    writeFileSync(bench.path('f'), 'kept');
    await stopDetachedMount(bench.roots, bench.at);
    await start();
    assert.equal(readFileSync(bench.path('f'), 'utf8'), 'kept');
    await stopDetachedMount(bench.roots, bench.at);
    await assert.rejects(stopDetachedMount(bench.roots, bench.at), { code: 'NOT_MOUNTED' });
  });

  it('after kill -9 of its holder, everything that was written is there', async () => {
    await start();
    const written: string[] = [];
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 20; i++) {
        const name = `f-${round}-${i}`;
        const fd = openSync(bench.path(name), 'w');
        writeSync(fd, name.repeat(100 * (i + 1)));
        if (i % 3 === 0) fsyncSync(fd);
        closeSync(fd);
        written.push(name);
      }
      writeFileSync(bench.path('last'), String(round), { flush: true });
      process.kill(serverPid(), 'SIGKILL');
      assert.throws(() => {
        for (;;) statfsSync(bench.path('last'));
      });
      await start();
      assert.equal(readFileSync(bench.path('last'), 'utf8'), String(round));
      for (const name of written) {
        const i = Number(name.split('-')[2]);
        assert.equal(readFileSync(bench.path(name), 'latin1'), name.repeat(100 * (i + 1)));
      }
    }
    await stopDetachedMount(bench.roots, bench.at);
  });

  it('does what programs expect of a root', async function () {
    if (spawnSync('python3', ['--version']).status !== 0) {
      console.error('SKIPPED: python3 is not installed');
      this.skip();
    }
    await start();
    const script = fileURLToPath(new URL('./posix.py', import.meta.url));
    const result = spawnSync('python3', [script, bench.at], { encoding: 'utf8', timeout: 50_000 });
    assert.equal(result.stdout, 'ok\n', result.stderr);
    await stopDetachedMount(bench.roots, bench.at);
  });

  it('serves real programs: tar, sqlite, mmap, O_DIRECT', async function () {
    if (spawnSync('sqlite3', ['--version']).status !== 0) {
      console.error('SKIPPED: sqlite3 is not installed');
      this.skip();
    }
    await start();
    execFileSync('sh', ['-c', 'tar -C /etc -cf - . 2>/dev/null | tar -C "$0" -xf -', bench.at]);
    execFileSync('diff', ['-r', '--no-dereference', '/etc/alternatives', bench.path('alternatives')]);
    const sql = `create table t(a); ${Array.from({ length: 50 }, (_, i) => `insert into t values(${i});`).join('')} select sum(a) from t;`;
    assert.equal(execFileSync('sqlite3', [bench.path('db')], { input: sql, encoding: 'utf8' }).trim(), '1225');
    execFileSync('dd', [
      'if=/dev/zero',
      `of=${bench.path('direct')}`,
      'bs=64k',
      'count=4',
      'oflag=direct',
      'status=none',
    ]);
    assert.equal(statSync(bench.path('direct')).size, 4 << 16);
    rmSync(bench.path('direct'));
    await stopDetachedMount(bench.roots, bench.at);
    await start();
    assert.equal(
      execFileSync('sqlite3', [bench.path('db'), 'pragma integrity_check'], { encoding: 'utf8' }).trim(),
      'ok',
    );
    await stopDetachedMount(bench.roots, bench.at).catch((error: unknown) =>
      assert.ok(!isPgError(error), String(error)),
    );
  });
});
