import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { allowedUlimits } from '../../runtime/ulimits.ts';
import { IMAGE, Installation, needContainers } from './installation.ts';

describe('more flags of pg run', function () {
  this.timeout(60_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open({ Env: ['PATH=/bin'] });
  });
  after(async () => pg?.close());

  const run = (...words: string[]) => pg.pg('run', '--rm', '--network', 'none', ...words);

  it('--mount binds, makes volumes and tmpfs, and says what it does not know', async () => {
    const host = join(pg.dir, 'mounted');
    mkdirSync(host);
    writeFileSync(join(host, 'file'), 'hi\n');
    const words = [
      '--mount',
      `type=bind,source=${host},target=/data,readonly`,
      '--mount',
      'src=vol2,dst=/vol',
      '--mount',
      'type=tmpfs,target=/scratch,tmpfs-size=1m',
      IMAGE,
      'sh',
      '-c',
    ];
    const { stdout, stderr } = await run(
      ...words,
      'cat /data/file; touch /data/x 2>/dev/null || echo read-only; touch /vol/x && df -k /scratch | tail -1',
    );
    assert.match(stdout, /^hi\nread-only\ntmpfs\s+1024 /, stderr);
    assert.equal((await run('-v', 'vol2:/v', IMAGE, 'ls', '/v')).stdout, 'x\n');
    for (const [word, why] of [
      ['type=bind,source=/tmp', /target is required/],
      ['type=bind,target=/x', /needs a source/],
      ['type=npipe,target=/x', /not one of bind/],
      ['target=/x,bind-propagation=shared', /unknown field 'bind-propagation'/],
      ['target=x', /must be absolute/],
    ] as const) {
      const { code, stderr: said } = await run('--mount', word, IMAGE, 'true');
      assert.equal(code, 125);
      assert.match(said, why);
    }
  });

  it('--sysctl, --group-add and --cpuset-cpus are what the process sees', async () => {
    const words = [
      '--sysctl',
      'kernel.shmmni=100',
      '--sysctl',
      'net.ipv4.ip_forward=1',
      '--group-add',
      'staff',
      '--group-add',
      '777',
      '-u',
      '1234',
      '--cpuset-cpus',
      '0',
      IMAGE,
      'sh',
      '-c',
    ];
    const { stdout, stderr } = await run(
      ...words,
      'cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward; id; grep Cpus_allowed_list /proc/self/status',
    );
    assert.match(stdout, /^100\n1\nuid=1234 gid=0\(root\) groups=.*50\(staff\),777\nCpus_allowed_list:\s+0\n$/, stderr);
    assert.match((await run('--group-add', 'nobodys', IMAGE, 'true')).stderr, /unable to find group nobodys/);
    assert.equal((await run('--cpuset-cpus', 'a', IMAGE, 'true')).code, 125);
  });

  it('--pid host and --ipc host share the namespaces of the host, and end as others do', async () => {
    const { stdout } = await run('--pid', 'host', '--ipc', 'host', IMAGE, 'sh', '-c', 'ls -l /proc/self/ns');
    assert.ok(stdout.includes(readlinkSync('/proc/self/ns/pid')), stdout);
    assert.ok(stdout.includes(readlinkSync('/proc/self/ns/ipc')), stdout);
    await pg.ok('run', '-d', '--network', 'none', '--name', 'shares', '--pid', 'host', IMAGE, 'sleep', '1000');
    await pg.ok('stop', '-t', '0', 'shares');
    await pg.ok('rm', 'shares');
  });

  it('a --ulimit above what this host allows becomes what it allows, with a warning', async () => {
    const asked = [{ name: 'nofile', soft: 2_000_000_000, hard: 2_000_000_000 }];
    const most = allowedUlimits(asked)[0]!.hard;
    // Where any limit may be set, the kernel's own fs.nr_open is the end.
    if (most === asked[0]!.hard) return;
    const { code, stdout, stderr } = await run('--ulimit', 'nofile=2000000000', IMAGE, 'sh', '-c', 'ulimit -Hn');
    assert.equal(code, 0, stderr);
    assert.equal(stdout, `${most}\n`);
    assert.match(stderr, /allows no more than/);
  });

  it('-it wants a terminal, and exec -w a directory that is there', async () => {
    const refused = await run('-it', IMAGE, 'true');
    assert.equal(refused.code, 125);
    assert.match(refused.stderr, /the input device is not a TTY/);
    await pg.ok('run', '-d', '--network', 'none', '--name', 'web', IMAGE, 'sleep', '1000');
    assert.equal((await pg.pg('exec', '-w', '/nope', 'web', 'true')).code, 126);
    assert.equal((await pg.pg('exec', 'web', 'nope')).code, 127);
    await pg.ok('rm', '-f', 'web');
  });

  it('takes the runtime that config.toml says, and says what is wrong in it', async () => {
    const config = join(pg.roots.config, 'config.toml');
    mkdirSync(pg.roots.config, { recursive: true });
    writeFileSync(config, 'runtime = "crun"\n[prices]\nread = 1e-9\n');
    const id = await pg.ok('create', IMAGE, 'true');
    assert.equal(await pg.ok('inspect', '--format', '{{.HostConfig.Runtime}}', id), 'crun');
    await pg.ok('rm', id);
    for (const [text, why] of [
      ['runtime = "lxc"\n', /runtime is 'runc' or 'crun'/],
      ['runtimes = "runc"\n', /no setting 'runtimes'/],
      ['[prices]\nread = -1\n', /price of read is a number/],
      ['runtime = \n', /config\.toml/],
    ] as const) {
      writeFileSync(config, text);
      const { code, stderr } = await pg.pg('create', IMAGE, 'true');
      assert.equal(code, 125);
      assert.match(stderr, why);
    }
    rmSync(config);
  });

  it('pg mount is nosuid and nodev unless asked', async () => {
    const at = join(pg.dir, 'image');
    const line = () =>
      readFileSync('/proc/self/mounts', 'utf8')
        .split('\n')
        .find((l) => l.includes(` ${at} `))!;
    await pg.ok('mount', IMAGE, at);
    assert.match(line(), / ro,nosuid,nodev,/);
    await pg.ok('umount', at);
    await pg.ok('mount', '--suid', '--dev', IMAGE, at);
    assert.doesNotMatch(line(), /nosuid|nodev/);
    await pg.ok('umount', at);
  });
});
