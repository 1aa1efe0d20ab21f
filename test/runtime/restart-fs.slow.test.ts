import assert from 'node:assert/strict';
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { containerStats } from '../../runtime/containers.ts';
import { resolveContainer } from '../../runtime/names.ts';
import { IMAGE, Installation, needContainers, processLives, until } from './installation.ts';

/** Counts in a file that it renames to and fro; every command must succeed. */
const COUNTER = `i=0; while [ ! -e /stop ]; do
  i=$((i+1)); echo $i >> /count || exit 9; mv /count /moved || exit 8; mv /moved /count || exit 7; done`;

describe('a container whose filesystem is served by another process', function () {
  this.timeout(120_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
  });
  after(async () => pg?.close());

  it('goes on: after pg update --restart-fs, and after kill -9', async () => {
    await pg.ok('run', '-d', '--network', 'none', '--name', 'web', IMAGE, 'sh', '-c', COUNTER);
    const filesystem = async () => (await containerStats(pg.roots, resolveContainer(pg.roots, 'web'))).filesystem;
    assert.equal(await pg.ok('update', '--restart-fs', 'web'), 'web');
    const { serverPid, restarts } = await filesystem();
    assert.equal(restarts, 1);
    process.kill(serverPid, 'SIGKILL');
    await until('another server', async () => (await filesystem()).restarts === 2);
    assert.equal((await pg.pg('update', 'web')).code, 125);
    await pg.ok('exec', 'web', 'touch', '/stop');
    assert.equal(await pg.ok('wait', 'web'), '0');
    await pg.ok('start', 'web');
    assert.equal((await pg.pg('update', '--restart-fs', 'nobody')).code, 1);
    const lines = (await pg.ok('diff', 'web')).split('\n');
    assert.ok(lines.includes('A /count') && !lines.includes('A /moved'), lines.join('\n'));
    await pg.ok('rm', '-f', 'web');
  });

  it('and so does what pg mount mounted, whose log nobody else gets in between', async () => {
    const [at, other] = [join(pg.dir, 'mounted'), join(pg.dir, 'other')];
    await pg.ok('mount', '--rw', '--name', 'vol', 'scratch', at);
    const record = () => {
      const [name] = readdirSync(join(pg.roots.run, 'mounts')).filter((file) => file.endsWith('.json'));
      return JSON.parse(readFileSync(join(pg.roots.run, 'mounts', name!), 'utf8')) as { serverPid: number };
    };
    const busy = async () => {
      const { code, stderr } = await pg.pg('mount', '--rw', 'vol', other);
      assert.equal(code, 125);
      assert.match(stderr, /is locked/);
    };
    writeFileSync(join(at, 'file'), 'before');
    const { serverPid } = record();
    assert.equal(await pg.ok('update', '--restart-fs', at), at);
    assert.ok(record().serverPid !== serverPid && !processLives(serverPid));
    process.kill(record().serverPid, 'SIGKILL');
    await busy();
    await until('it is served again', () => existsSync(join(at, 'file')));
    appendFileSync(join(at, 'file'), ' and after');
    await pg.ok('umount', at);
    assert.match((await pg.pg('update', '--restart-fs', at)).stderr, /nothing of pg is mounted/);
    await pg.ok('mount', 'vol', other);
    assert.equal(readFileSync(join(other, 'file'), 'utf8'), 'before and after');
    await pg.ok('umount', other);
  });
});
