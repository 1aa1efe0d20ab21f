import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { IMAGE, Installation, needContainers } from './installation.ts';

describe('pg run', function () {
  this.timeout(60_000);
  let pg: Installation;

  before(async function () {
    needContainers(this);
    pg = await Installation.open();
  });
  after(async () => pg?.close());

  const run = (...words: string[]) => pg.pg('run', '--rm', '--network', 'none', ...words);

  it('gives the exit code, stdout and stderr of the command', async () => {
    const { code, stdout, stderr } = await run(IMAGE, 'sh', '-c', 'echo out; echo err >&2; exit 42');
    assert.deepEqual({ code, stdout, stderr }, { code: 42, stdout: 'out\n', stderr: 'err\n' });
  });

  it('says 127 for a command that is not there, 126 for one that cannot be executed, 125 for its own failures', async () => {
    assert.equal((await run(IMAGE, 'nosuch')).code, 127);
    assert.equal((await run(IMAGE, '/bin/nosuch')).code, 127);
    assert.equal((await run(IMAGE, '/bin/notexecutable')).code, 126);
    assert.equal((await run(IMAGE, '/etc')).code, 126);
    assert.equal((await run('--pull', 'never', 'nosuchimage')).code, 125);
    assert.equal((await run('--no-such-flag', IMAGE)).code, 125);
    assert.equal(await pg.ok('ps', '-aq'), '', 'nothing of these is left');
  });

  it('passes stdin with -i, and its end', async () => {
    const big = Buffer.alloc(3_000_000, 'x');
    const { stdout } = await pg.pgWith(big, 'run', '--rm', '-i', '--network', 'none', IMAGE, 'wc', '-c');
    assert.equal(stdout.trim(), '3000000');
    assert.equal((await run(IMAGE, 'cat')).stdout, '', 'without -i stdin is empty');
  });

  it('hands the words of the command on as they are', async () => {
    const words = ['a', 'b', 'a', '--rm', '-it', IMAGE, '--', '--help', '', 'two words'];
    const { stdout } = await run('-e', 'a=b', IMAGE, 'printf', '[%s]', ...words);
    assert.equal(stdout, words.map((word) => `[${word}]`).join(''));
  });

  it('loses nothing of a long output', async () => {
    const { stdout } = await run(IMAGE, 'seq', '1', '200000');
    const lines = stdout.trimEnd().split('\n');
    assert.equal(lines.length, 200_000);
    assert.equal(lines.at(-1), '200000');
  });

  it('takes environment from the image, the flags, a file and the caller', async () => {
    const file = join(pg.dir, 'env');
    writeFileSync(file, '# comment\nFILE=1\nBOTH=file\n');
    const { stdout } = await run('-e', 'FLAG=a b', '-e', 'BOTH=flag', '--env-file', file, '-h', 'box', IMAGE, 'env');
    const env = stdout.trim().split('\n');
    for (const word of [
      'PATH=/bin',
      'FROM_IMAGE=yes',
      'FLAG=a b',
      'FILE=1',
      'BOTH=flag',
      'HOSTNAME=box',
      'HOME=/root',
    ]) {
      assert.ok(env.includes(word), `${word} in ${stdout}`);
    }
  });

  it('keeps --env-file from Node, which has a flag of that name', async () => {
    const file = join(pg.dir, 'node-env');
    writeFileSync(file, 'NODE_OPTIONS=--no-such-option\n');
    assert.match((await run('--env-file', file, IMAGE, 'env')).stdout, /^NODE_OPTIONS=--no-such-option$/m);
    const missing = await run('--env-file', join(pg.dir, 'no-such-file'), IMAGE, 'env');
    assert.equal(missing.code, 125);
    assert.match(missing.stderr, /^pg: open .*no-such-file: no such file or directory$/m);
  });

  it('has a process in its group also by the list of its groups', async () => {
    const { stdout } = await run('-u', '1000:33', IMAGE, 'grep', '-E', '^(Gid|Groups)', '/proc/self/status');
    assert.match(stdout, /^Gid:\t33\t33\t33\t33\nGroups:\t33 ?\n/);
  });

  it('says what is wrong with flags before it makes anything', async () => {
    for (const flags of [
      ['-p', 'x:y'],
      ['-v', '/a:relative'],
      ['-v', '/tmp:/'],
      ['--tmpfs', '/.'],
      ['--memory', 'lots'],
      ['--restart', 'sometimes'],
      ['--cap-add', 'FLY'],
      ['--stop-signal', 'SIGNOTHING'],
    ]) {
      const { code, stderr } = await pg.pg('run', ...flags, IMAGE, 'true');
      assert.equal(code, 125, flags.join(' '));
      assert.match(stderr, /^pg: /, flags.join(' '));
      assert.doesNotMatch(stderr, /\n\s+at /, 'no stack trace');
    }
    assert.equal(await pg.ok('ps', '-aq'), '');
    assert.ok(!existsSync(join(pg.roots.data, 'names', 'x')));
  });
});
