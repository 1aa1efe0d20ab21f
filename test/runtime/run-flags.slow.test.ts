import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { IMAGE, Installation, needContainers } from './installation.ts';

describe('the flags of pg run', function () {
  this.timeout(60_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open({ Env: ['PATH=/bin', 'FROM_IMAGE=yes'], WorkingDir: '/made/for/it' });
  });
  after(async () => pg?.close());

  const run = (...words: string[]) => pg.pg('run', '--rm', '--network', 'none', ...words);

  it('makes the working directory, and takes another', async () => {
    assert.equal((await run(IMAGE, 'pwd')).stdout, '/made/for/it\n');
    assert.equal((await run('-w', '/new', IMAGE, 'pwd')).stdout, '/new\n');
  });

  it('runs as a user by name, number and group, with the groups of /etc/group', async () => {
    assert.equal(
      (await run('-u', 'alice', IMAGE, 'id')).stdout,
      'uid=1000(alice) gid=1000(alice) groups=50(staff),1000(alice)\n',
    );
    assert.equal((await run('-u', '1234:50', IMAGE, 'id')).stdout, 'uid=1234 gid=50(staff) groups=50(staff)\n');
    assert.match((await run(IMAGE, 'id')).stdout, /^uid=0\(root\) gid=0\(root\).*50\(staff\)/);
    const missing = await run('-u', 'bob', IMAGE, 'id');
    assert.equal(missing.code, 125);
    assert.match(missing.stderr, /unable to find user bob/);
  });

  it('takes an entrypoint instead of the image, with the arguments', async () => {
    assert.equal((await run('--entrypoint', 'echo', IMAGE, 'a', '--help')).stdout, 'a --help\n');
  });

  it('has a hostname of its own, hosts and resolv.conf', async () => {
    const { stdout } = await run(
      '--add-host',
      'db:10.0.0.9',
      '--dns',
      '9.9.9.9',
      IMAGE,
      'cat',
      '/etc/hosts',
      '/etc/resolv.conf',
    );
    assert.match(stdout, /127\.0\.0\.1\s+localhost/);
    assert.match(stdout, /10\.0\.0\.9\s+db/);
    assert.match(stdout, /nameserver 9\.9\.9\.9/);
  });

  it('binds a directory, read-only if asked, and makes tmpfs', async () => {
    const host = join(pg.dir, 'host');
    mkdirSync(host);
    const words = ['-v', `${host}:/data`, '-v', `${host}:/ro:ro`, '--tmpfs', '/scratch:size=1m', IMAGE, 'sh', '-c'];
    const { code, stdout } = await run(
      ...words,
      'echo hi > /data/file; cat /ro/file; touch /ro/x 2>/dev/null && echo written; df -k /scratch | tail -1',
    );
    assert.equal(code, 0);
    assert.match(stdout, /^hi\ntmpfs\s+1024 /);
    assert.equal(readFileSync(join(host, 'file'), 'utf8'), 'hi\n');
  });

  it('keeps a named volume, which begins with what the image has there', async () => {
    const first = await run('-v', 'vol1:/www', IMAGE, 'sh', '-c', 'cat /www/index.html; echo more > /www/more');
    assert.equal(first.stdout, 'hello from the image\n');
    assert.equal((await run('-v', 'vol1:/elsewhere', IMAGE, 'cat', '/elsewhere/more')).stdout, 'more\n');
  });

  it('has docker’s capabilities, and those given and taken', async () => {
    const caps = async (...flags: string[]) =>
      /CapEff:\s+(\S+)/.exec((await run(...flags, IMAGE, 'cat', '/proc/self/status')).stdout)?.[1];
    assert.equal(await caps(), '00000000a80425fb');
    assert.equal(await caps('--cap-drop', 'ALL', '--cap-add', 'net_admin'), '0000000000001000');
    assert.equal(await caps('-u', 'alice'), '0000000000000000');
  });

  it('filters system calls, hides and protects parts of /proc', async () => {
    assert.match((await run(IMAGE, 'cat', '/proc/self/status')).stdout, /Seccomp:\s+2/);
    const free = await run('--security-opt', 'seccomp=unconfined', IMAGE, 'cat', '/proc/self/status');
    assert.match(free.stdout, /Seccomp:\s+0/);
    const mounting = await run(
      '--cap-add',
      'SYS_ADMIN',
      '--security-opt',
      'seccomp=unconfined',
      IMAGE,
      'mount',
      '-t',
      'tmpfs',
      't',
      '/tmp',
    );
    assert.equal(mounting.code, 0, mounting.stderr);
    assert.notEqual((await run(IMAGE, 'mount', '-t', 'tmpfs', 't', '/tmp')).code, 0);
    assert.notEqual((await run(IMAGE, 'sh', '-c', 'echo 1 > /proc/sys/kernel/panic')).code, 0);
    assert.equal((await run(IMAGE, 'cat', '/proc/kcore')).stdout, '');
  });

  it('has a root that cannot be written with --read-only', async () => {
    const { code, stderr } = await run('--read-only', IMAGE, 'touch', '/file');
    assert.notEqual(code, 0);
    assert.match(stderr, /Read-only file system/);
  });

  it('writes the id into --cidfile, and refuses one that is there', async () => {
    const file = join(pg.dir, 'cid');
    await run('--cidfile', file, IMAGE, 'true');
    assert.match(readFileSync(file, 'utf8'), /^[0-9a-f]{64}$/);
    const again = await run('--cidfile', file, IMAGE, 'true');
    assert.equal(again.code, 125);
    assert.match(again.stderr, /container ID file found/);
  });
});
