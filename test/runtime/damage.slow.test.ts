import assert from 'node:assert/strict';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { IMAGE, Installation, needContainers, until } from './installation.ts';

const QUIET = ['--network', 'none'];

describe('containers whose files are not as they should be', function () {
  this.timeout(120_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
  });
  after(async () => pg?.close());

  const fileOf = (id: string, name: string): string => join(pg.roots.data, 'containers', id, name);

  it('are found out when the state is torn: nothing is lost but how they ended', async () => {
    const id = await pg.ok('create', '--name', 'torn', ...QUIET, IMAGE, 'sleep', '1000');
    for (const text of ['', '\0'.repeat(300), '{"status":']) {
      writeFileSync(fileOf(id, 'state.json'), text);
      assert.match(await pg.ok('ps', '-a', '--format', '{{.Names}} {{.Status}}'), /^torn Exited/);
      writeFileSync(fileOf(id, 'state.json'), text);
      await pg.ok('start', 'torn');
      assert.equal(await pg.ok('exec', 'torn', 'echo', 'here'), 'here');
      await pg.ok('stop', '-t', '0', 'torn');
    }
    await pg.ok('rm', 'torn');
  });

  it('stand in nobody else’s way when the record is torn, and can be removed', async () => {
    const id = await pg.ok('run', '-d', '--name', 'torn', IMAGE, 'sleep', '1000');
    await pg.ok('create', '--name', 'other', ...QUIET, IMAGE, 'true');
    truncateSync(fileOf(id, 'container.json'), 100);
    const { code, stdout, stderr } = await pg.pg('ps', '-a', '--format', '{{.Names}}');
    assert.deepEqual([code, stdout], [0, 'other\n']);
    assert.ok(stderr.includes(id) && stderr.includes('damaged'), stderr);
    assert.equal((await pg.pg('gc')).code, 125, 'what it needs is not known: nothing is collected');
    assert.equal((await pg.pg('rm', id)).code === 0, false);
    await pg.ok('rm', '-f', id);
    assert.ok(!existsSync(fileOf(id, '')));
    await pg.ok('gc');
    await pg.ok('rm', 'other');
    // Its name is free again.
    await pg.ok('create', '--name', 'torn', ...QUIET, IMAGE, 'true');
    await pg.ok('rm', 'torn');
  });

  it('say so when the log was cut or has rotted: start, ps, inspect and verify', async () => {
    const id = await pg.ok('run', '-d', '--name', 'cut', ...QUIET, IMAGE, 'sleep', '1000');
    await pg.ok(
      'exec',
      'cut',
      'sh',
      '-c',
      'echo kept > /kept; sync; head -c 300000 /dev/urandom > /blob; sync /blob; echo more > /more; sync /more',
    );
    await pg.ok('verify');
    await pg.ok('stop', '-t', '0', 'cut');
    await pg.ok('verify');
    const log = fileOf(id, 'log/log');
    const whole = readFileSync(log);

    // A bit of the blob: the log is as long as it was.
    const rotten = Buffer.from(whole);
    rotten[whole.length - 160_000]! ^= 1;
    writeFileSync(log, rotten);
    const rot = await pg.pg('verify');
    assert.equal(rot.code, 1);
    assert.match(rot.stdout, /container cut: the log is damaged: 1 of its payloads are damaged/);

    // Found at recovery, as after a crash that left none of the files that save time: it starts, loudly.
    for (const name of ['hash', 'checkpoint']) rmSync(fileOf(id, `log/${name}`), { force: true });
    const { code, stderr } = await pg.pg('start', 'cut');
    assert.equal(code, 0, stderr);
    assert.match(stderr, /warning: container [0-9a-f]{12}: the log is damaged: 1 of its payloads/);
    assert.match(await pg.ok('ps', '--format', '{{.Status}}', '--filter', 'name=cut'), /^Up .* \(log damaged\)$/);
    assert.match(await pg.ok('inspect', '-f', '{{.Pg.LogDamage}}', 'cut'), /reading what they hold fails/);
    assert.equal(await pg.ok('exec', 'cut', 'cat', '/kept'), 'kept');
    assert.match((await pg.pg('exec', 'cut', 'cat', '/blob')).stderr, /Input\/output error/);
    await pg.ok('stop', '-t', '0', 'cut');

    writeFileSync(log, whole.subarray(0, whole.length - 200_000));
    const cut = await pg.pg('verify');
    assert.match(cut.stdout, /container cut: the log is damaged: \d{6} bytes that had been safe on disk are missing/);
    assert.equal((await pg.pg('start', 'cut')).code, 1);
    await pg.ok('rm', '-f', 'cut');
  });

  it('keep their names when the claims are torn', async () => {
    await pg.ok('create', '--name', 'named', ...QUIET, IMAGE, 'true');
    truncateSync(join(pg.roots.data, 'names', 'named'), 0);
    await pg.ok('start', 'named');
    assert.match((await pg.pg('create', '--name', 'named', IMAGE, 'true')).stderr, /already in use/);
    await pg.ok('rm', '-f', 'named');
    // A claim that nobody stands behind holds nothing.
    writeFileSync(join(pg.roots.data, 'names', 'named'), '');
    await pg.ok('create', '--name', 'named', ...QUIET, IMAGE, 'true');
    await pg.ok('rm', 'named');
  });

  it('start over the socket of a dead shim', async () => {
    const id = await pg.ok('create', '--name', 'again', ...QUIET, IMAGE, 'sleep', '1000');
    const dir = join(pg.roots.run, 'containers', id);
    await pg.ok('start', 'again');
    const pid = Number(await pg.ok('inspect', '-f', '{{.Pg.ShimPid}}', 'again'));
    const socket = join(dir, 'shim.sock');
    process.kill(pid, 'SIGKILL');
    await until('it is cleaned up', async () => (await pg.ok('ps', '-q')) === '');
    // A socket in the place, and nobody who listens: what a shim leaves that is killed at the very end.
    mkdirSync(dir, { recursive: true });
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(join(pg.dir, 'old.sock'), resolve));
    linkSync(join(pg.dir, 'old.sock'), socket);
    await new Promise((resolve) => server.close(resolve));
    assert.ok(existsSync(socket));
    await pg.ok('start', 'again');
    assert.equal(await pg.ok('exec', 'again', 'echo', 'here'), 'here');
    await pg.ok('rm', '-f', 'again');
  });

  it('half made by a command that was killed are swept, those of a living one stay', async () => {
    const dir = join(pg.roots.data, 'containers');
    mkdirSync(join(dir, `making-${'a'.repeat(64)}-1-0`), { recursive: true });
    const ticks = readFileSync(`/proc/${process.pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ')[19];
    const living = `making-${'b'.repeat(64)}-${process.pid}-${ticks}`;
    mkdirSync(join(dir, living));
    await pg.ok('ps', '-a');
    assert.deepEqual(readdirSync(dir), [living]);
    rmdirSync(join(dir, living));
  });

  it('are for their owner only', () => {
    for (const name of ['index', 'sectors', 'leases', 'names', 'containers'])
      assert.equal(statSync(join(pg.roots.data, name)).mode & 0o077, 0, name);
  });

  it('are not missing what they stand on when their image is removed and collected while they are made', async () => {
    const archive = `docker-archive:${join(pg.dir, 'busybox.tar')}`;
    let made = 0;
    for (let round = 0; round < 8; round++) {
      const [run] = await Promise.all([
        pg.pg('run', '--rm', '--pull', 'never', ...QUIET, IMAGE, 'cat', '/bin/busybox'),
        (async () => {
          await new Promise((resolve) => setTimeout(resolve, round * 40));
          await pg.pg('rmi', '-f', IMAGE);
          await pg.ok('gc');
        })(),
      ]);
      if (run.code === 0) made++;
      else assert.match(run.stderr, /[Nn]o such image/);
      await pg.ok('import', '-q', archive);
    }
    assert.ok(made > 0);
  });
});
