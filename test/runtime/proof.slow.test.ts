import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openLog } from '../../fs/log/log.ts';
import { Accumulator } from '../../mdm/accumulator.ts';
import { logDirOf } from '../../runtime/record.ts';
import { Installation, needContainers, outcomeOf, type Outcome, PG } from './installation.ts';

describe('pg log, prove and verify-proof', function () {
  this.timeout(120_000);
  let at: Installation;
  /** Where proofs are checked: nothing is there but the proof. */
  let bare: string;

  before(async function () {
    needContainers(this);
    at = await Installation.open();
    bare = join(at.dir, 'elsewhere');
    mkdirSync(bare);
  });
  after(() => at?.close());

  /** Proves to a file, and checks a copy of it in an empty directory with an empty PG_ROOT. */
  async function prove(...words: string[]): Promise<{ file: string; verified: Record<string, unknown> }> {
    const file = join(at.dir, 'proof');
    await at.ok('prove', '-q', '-o', file, ...words);
    const { code, stdout, stderr } = await verify(file, '--format', 'json');
    assert.equal(code, 0, stderr);
    return { file, verified: (JSON.parse(stdout) as Record<string, unknown>[])[0]! };
  }

  async function verify(file: string, ...words: string[]): Promise<Outcome> {
    copyFileSync(file, join(bare, 'copy'));
    const child = spawn(PG, ['verify-proof', 'copy', ...words], {
      cwd: bare,
      env: { ...process.env, PG_ROOT: join(bare, 'root') },
    });
    const outcome = await outcomeOf(child);
    assert.ok(
      readdirSync(bare).every((name) => name === 'copy' || name === 'out'),
      'no store was made',
    );
    return outcome;
  }

  const newest = async (name: string): Promise<string> => at.ok('log', '-q', '-n', '1', '--no-trunc', name);
  const logBytes = (id: string): Buffer => readFileSync(join(logDirOf(at.roots, id), 'log'));

  it('a running container', async () => {
    const script =
      'seq 100000 > /root/numbers; printf X | dd of=/bin/busybox2 2>/dev/null; ln /root/numbers /tmp/again; printf one > "$(printf "/root/\\377")"; echo up; sleep 100';
    const id = await at.ok('run', '-d', '--name', 'live', 'pgtest/busybox', 'sh', '-c', script);
    await at.ok(
      'exec',
      'live',
      'sh',
      '-c',
      'until [ -e /root/"$(printf "\\377")" ]; do sleep 0.05; done; printf with | dd of=/www/index.html bs=1 seek=6 conv=notrunc 2>/dev/null',
    );
    const numbers = Array.from({ length: 100_000 }, (_, i) => `${i + 1}\n`).join('');
    const { file, verified } = await prove('live', '/root/numbers:300000-300100');
    assert.deepEqual(
      [verified['Kind'], verified['Id'], verified['Path'], verified['Size']],
      ['container', id, '/root/numbers', numbers.length],
    );
    assert.equal(verified['Root'], await newest('live'));
    assert.equal((await verify(file, '--root', await newest('live'), '-o', 'out')).code, 0);
    assert.equal(readFileSync(join(bare, 'out'), 'utf8'), numbers.slice(300_000, 300_100));
    assert.ok(readFileSync(file).length < 5000);

    const mixed = await prove('live', '/www/index.html');
    assert.equal((await verify(mixed.file, '-o', '-')).stdout, 'hello with the image\n');
    assert.equal((await prove('live', '/tmp/again:0-0')).verified['Size'], numbers.length);
    assert.equal(
      (await prove('live', '-e', '/root/\\xff')).verified['PathHex'],
      Buffer.from('/root/\xff', 'latin1').toString('hex'),
    );
    const absent = await prove('live', '/root/none');
    assert.deepEqual([absent.verified['Exists'], absent.verified['Missing']], [false, '/root/none']);
    assert.match((await at.pg('prove', 'live', '/bin/sh/x')).stderr, /\/bin\/sh is a symlink to busybox/);
    assert.match((await at.pg('prove', 'live', '/www/index.html:1-999')).stderr, /the file has 21 bytes/);
    assert.equal((await prove('live', '-L', '/bin/sh:0-4')).verified['Path'], '/bin/busybox');
    assert.equal(await at.ok('exec', 'live', 'cat', '/www/index.html'), 'hello with the image');
    await at.ok('stop', '-t', '0', 'live');

    const held = Buffer.from(readFileSync(file));
    held[1500]! ^= 1;
    writeFileSync(file, held);
    assert.equal((await verify(file)).code, 1);
    const other = await prove('live', '/root/numbers:300000-300100');
    const wrong = await verify(other.file, '--root', '0'.repeat(64));
    assert.deepEqual([wrong.code, wrong.stderr.includes('of another root')], [1, true]);
    assert.match((await verify(other.file)).stdout, /NOT CHECKED/);
    assert.match(await at.ok('log', '--verify', 'live'), /^(holds .*\n?)+$/);
  });

  it('commits with their roots, sizes and costs, as the log’s bytes say', async () => {
    const id = await at.ok(
      'run',
      '-d',
      '--name',
      'many',
      'pgtest/busybox',
      'sh',
      '-c',
      'for i in $(seq 20); do echo $i > /f$i; sync /f$i; done; sleep 100',
    );
    await at.ok('exec', 'many', 'sh', '-c', 'until [ -e /f20 ]; do sleep 0.05; done');
    await at.ok('stop', '-t', '0', 'many');
    const lines = (await at.ok('log', '--format', 'json', 'many'))
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, string>);
    const bytes = logBytes(id);
    assert.equal(lines[0]!['Size'], String(bytes.length));
    assert.equal(lines.at(-1)!['Instructions'], 'Truncate(192) Write(0, 192)');
    for (const [i, line] of lines.entries()) {
      const accumulator = new Accumulator();
      accumulator.append(bytes.subarray(0, Number(line['Size'])));
      assert.equal(line['Root'], Buffer.from(accumulator.root()).toString('hex'));
      assert.equal(line['Start'], lines[i + 1]?.['Size'] ?? '0');
    }
    const reversed = await at.ok('log', '--reverse', '-q', '--no-trunc', 'many');
    assert.deepEqual(reversed.split('\n'), lines.map((line) => line['Root']).toReversed());
    assert.equal((await at.ok('log', '-n', '2', 'many')).split('\n').length, 3);
    assert.match(await at.ok('log', 'many'), /^ROOT +CREATED +SIZE +INSTRUCTIONS +COST +ENTRIES\n/);
  });

  it('a container that never ran, and lies about one', async () => {
    const id = await at.ok('create', '--name', 'fresh', 'pgtest/busybox', 'true');
    assert.equal(await at.ok('log', 'fresh'), '');
    const { verified } = await prove('fresh', '/etc/passwd');
    assert.deepEqual([verified['Exists'], verified['Epoch'], verified['FilesAt']], [true, 0, 192]);
    const size = logBytes(id).length;
    await prove('fresh', '/www');
    assert.equal(logBytes(id).length, size, 'nothing new: the claim that is there serves');
    await at.ok('start', '-a', 'fresh');
    assert.match(await at.ok('log', '--verify', 'fresh'), /^holds /);
    const log = openLog(logDirOf(at.roots, id));
    log.appendNamespace({ size: log.written, epoch: 0, root: Buffer.alloc(32, 7), label: `container/${id}` });
    log.close();
    const { code, stdout } = await at.pg('log', '--verify', 'fresh');
    assert.equal(code, 1);
    assert.match(stdout, /^holds .*\nFALSE {2}(07){32} .*\nholds .* as was recorded\n$/);
  });

  it('refuses to start on a log that lost what was safe', async () => {
    const id = await at.ok('run', '-d', '--name', 'cut', 'pgtest/busybox', 'sleep', '100');
    await at.ok('exec', 'cut', 'sh', '-c', 'echo much > /much');
    await at.ok('stop', '-t', '0', 'cut');
    const whole = logBytes(id);
    const path = join(logDirOf(at.roots, id), 'log');
    writeFileSync(path, whole.subarray(0, 192));
    const { code, stderr } = await at.pg('start', 'cut');
    assert.notEqual(code, 0);
    assert.match(stderr, new RegExp(`has no commit that ends at byte ${whole.length}`));
    assert.match((await at.pg('log', '--verify', 'cut')).stdout, /^FALSE .* log at \d+, as was recorded/);
    const rotten = Buffer.from(whole);
    rotten[rotten.indexOf('much\n')]! ^= 1;
    writeFileSync(path, rotten);
    assert.match((await at.pg('prove', '-q', 'cut', '/much')).stderr, /has root .* when it was written/);
    writeFileSync(path, whole);
    await at.ok('start', 'cut');
    assert.equal(await at.ok('exec', 'cut', 'cat', '/much'), 'much');
    await at.ok('stop', '-t', '0', 'cut');
    assert.match(await at.ok('log', '--verify', 'cut'), /^holds .* as was recorded/);
  });

  it('a named mount', async () => {
    const dir = join(at.dir, 'mnt');
    mkdirSync(dir);
    await at.ok('mount', '--rw', '--name', 'layer', 'pgtest/busybox', dir);
    writeFileSync(join(dir, 'mine'), 'kept');
    const busy = await at.pg('prove', 'layer', '/mine');
    assert.deepEqual([busy.code, busy.stderr.includes('open for writing')], [125, true]);
    await at.ok('umount', dir);
    const { file, verified } = await prove('layer', '/mine');
    assert.deepEqual([verified['Kind'], verified['Id']], ['mount', 'layer']);
    assert.equal((await verify(file, '-o', '-')).stdout, 'kept');
    assert.equal(await newest('layer'), verified['Root']);
  });
});
