import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Installation, IMAGE, needContainers, until } from './installation.ts';

describe('history', function () {
  this.timeout(120_000);
  let at: Installation;
  before(async function () {
    needContainers(this);
    at = await Installation.open();
  });
  after(() => at?.close());

  const sh = (name: string, script: string): Promise<string> => at.ok('exec', name, 'sh', '-c', script);
  const lines = (text: string): string[] => text.split('\n').filter(Boolean);

  async function refused(words: string[], message: RegExp, hint: RegExp): Promise<void> {
    const { code, stderr } = await at.pg(...words);
    assert.equal(code, 125, stderr);
    assert.match(stderr, message);
    assert.match(stderr, hint);
    assert.equal(stderr.trim().split('\n').length, 2, stderr);
  }

  it('a running container is looked at as it was', async () => {
    await at.ok('run', '-d', '--name', 'web', '--network', 'none', IMAGE, 'sleep', '1000');
    await sh('web', 'echo first > /etc/conf; mkdir /data; seq 100000 > /data/numbers; ln /data/numbers /data/again');
    assert.equal(await at.ok('snapshot', 'create', 'web', 'before'), 'before');
    await sh('web', 'echo second > /etc/conf; rm -r /data; echo more >> /www/index.html');

    assert.equal(await at.ok('cat', 'web@before:/etc/conf'), 'first');
    assert.equal(await at.ok('cat', 'web:/etc/conf'), 'second');
    assert.equal(await at.ok('cat', 'web:/www/index.html'), 'hello from the image\nmore');
    assert.equal(await at.ok('cat', 'web@before:/www/index.html'), 'hello from the image');
    assert.deepEqual(lines(await at.ok('find', 'web@before:/data')), ['/data', '/data/again', '/data/numbers']);
    assert.match(await at.ok('ls', '-l', 'web@before:/data'), /^-rw-r--r-- +2 .* again\n.* numbers$/);
    assert.deepEqual(lines(await at.ok('diff', 'web@before', 'web@latest')), [
      'D /data',
      'C /etc/conf',
      'C /www/index.html',
    ]);
    assert.deepEqual(lines(await at.ok('diff', 'web@before')), [
      'A /data',
      'A /data/again',
      'A /data/numbers',
      'C /etc',
      'A /etc/conf',
    ]);
    assert.deepEqual(lines(await at.ok('diff', 'web@before', IMAGE)), ['D /data', 'D /etc/conf']);

    const listed = JSON.parse(await at.ok('snapshot', 'ls', '--no-trunc', '--format', 'json', 'web')) as {
      Size: string;
      Root: string;
    };
    const log = lines(await at.ok('log', '--format', '{{.Size}} {{.Root}}', 'web'));
    assert.ok(log.includes(`${listed.Size} ${listed.Root}`));
    for (const position of [listed.Size, listed.Root, listed.Root.slice(0, 8), 'before'])
      assert.equal(await at.ok('cat', `web@${position}:/etc/conf`), 'first', position);
    assert.equal(await at.ok('cat', 'web@{0 seconds ago}:/etc/conf'), 'second');

    const mnt = join(at.dir, 'mnt');
    mkdirSync(mnt);
    await at.ok('mount', 'web@before', mnt);
    assert.equal(readFileSync(join(mnt, 'etc/conf'), 'utf8'), 'first\n');
    assert.deepEqual(readdirSync(join(mnt, 'data')), ['again', 'numbers']);
    assert.throws(() => writeFileSync(join(mnt, 'x'), ''), { code: 'EROFS' });
    await at.ok('umount', mnt);
    await at.ok('cp', 'web@before:/data', join(at.dir, 'copied'));
    assert.equal(readFileSync(join(at.dir, 'copied/again'), 'utf8').length, 588_895);
  });

  it('what is no position is refused, with what to do', async () => {
    await refused(['cat', 'web@nope:/etc/conf'], /no snapshot "nope"/, /pg snapshot ls web/);
    await refused(['cat', 'web@123:/etc/conf'], /no position 123: no commit ends there/, /pg log --no-trunc web/);
    await refused(['cat', 'web@1000000000:/etc/conf'], /no commit of container web has a root/, /pg log/);
    await refused(['diff', 'web@2020-01-01'], /no commit of 2020-01-01 .*: its oldest is of 2/, /pg log/);
    await refused(['ls', 'web@?'], /"\?" is no position/, /a position is/);
    await refused(['ls', 'nobody@latest'], /No such container: nobody/, /pg ps -a/);
    await refused(['ls', 'nobody'], /no such image: nobody/, /pg import nobody/);
    await refused(['snapshot', 'create', 'web', 'before'], /a snapshot "before" already/, /pg snapshot rm/);
    await refused(['snapshot', 'create', 'web', 'latest'], /cannot be the name/, /a letter first/);
    await refused(['mount', '--rw', 'web@before', at.dir], /the past, which cannot be written/, /leave out --rw/);
    await refused(['cp', '/etc/hosts', 'web@before:/x'], /the past, which cannot be written/, /leave out the @/);
    const { code, stderr } = await at.pg('snapshot', 'rm', 'web', 'nope');
    assert.equal(code, 1);
    assert.match(stderr, /no snapshot "nope"\n +pg snapshot ls web/);
    await at.ok('snapshot', 'rm', 'web', 'before');
    assert.equal(await at.ok('snapshot', 'ls', '-q', 'web'), '');
  });

  it('an image is made of a container, and runs', async () => {
    const script = 'mkdir /data; seq 10 > /data/n; ln /data/n /data/m; rm /etc/group; chmod 700 /www';
    await at.ok('run', '--name', 'made', '--network', 'none', '-e', 'MINE=yes', IMAGE, 'sh', '-c', script);
    const change = ['-c', 'CMD ["sh", "-c", "cat /data/m; ls /etc; echo $MINE"]', '-m', 'why', '-a', 'who'];
    const id = await at.ok('commit', ...change, 'made', 'pgtest/made:1');
    assert.match(id, /^sha256:[0-9a-f]{64}$/);
    assert.deepEqual(lines(await at.ok('run', '--rm', '--network', 'none', 'pgtest/made:1')), [
      ...Array.from({ length: 10 }, (_, i) => `${i + 1}`),
      'hostname',
      'hosts',
      'passwd',
      'resolv.conf',
      'yes',
    ]);
    const archive = join(at.dir, 'made.tar');
    await at.ok('export', '-q', 'pgtest/made:1', `oci-archive:${archive}`);
    const config = JSON.parse(await at.ok('inspect', '--format', '{{json .}}', 'pgtest/made:1')) as Record<
      string,
      unknown
    >;
    assert.equal(config['Author'], 'who');
    assert.deepEqual(lines(await at.ok('diff', IMAGE, 'pgtest/made:1')), ['A /data', 'D /etc/group', 'C /www']);
    await refused(['commit', '-c', 'RUN true', 'made'], /RUN changes no image/, /as in a Dockerfile/);
    await refused(['commit', 'made', 'scratch'], /the empty image/, /another name/);
    await at.ok('rm', 'made');
  });

  it('a container is cloned, runs beside the other, and outlives it', async () => {
    const fill = 'dd if=/dev/zero bs=1M count=9 2>/dev/null | tr "\\0" x > /big';
    await sh('web', `${fill}; echo parent > /who`);
    await at.ok('snapshot', 'create', 'web', 'then');
    await sh('web', 'echo later > /who');
    const id = await at.ok('clone', 'web@then', 'twin');
    await at.ok('clone', 'web', 'later');
    await at.ok('start', 'twin');
    assert.equal(await sh('twin', 'cat /who; hostname'), `parent\n${id.slice(0, 12)}`);
    await sh('twin', 'echo twin > /who; echo y >> /big');
    assert.equal(await sh('web', 'cat /who; wc -c < /big'), 'later\n9437184');
    const logDir = join(at.roots.data, 'containers', id, 'log');
    assert.ok(readdirSync(logDir).includes('base-8388608'), readdirSync(logDir).join(' '));
    await at.ok('clone', 'twin', 'grandchild');
    await refused(['clone', 'web', 'twin'], /"\/twin" is already in use/, /pg rm twin/);
    await at.ok('rm', '-f', 'web', 'twin');
    await at.ok('gc');
    await at.ok('start', 'grandchild');
    assert.equal(await sh('grandchild', 'cat /who; wc -c < /big; tail -c 2 /big'), 'twin\n9437186\ny');
    assert.equal(await at.ok('cat', 'later:/who'), 'later');
    assert.match((await at.pg('log', '--verify', 'grandchild')).stderr, /replays, and has the roots/);
    await at.ok('rm', '-f', 'later');
  });

  it('a stopped container goes back, and forth again', async () => {
    await at.ok('snapshot', 'create', 'grandchild', 'here');
    await sh('grandchild', 'echo worse > /who; rm /big');
    await refused(['rollback', 'grandchild', 'here'], /is running/, /pg stop grandchild/);
    await at.ok('stop', '-t', '0', 'grandchild');
    const { stdout, stderr } = await at.pg('rollback', 'grandchild', 'here');
    assert.equal(stdout, 'grandchild\n');
    assert.equal(await at.ok('cat', 'grandchild:/who'), 'twin');
    await at.ok('start', 'grandchild');
    assert.equal(await sh('grandchild', 'cat /who; wc -c < /big'), 'twin\n9437186');
    await at.ok('stop', '-t', '0', 'grandchild');
    const [, back] = /pg rollback grandchild (\d+)/.exec(stderr)!;
    await at.ok('rollback', `grandchild@${back}`);
    assert.equal(await at.ok('cat', 'grandchild@latest:/who'), 'worse');
    assert.equal(await at.ok('cat', 'grandchild@here:/who'), 'twin');
    await refused(['rollback', 'grandchild', 'never'], /no snapshot "never"/, /pg snapshot ls/);
    await refused(['rollback', 'grandchild'], /one position to go back to/, /pg snapshot ls grandchild/);
  });

  it('pg run --atomic keeps all of what the container wrote, or nothing', async () => {
    const make = ['create', '--atomic', '--network', 'none', '--name', 'all', IMAGE, 'sh', '-c'];
    await at.ok(
      ...make,
      'n=$(cat /n 2>/dev/null || echo 0); n=$((n+1)); echo $n >/n; sync; seq 200000 >/f$n; [ $n != 2 ]; exit',
    );
    const run = async (): Promise<number> => (await at.pg('start', '-a', 'all')).code;
    assert.equal(await run(), 0);
    assert.equal(await at.ok('cat', 'all:/n'), '1');
    assert.equal(await run(), 1);
    assert.equal(await at.ok('cat', 'all:/n'), '1');
    assert.deepEqual(lines(await at.ok('find', 'all:/', '--name', 'f?')), ['/f1']);
    // What was undone is in its history.
    assert.match(await at.ok('log', 'all'), /ROLLBACK/);
    await at.ok('rm', 'all');

    const loop =
      'i=0; while :; do i=$((i+1)); echo $i >/count; dd if=/dev/zero of=/data bs=1M count=2 conv=fsync 2>/dev/null; [ $i = 3 ] && echo up; done';
    await at.ok('run', '--atomic', '-d', '--name', 'cut', '--network', 'none', IMAGE, 'sh', '-c', loop);
    await until('it writes', async () => (await at.ok('logs', 'cut')) === 'up');
    const shim = Number(await at.ok('inspect', '--format', '{{.Pg.ShimPid}}', 'cut'));
    assert.ok(shim > 1);
    process.kill(shim, 'SIGKILL');
    await until(
      'it is known to have ended',
      async () => (await at.ok('ps', '-aq', '-f', 'status=exited', '-f', 'name=cut')) !== '',
    );
    assert.equal(await at.ok('diff', 'cut'), '');
    assert.match((await at.pg('cat', 'cut:/count')).stderr, /\/count is not in the container/);
    await at.ok('start', 'cut');
    await at.ok('stop', '-t', '0', 'cut');
    assert.equal(await at.ok('diff', 'cut'), '');
    await at.ok('rm', 'cut');
    await refused(['run', '--atomic', '--restart', 'always', IMAGE, 'true'], /--restart and --atomic/, /ends once/);
  });

  it('pg exec --atomic does all of it at once, beside a container that goes on', async () => {
    const loop = 'while :; do date >>/log; sleep 0.05; done';
    await at.ok('run', '-d', '--name', 'busy', '--network', 'none', IMAGE, 'sh', '-c', loop);
    await sh('busy', 'echo old >/conf; mkdir /dir; echo gone >/dir/gone; ls /new 2>/dev/null; cat /conf /dir/gone');
    const change =
      'echo new >/conf; mkdir /new; seq 50000 >/new/n; rm -r /dir; mv /www /moved; chmod 700 /home; cat /conf';
    const ran = at.pg(
      'exec',
      '--atomic',
      'busy',
      'sh',
      '-c',
      `${change}; touch /ready; sleep 1; test -e /proc/1 && hostname`,
    );
    const { code, stdout, stderr } = await ran;
    assert.equal(code, 0, stderr);
    assert.deepEqual(lines(stdout), ['new', await sh('busy', 'hostname')]);
    assert.equal(
      await sh('busy', 'cat /conf; tail -1 /new/n; ls /dir 2>&1; cat /moved/index.html; stat -c %a /home'),
      'new\n50000\nls: /dir: No such file or directory\nhello from the image\n700',
    );
    const failed = await at.pg('exec', '--atomic', 'busy', 'sh', '-c', 'echo broken >/conf; rm -r /new; exit 3');
    assert.equal(failed.code, 3);
    assert.equal(await sh('busy', 'cat /conf; tail -1 /new/n'), 'new\n50000');
    await refused(
      ['exec', '--atomic', 'busy', 'sh', '-c', 'echo mine >>/log; sleep 0.3'],
      /both changed "\/log": nothing that the command wrote was kept/,
      /run it again/,
    );
    assert.equal(await sh('busy', 'grep -c mine /log || true'), '0');
    // Several at once, which end at about the same time.
    const beside = ['one', 'two', 'three'].map((name) =>
      at.pg('exec', '--atomic', 'busy', 'sh', '-c', `echo ${name} >/${name}; sleep 0.5`),
    );
    for (const each of await Promise.all(beside)) assert.equal(each.code, 0, each.stderr);
    assert.equal(await sh('busy', 'cat /one /two /three'), 'one\ntwo\nthree');
    // Killed in the middle of it, with its shim: nothing of it is left, and nothing lies about.
    const hanging = at.start('exec', '--atomic', 'busy', 'sh', '-c', 'echo half >/conf; echo up; sleep 100');
    let output = '';
    hanging.stdout!.on('data', (chunk: Buffer) => (output += chunk.toString()));
    await until('it runs', () => output === 'up\n');
    process.kill(Number(await at.ok('inspect', '--format', '{{.Pg.ShimPid}}', 'busy')), 'SIGKILL');
    hanging.kill('SIGKILL');
    await until(
      'it is known to have ended',
      async () => (await at.ok('ps', '-aq', '-f', 'status=exited', '-f', 'name=busy')) !== '',
    );
    await at.ok('start', 'busy');
    assert.equal(
      await sh('busy', 'cat /conf; tail -1 /new/n; ls /dir 2>&1 || true'),
      'new\n50000\nls: /dir: No such file or directory',
    );
    const id = await at.ok('inspect', '--format', '{{.Id}}', 'busy');
    assert.deepEqual(
      readdirSync(join(at.roots.data, 'containers', id)).filter((name) => name.startsWith('atomic')),
      [],
    );
    await at.ok('rm', '-f', 'busy');
  });

  it('pg clean gives back what nobody needs, of a container that runs and of one that does not', async () => {
    await at.ok('run', '-d', '--name', 'litter', '--network', 'none', IMAGE, 'sleep', '1000');
    const fill = (file: string, mib: number): Promise<string> =>
      sh('litter', `head -c ${mib}m /dev/urandom > /${file}; sync /${file}; md5sum < /${file}`);
    const path = join(at.roots.data, 'containers', await at.ok('inspect', '--format', '{{.Id}}', 'litter'), 'log/log');
    const taken = (): number => statSync(path).blocks * 512;
    const cleaned = async (): Promise<string> => at.ok('clean', 'litter');

    await fill('dead', 12);
    const small = await fill('small', 1);
    await at.ok('snapshot', 'create', 'litter', 'then');
    await sh('litter', 'rm /dead');
    const held = await at.ok('cat', 'litter@then:/small');
    await cleaned();
    assert.ok(taken() > 12 << 20, 'the snapshot keeps it');
    assert.equal(await at.ok('cat', 'litter@then:/small'), held);
    await at.ok('snapshot', 'rm', 'litter', 'then');
    assert.match(await cleaned(), /^litter: moved \S+B, gave back (8\.39|12\.6)MB$/);
    assert.ok(taken() < 8 << 20, `${taken()}`);
    assert.equal(await sh('litter', 'md5sum < /small'), small);

    const kept = await fill('kept', 2);
    await fill('gone', 12);
    await sh('litter', 'rm /gone');
    await at.ok('stop', '-t', '0', 'litter');
    const before = taken();
    assert.match(await cleaned(), /^litter: moved \S+B, gave back (8\.39|12\.6)MB$/);
    assert.ok(before - taken() > 6 << 20, `${before} -> ${taken()}`);
    assert.match((await at.pg('log', '--verify', 'litter')).stderr, /replays, and has the roots/);
    await at.ok('start', 'litter');
    assert.equal(await sh('litter', 'md5sum < /small; md5sum < /kept'), `${small}\n${kept}`);

    await at.ok('clone', 'litter', 'shares');
    const { code, stdout, stderr } = await at.pg('clean', 'nobody', 'litter');
    assert.equal(code, 1);
    assert.match(stderr, /No such container: nobody/);
    assert.match(stdout, /^litter: moved \S+B, gave back 0B$/m);
    await fill('behind', 12);
    await sh('litter', 'rm /behind');
    assert.match(await cleaned(), /^litter: moved \S+B, gave back (8\.39|12\.6)MB$/, 'what it wrote behind the clone');
    assert.equal(await at.ok('start', 'shares'), 'shares');
    assert.equal(await sh('shares', 'md5sum < /small; md5sum < /kept'), `${small}\n${kept}`);
    await at.ok('rm', '-f', 'shares', 'litter');
  });
});
