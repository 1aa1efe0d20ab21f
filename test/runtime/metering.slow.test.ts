import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { IMAGE, Installation, needContainers } from './installation.ts';

interface Spent {
  Accesses: number;
  Read: number;
  Written: number;
  Compute: number;
}

describe('metering and budgets of I/O', function () {
  this.timeout(60_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open({ Env: ['PATH=/bin'] });
  });
  after(async () => pg?.close());

  const io = async (name: string): Promise<{ Spent: Spent; Budget: object | null; Amount: number | null }> =>
    JSON.parse(await pg.ok('inspect', '-f', '{{json .Pg.IO}}', name));
  const start = (name: string, ...flags: string[]) =>
    pg.ok('run', '-d', '--network', 'none', '--name', name, ...flags, IMAGE, 'sleep', '1000');
  const write = (name: string, bytes: number, file = '/data') =>
    pg.pg('exec', name, 'dd', 'if=/dev/zero', `of=${file}`, 'bs=4096', `count=${bytes / 4096}`, 'conv=fsync');

  it('counts what is written and read, over restarts, and asks the prices', async () => {
    await start('web');
    const before = (await io('web')).Spent;
    assert.equal((await write('web', 1 << 20)).code, 0);
    const written = (await io('web')).Spent;
    const bytes = written.Written - before.Written;
    assert.ok(bytes >= 1 << 20 && bytes < (1 << 20) + 200_000, `${bytes} bytes were charged for 1 MiB`);
    assert.ok(written.Compute - before.Compute >= 128 * 256);
    assert.ok(written.Accesses > before.Accesses);
    await pg.ok('stop', '-t', '0', 'web');
    const stopped = (await io('web')).Spent;
    assert.ok(stopped.Written >= written.Written && stopped.Read >= written.Read);
    const file = join(pg.roots.data, 'containers', await pg.ok('inspect', '-f', '{{.Id}}', 'web'), 'log/meter');
    assert.equal(
      (JSON.parse(readFileSync(file, 'utf8')) as { spent: { written: number } }).spent.written,
      stopped.Written,
    );

    await pg.ok('start', 'web');
    // Of the cache nothing is left: it is read from the log.
    assert.equal((await pg.pg('exec', 'web', 'sha256sum', '/data')).code, 0);
    const read = (await io('web')).Spent;
    assert.ok(read.Read - stopped.Read >= 1 << 20, `${read.Read - stopped.Read} bytes were charged for reading 1 MiB`);

    assert.equal((await io('web')).Amount, null);
    mkdirSync(pg.roots.config, { recursive: true });
    writeFileSync(join(pg.roots.config, 'config.toml'), '[prices]\nwritten = 0.5\n');
    const priced = await io('web');
    assert.equal(priced.Amount, priced.Spent.Written / 2);
    const row = JSON.parse(await pg.ok('stats', '--no-stream', '--format', 'json', 'web')) as Record<string, string>;
    assert.match(row['IOCost']!, /^\d+ \/ \S+ \/ \S+ \/ \d+$/);
    assert.ok(Number(row['Amount']) > 0);
    rmSync(join(pg.roots.config, 'config.toml'));
    await pg.ok('rm', '-f', 'web');
  });

  it('a commit that was not counted before a crash is counted at the next start', async () => {
    await start('crashes');
    assert.equal((await write('crashes', 1 << 20)).code, 0);
    const { Written } = (await io('crashes')).Spent;
    const id = await pg.ok('inspect', '-f', '{{.Id}}', 'crashes');
    process.kill(Number(await pg.ok('inspect', '-f', '{{.Pg.ShimPid}}', 'crashes')), 'SIGKILL');
    rmSync(join(pg.roots.data, 'containers', id, 'log/meter'), { force: true });
    await pg.ok('start', 'crashes');
    assert.ok((await io('crashes')).Spent.Written >= Written);
    await pg.ok('rm', '-f', 'crashes');
  });

  it('is EDQUOT when a budget is exhausted; what fsync said is kept; with a larger budget it goes on', async () => {
    await start('poor', '--io-budget', 'written=2m');
    assert.deepEqual((await io('poor')).Budget, { Written: 2 << 20 });
    assert.equal((await pg.pg('exec', 'poor', 'sh', '-c', 'echo kept > /kept; sync /kept')).code, 0);
    const refused = await write('poor', 4 << 20);
    assert.notEqual(refused.code, 0);
    assert.match(refused.stderr, /quota exceeded/i);
    // The first syncfs(2) after a write-back that failed says so; what was accepted is committed with the next.
    await io('poor');
    const { Written } = (await io('poor')).Spent;
    assert.ok(Written <= 2 << 20 && Written > 1 << 20, `${Written} of 2 MiB`);
    assert.equal(await pg.ok('exec', 'poor', 'cat', '/kept'), 'kept');

    assert.equal(await pg.ok('update', '--io-budget', 'written=40m', 'poor'), 'poor');
    assert.equal((await write('poor', 4 << 20, '/again')).code, 0);
    await pg.ok('restart', '-t', '0', 'poor');
    assert.equal(await pg.ok('exec', 'poor', 'cat', '/kept'), 'kept');
    assert.equal(await pg.ok('exec', 'poor', 'stat', '-c', '%s', '/again'), String(4 << 20));

    await pg.ok('stop', '-t', '0', 'poor');
    await pg.ok('update', '--io-budget', 'written=1', 'poor');
    await pg.ok('start', 'poor');
    for (const command of ['mkdir /more', 'rm /kept', 'chmod 0 /kept', 'ln /kept /other', 'mv /kept /other']) {
      assert.match((await pg.pg('exec', 'poor', ...command.split(' '))).stderr, /quota exceeded/i, command);
    }
    await pg.ok('update', '--io-budget', 'none', 'poor');
    await pg.ok('exec', 'poor', 'mkdir', '/more');
    await pg.ok('rm', '-f', 'poor');
  });

  it('limits reads and money, and refuses what it does not know', async () => {
    await start('reads');
    assert.equal((await write('reads', 4 << 20)).code, 0);
    await pg.ok('restart', '-t', '0', 'reads');
    // So that what it needs of the program itself is in the page cache.
    await pg.pg('exec', 'reads', 'cat', '/proc/uptime', '/missing');
    const { Read } = (await io('reads')).Spent;
    await pg.ok('update', '--io-budget', `read=${Read + (1 << 20)}`, 'reads');
    const { code, stderr } = await pg.pg('exec', 'reads', 'cat', '/data');
    assert.notEqual(code, 0);
    assert.match(stderr, /quota exceeded|I\/O error/i);
    await pg.ok('stop', '-t', '0', 'reads');
    await pg.ok('update', '--io-budget', 'read=1', 'reads');
    const unstarted = await pg.pg('start', 'reads');
    assert.match(unstarted.stderr, /budget of container reads is exhausted/);
    await pg.ok('update', '--io-budget', 'none', 'reads');
    await pg.ok('start', 'reads');
    assert.equal((await pg.pg('exec', 'reads', 'sha256sum', '/data')).code, 0);

    const unpriced = await pg.pg('update', '--io-budget', 'amount=1', 'reads');
    assert.notEqual(unpriced.code, 0);
    assert.match(unpriced.stderr, /needs prices/);
    mkdirSync(pg.roots.config, { recursive: true });
    writeFileSync(join(pg.roots.config, 'config.toml'), '[prices]\nwritten = 1e-6\n');
    const { Written } = (await io('reads')).Spent;
    await pg.ok('update', '--io-budget', `amount=${(Written / 1e6 + 0.5).toFixed(6)}`, 'reads');
    assert.match((await write('reads', 1 << 20, '/new')).stderr, /quota exceeded/i);
    rmSync(join(pg.roots.config, 'config.toml'));
    await pg.ok('rm', '-f', 'reads');

    for (const words of ['write=1g', 'read', 'read=', 'read=x', 'compute=1q', 'amount=-1']) {
      const wrong = await pg.pg('create', '--io-budget', words, IMAGE, 'true');
      assert.equal(wrong.code, 125, words);
    }
    assert.equal(existsSync(join(pg.roots.config, 'config.toml')), false);
  });
});
