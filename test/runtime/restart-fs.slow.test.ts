import assert from 'node:assert/strict';
import { containerStats } from '../../runtime/containers.ts';
import { resolveContainer } from '../../runtime/names.ts';
import { IMAGE, Installation, needContainers, until } from './installation.ts';

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
});
