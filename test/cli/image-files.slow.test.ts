import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { imageArchive } from '../../examples/images/build.ts';

const PG = join(import.meta.dirname, '../../bin/pg');

/** What `pg ls`, `find`, `cat` and `diff` say of an image, against the same image mounted and looked at with the machine's own programs. */
describe('looking into images', () => {
  let dir: string;
  let mounted: string;

  const pg = (...args: string[]): Buffer =>
    execFileSync(PG, args, {
      env: { ...process.env, PG_ROOT: join(dir, 'pg'), PG_HOUSEKEEPING: 'off' },
      maxBuffer: 1 << 28,
    });
  const fails = (...args: string[]): string => {
    const { status, stderr } = spawnSync(PG, args, {
      encoding: 'utf8',
      env: { ...process.env, PG_ROOT: join(dir, 'pg'), PG_HOUSEKEEPING: 'off' },
    });
    assert.equal(status, 125);
    return stderr;
  };

  before(function () {
    if (process.getuid!() !== 0 || !existsSync('/dev/fuse')) {
      console.error('    SKIPPED: mounting an image needs root and /dev/fuse');
      this.skip();
    }
    dir = mkdtempSync('/var/tmp/pg-test-');
    mounted = join(dir, 'mounted');
    mkdirSync(mounted);
    for (const name of ['nginx', 'redis']) pg('import', '-q', `oci-archive:${imageArchive(name)}`);
    pg('mount', 'nginx', mounted);
  });
  after(() => {
    if (dir === undefined) return;
    pg('umount', mounted);
    rmSync(dir, { recursive: true });
  });

  it('find lists what find(1) finds', () => {
    const theirs = execFileSync('find', ['.', '-print0'], { cwd: mounted, maxBuffer: 1 << 28 }).toString('latin1');
    const paths = theirs
      .split('\0')
      .slice(0, -1)
      .map((path) => (path === '.' ? '/' : path.slice(1)));
    const ours = pg('find', '--null', 'nginx').toString('latin1').split('\0').slice(0, -1);
    assert.deepEqual(ours.toSorted(), paths.toSorted());
    const conf = execFileSync('find', ['etc', '-type', 'f', '-name', '*.con[a-f]'], { cwd: mounted, encoding: 'utf8' });
    assert.deepEqual(
      pg('find', 'nginx:/etc', '--type', 'f', '--name', '*.con[a-f]').toString().trim().split('\n'),
      conf
        .trim()
        .split('\n')
        .map((path) => `/${path}`)
        .toSorted(),
    );
  });

  it('ls -l has what stat(1) has', () => {
    const names = execFileSync('sh', ['-c', 'LC_ALL=C ls -A usr/bin'], { cwd: mounted, encoding: 'utf8' })
      .trim()
      .split('\n');
    const stat = execFileSync('stat', ['-c', '%A %h %u %g %s', ...names], {
      cwd: join(mounted, 'usr/bin'),
      encoding: 'utf8',
    });
    const ours = pg('ls', '-l', 'nginx:/usr/bin').toString().trim().split('\n');
    assert.deepEqual(
      ours.map((line) => line.split(/ +/).slice(0, 5).join(' ')),
      stat.trim().split('\n'),
    );
    assert.deepEqual(pg('ls', 'nginx:/usr/bin').toString().trim().split('\n'), names);
    assert.match(pg('ls', '-l', 'nginx:/').toString(), /^lrwxrwxrwx .* bin -> usr\/bin$/m);
  });

  it('cat gives every byte, through symlinks too', () => {
    for (const path of ['/usr/sbin/nginx', '/bin/sh', '/etc/os-release']) {
      const inside = execFileSync('chroot', [mounted, '/usr/bin/readlink', '-f', path], { encoding: 'utf8' }).trim();
      assert.ok(pg('cat', `nginx:latest:${path}`).equals(readFileSync(join(mounted, inside))), path);
    }
    assert.match(fails('cat', 'nginx:/etc'), /^pg: nginx:\/etc is not a regular file\n    pg ls -l nginx:\/etc\n$/);
    assert.match(
      fails('cat', 'nginx:/etc/nothing'),
      /^pg: \/etc\/nothing is not in the image\n    pg ls and pg find show what is\n$/,
    );
    assert.match(fails('ls', 'nothing:/etc'), /^pg: no such image: nothing\n/);
  });

  it('Tab completes images and paths in them', () => {
    const complete = (...words: string[]): string[] =>
      pg('complete', '--words', '--', ...words)
        .toString()
        .split('\n')
        .slice(0, -1);
    assert.deepEqual(complete('ls', 'ngi'), ['nginx:latest:/']);
    assert.deepEqual(complete('cat', 'nginx:/etc/ngin'), ['nginx:/etc/nginx/']);
    assert.deepEqual(complete('cat', 'nginx:/etc/os-rel'), ['nginx:/etc/os-release']);
    assert.deepEqual(complete('diff', 'nginx', 'red'), ['redis:latest']);
    assert.deepEqual(complete('ls', 'nothing:/e'), []);
    assert.deepEqual(pg('complete', 'ngi').toString(), 'nginx:latest\n');
    assert.deepEqual(pg('complete', 'nginx:/etc/ngin').toString(), 'nginx:/etc/nginx/\n');
    const { Address } = (JSON.parse(pg('inspect', 'nginx').toString()) as { Pg: { Address: string } }[]).map(
      (i) => i.Pg,
    )[0]!;
    assert.deepEqual(pg('complete', Address.slice(0, 16)).toString(), `${Address}\n`);
    assert.equal(pg('cat', `${Address}:/etc/os-release`).toString(), pg('cat', 'nginx:/etc/os-release').toString());
    assert.match(pg('images', '--digests').toString(), new RegExp(`ADDRESS[^]*${Address}`));
  });

  it('Tab in bash gives what follows the last colon, which bash takes for the end of a word', () => {
    const tab = (line: string): string =>
      execFileSync(
        'bash',
        [
          '-c',
          `eval "$(pg completion bash)"; COMP_LINE=$1; COMP_POINT=\${#1}; _pg; printf '%s\\n' "\${COMPREPLY[@]}"`,
          'bash',
          line,
        ],
        {
          env: { ...process.env, PG_ROOT: join(dir, 'pg'), PATH: `${dirname(PG)}:${process.env['PATH']}` },
          encoding: 'utf8',
        },
      );
    assert.equal(tab('pg ls nginx:/etc/ngin'), '/etc/nginx/\n');
    assert.equal(tab('pg cat redis:/etc/os-rel'), '/etc/os-release\n');
    assert.equal(tab('pg run --rm ngi'), 'nginx:latest\n');
    assert.equal(tab('pg rmi nginx:la'), 'latest\n');
    assert.equal(tab('pg imag'), 'images\n');
  });

  it('Tab in fish and zsh gives the same words, and files where pg knows none', function () {
    if (spawnSync('fish', ['--version']).status !== 0 || spawnSync('zsh', ['--version']).status !== 0) this.skip();
    const env = { ...process.env, PG_ROOT: join(dir, 'pg'), PATH: `${dirname(PG)}:${process.env['PATH']}` };
    const shell = (program: string, ...words: string[]): string =>
      execFileSync(program, words, { env, cwd: join(dir, 'pg'), encoding: 'utf8' });
    const fish = (line: string): string => shell('fish', '-c', 'pg completion fish | source; complete -C $argv', line);
    // What zsh's own completion system has for functions to call.
    const zsh = (line: string): string =>
      shell(
        'zsh',
        '-fc',
        `compdef() { :; }; compadd() { print -l -- \${(P)2}; }; _files() { print files; }
         eval "$(pg completion zsh)"; words=(\${(z)1}); [[ $1 == *' ' ]] && words+=(''); CURRENT=$#words; _pg`,
        'zsh',
        line,
      );
    for (const [line, found] of [
      ['pg imag', 'images\n'],
      ['pg run --rm ngi', 'nginx:latest\n'],
      ['pg cat redis:/etc/os-rel', 'redis:/etc/os-release\n'],
      ['pg snapshot ', 'create\nls\nrm\n'],
    ] as const)
      assert.deepEqual([fish(line), zsh(line)], [found, found], line);
    assert.deepEqual([fish('pg mount ./inde'), zsh('pg mount ./inde')], ['./index/\n', 'files\n']);
  });

  it('ends quietly when nobody reads on', () => {
    const { stderr, status } = spawnSync(
      'sh',
      ['-c', `${PG} find nginx | head -1; ${PG} cat nginx:/usr/sbin/nginx | head -c 10`],
      {
        env: { ...process.env, PG_ROOT: join(dir, 'pg'), PG_HOUSEKEEPING: 'off' },
        encoding: 'utf8',
      },
    );
    assert.deepEqual([status, stderr], [0, '']);
  });

  it('says when its output cannot be written, and when a pattern is none', () => {
    for (const command of ['ls nginx', 'find nginx', 'cat nginx:/usr/sbin/nginx', 'images']) {
      const env = { ...process.env, PG_ROOT: join(dir, 'pg'), PG_HOUSEKEEPING: 'off' };
      const { status, stderr } = spawnSync('sh', ['-c', `${PG} ${command} > /dev/full`], { encoding: 'utf8', env });
      assert.deepEqual([status, stderr.split('\n').length], [125, 3], stderr);
      assert.match(stderr, /^pg: cannot write to standard output: ENOSPC: no space left on device/);
    }
    assert.match(
      fails('find', 'nginx', '--name', '[z-a]'),
      /^pg: \[z-a\] is no pattern of names: .*\n    as in the shell/,
    );
    assert.match(fails('find', 'nginx', '--perm', '9'), /^pg: --perm takes up to four octal digits, not 9\n/);
  });

  it('diff of two images lists what one has and the other has not', () => {
    assert.equal(pg('diff', 'nginx', 'nginx').toString(), '');
    const changes = pg('diff', 'nginx', 'redis').toString().trim().split('\n');
    assert.ok(changes.includes('D /usr/sbin/nginx'));
    assert.ok(changes.includes('A /usr/bin/redis-server'));
    const forward = changes.map((line) => line.replace(/^[AD]/, (kind) => (kind === 'A' ? 'D' : 'A')));
    assert.deepEqual(pg('diff', 'redis', 'nginx').toString().trim().split('\n').toSorted(), forward.toSorted());
  });
});
