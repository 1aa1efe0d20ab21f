import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { IMAGE, Installation, needContainers } from './installation.ts';

describe('a container that has been stopped', function () {
  this.timeout(60_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
  });
  after(async () => pg?.close());

  it('can be mounted and started at once, also when somebody of the host was in its root', async () => {
    await pg.ok('run', '-d', '--network', 'none', '--name', 'web', IMAGE, 'sleep', '1000');
    await pg.ok('exec', 'web', 'sh', '-c', 'echo kept > /kept');
    const cwd = await pg.ok('inspect', '-f', '{{.Pg.RootPath}}', 'web');
    const lingering = spawn('sleep', ['1000'], { cwd, stdio: 'ignore' });
    try {
      await new Promise((resolve) => lingering.once('spawn', resolve));
      await pg.ok('stop', '-t', '0', 'web');
      assert.match(await pg.ok('diff', 'web'), /A \/kept/);
      await pg.ok('start', 'web');
      assert.equal(await pg.ok('exec', 'web', 'cat', '/kept'), 'kept');
    } finally {
      lingering.kill('SIGKILL');
    }
    await pg.ok('rm', '-f', 'web');
  });
});
