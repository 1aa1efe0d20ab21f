import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { IMAGE, Installation, needContainers, outcomeOf, PG } from './installation.ts';

describe('pg cp', function () {
  this.timeout(60_000);
  let pg: Installation;
  let dir = '';
  const at = (...parts: string[]): string => join(dir, ...parts);
  const inside = (script: string) => pg.ok('exec', 'box', 'sh', '-c', script);

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
    dir = join(pg.dir, 'files');
    mkdirSync(at('tree/sub'), { recursive: true });
    writeFileSync(at('tree/file'), 'content\n', { mode: 0o640 });
    writeFileSync(at('tree/sub/big'), Buffer.alloc(3_000_001, 7));
    writeFileSync(Buffer.concat([Buffer.from(at('tree/odd')), Buffer.from([0xff, 0xfe])]), 'odd\n');
    writeFileSync(at(`tree/${'n'.repeat(200)}`), 'long\n');
    symlinkSync('file', at('tree/link'));
    linkSync(at('tree/file'), at('tree/hard'));
    await pg.ok('run', '-d', '--name', 'box', '--network', 'none', IMAGE, 'sleep', '1000');
  });
  after(async () => pg?.close());

  it('copies a tree into a container: new, into a directory, and only what is in it', async () => {
    await pg.ok('cp', at('tree'), 'box:/new');
    assert.equal(
      await inside('cat /new/file; readlink /new/link; stat -c %a:%u:%h /new/file; wc -c < /new/sub/big'),
      'content\nfile\n640:0:2\n3000001',
    );
    await pg.ok('cp', at('tree'), 'box:/tmp');
    assert.equal(await inside('cat /tmp/tree/file'), 'content');
    await pg.ok('cp', `${at('tree')}/.`, 'box:/var');
    assert.equal(await inside('cat /var/file /var/n*'), 'content\nlong');
    await pg.ok('cp', at('tree/file'), 'box:/tmp/renamed');
    assert.equal(await inside('cat /tmp/renamed'), 'content');
  });

  it('copies a tree out, every byte of its names kept', async () => {
    await pg.ok('cp', 'box:/new', at('out'));
    assert.deepEqual(readFileSync(at('out/sub/big')), readFileSync(at('tree/sub/big')));
    assert.equal(readlinkSync(at('out/link')), 'file');
    assert.equal(statSync(at('out/file')).ino, statSync(at('out/hard')).ino);
    assert.ok(existsSync(Buffer.concat([Buffer.from(at('out/odd')), Buffer.from([0xff, 0xfe])])));
    assert.equal(statSync(at('out/file')).mode & 0o777, 0o640);
    await pg.ok('cp', 'box:/new/file', at('single'));
    assert.equal(readFileSync(at('single'), 'utf8'), 'content\n');
  });

  it('writes and reads tars that GNU tar knows', async () => {
    const child = pg.start('cp', 'box:/new', '-');
    child.stdin!.end();
    mkdirSync(at('untar'));
    execFileSync('sh', ['-c', `PG_ROOT=${pg.roots.data} ${PG} cp box:/new - | tar x -C ${at('untar')}`]);
    await outcomeOf(child);
    execFileSync('diff', ['-r', at('untar/new'), at('tree')]);
    const tar = execFileSync('tar', ['c', '-C', dir, '--owner=1000', 'tree'], { maxBuffer: 1 << 24 });
    await inside('mkdir /untar');
    assert.equal((await pg.pgWith(tar, 'cp', '-', 'box:/untar')).code, 0);
    assert.equal(await inside('cat /untar/tree/hard; stat -c %u /untar/tree/file'), 'content\n1000');
  });

  it('never leaves the container by its symlinks', async () => {
    await inside('ln -s / /out; ln -s ../../../../../../etc /up; mkdir /trap; ln -s /etc /trap/tree');
    const name = `pg-cp-${process.pid}`;
    writeFileSync(at(name), 'x\n');
    for (const target of ['/out/etc', '/up']) await pg.ok('cp', at(name), `box:${target}/`);
    assert.equal(await inside(`cat /etc/${name}`), 'x');
    await pg.ok('cp', at('tree'), 'box:/trap');
    assert.ok(lstatSync('/etc').isDirectory() && !existsSync(`/etc/${name}`) && !existsSync('/etc/sub'));
    assert.equal(await inside('readlink /trap/tree || cat /trap/tree/file'), 'content', 'the symlink is replaced');
    const evil = execFileSync('tar', ['c', '-P', '-C', dir, '--transform', 's,^,../../,', 'single']);
    const refused = await pg.pgWith(evil, 'cp', '-', 'box:/tmp');
    assert.equal(refused.code, 125);
    assert.match(refused.stderr, /'\.\.'/);
  });

  it('works on a container that does not run', async () => {
    await pg.ok('stop', '-t', '0', 'box');
    await pg.ok('cp', at('tree/file'), 'box:/while-stopped');
    await pg.ok('cp', 'box:/while-stopped', at('back'));
    assert.equal(readFileSync(at('back'), 'utf8'), 'content\n');
    assert.match(await pg.ok('diff', 'box'), /^A \/while-stopped$/m);
    await pg.ok('start', 'box');
    assert.equal(await inside('cat /while-stopped'), 'content');
  });

  it('copies what read(2) gives of files that say nothing of their size', async () => {
    const version = await inside('cat /proc/version');
    await pg.ok('cp', 'box:/proc/version', at('version'));
    assert.equal(readFileSync(at('version'), 'utf8').trimEnd(), version.trimEnd());
    await pg.ok('cp', 'box:/sys/class/net/lo/mtu', at('mtu'));
    assert.equal(readFileSync(at('mtu'), 'utf8'), '65536\n');
    await inside(': > /empty');
    await pg.ok('cp', 'box:/empty', at('empty'));
    assert.equal(statSync(at('empty')).size, 0);
  });

  it('follows a symlink that the source is, with -L', async () => {
    await inside(
      'mkdir /links; echo end > /links/end; cd /links; ln -s end one; ln -s /links/one two; ln -s loop loop',
    );
    await pg.ok('cp', 'box:/links/two', at('kept'));
    assert.equal(readlinkSync(at('kept')), '/links/one');
    await pg.ok('cp', '-L', 'box:/links/two', at('followed'));
    assert.ok(lstatSync(at('followed')).isFile());
    assert.equal(readFileSync(at('followed'), 'utf8'), 'end\n');
    symlinkSync('tree/file', at('here'));
    await pg.ok('cp', '-L', at('here'), 'box:/links/');
    assert.equal(await inside('cat /links/here; readlink /links/here || true'), 'content');
    assert.match((await pg.pg('cp', '-L', 'box:/links/loop', at('x'))).stderr, /too many levels of symbolic links/);
  });

  it('says what is wrong', async () => {
    const wrong: [string[], RegExp][] = [
      [['box:/nosuch', at('x')], /Could not find the file \/nosuch/],
      [[at('nosuch'), 'box:/'], /Could not find the file/],
      [[at('tree/file'), 'box:/nosuch/dir/'], /no such directory/],
      [[at('tree'), 'box:/tmp/renamed'], /cannot copy directory/],
      [['box:/a', 'box:/b'], /one of source and destination/],
      [[at('tree/file'), 'nosuch:/'], /No such container/],
    ];
    for (const [words, message] of wrong) {
      const { code, stderr } = await pg.pg('cp', ...words);
      assert.equal(code, 125, words.join(' '));
      assert.match(stderr, message);
    }
    rmSync(dir, { recursive: true });
  });
});
