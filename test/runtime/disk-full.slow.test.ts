import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { writeBusyboxArchive } from './busybox.ts';
import { IMAGE, needContainers, type Outcome, outcomeOf, PG, processLives } from './installation.ts';

const DISK_BYTES = 160 << 20;
const QUIET = ['--network', 'none'];

describe('a full disk', function () {
  this.timeout(180_000);
  let dir: string | undefined;
  let disk: string;
  let archive: string;

  before(function () {
    needContainers(this);
    dir = mkdtempSync('/var/tmp/pg-test-');
    disk = join(dir, 'disk');
    mkdirSync(disk);
    archive = writeBusyboxArchive(dir, {});
    const image = join(dir, 'image');
    closeSync(openSync(image, 'w'));
    truncateSync(image, DISK_BYTES);
    try {
      execFileSync('mkfs.ext4', ['-q', '-F', '-m', '0', image], { stdio: 'pipe' });
      execFileSync('mount', ['-o', 'loop', image, disk], { stdio: 'pipe' });
    } catch (error) {
      rmSync(dir, { recursive: true });
      dir = undefined;
      console.error(`      skipped: no disk to fill: ${(error as Error).message}`);
      this.skip();
    }
  });
  after(async () => {
    if (dir === undefined) return;
    empty();
    for (const id of (await pg('ps', '-aq')).stdout.split('\n').filter(Boolean)) await pg('rm', '-f', id);
    execFileSync('umount', [disk]);
    rmSync(dir, { recursive: true });
  });

  const pg = (...words: string[]): Promise<Outcome> => {
    const child = spawn(PG, words, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, PG_ROOT: join(disk, 'pg') },
    });
    child.stdin.end();
    return outcomeOf(child);
  };
  const ok = async (...words: string[]): Promise<string> => {
    const { code, stdout, stderr } = await pg(...words);
    assert.equal(code, 0, `pg ${words.join(' ')}: ${stderr}`);
    return stdout.trimEnd();
  };
  /** Takes the rest of the disk, to the last byte. */
  function fill(): void {
    const fd = openSync(join(disk, 'ballast'), 'a');
    for (const bytes of [1 << 20, 4096, 1]) {
      try {
        for (;;) if (writeSync(fd, Buffer.alloc(bytes)) < bytes) break;
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC');
      }
    }
    closeSync(fd);
    assert.equal(statfsSync(disk).bavail, 0);
  }
  const empty = (): void => rmSync(join(disk, 'ballast'), { force: true });

  it('fails an import, which leaves nothing', async () => {
    await ok('images');
    fill();
    const { code, stderr } = await pg('import', `docker-archive:${archive}`);
    assert.equal(code, 125);
    assert.match(stderr, /no space left/i);
    empty();
    assert.equal((await ok('images', '-q')).trim(), '');
    await ok('import', '-q', `docker-archive:${archive}`);
    await ok('verify');
  });

  it('is ENOSPC in the container, whose shim goes on; what was fsynced is there, and with space all goes on', async () => {
    await ok('run', '-d', '--name', 'writer', ...QUIET, IMAGE, 'sleep', '1000');
    await ok('exec', 'writer', 'sh', '-c', 'echo kept > /kept; sync /kept');
    const shim = Number(await ok('inspect', '-f', '{{.Pg.ShimPid}}', 'writer'));
    // Space to give back later; the container itself takes the rest.
    writeFileSync(join(disk, 'ballast'), Buffer.alloc(24 << 20));
    const filled = await pg('exec', 'writer', 'sh', '-c', 'dd if=/dev/zero of=/big bs=1M count=400 conv=fsync');
    assert.notEqual(filled.code, 0);
    assert.match(filled.stderr, /No space left on device/);
    fill();
    for (let i = 0; i < 3; i++) {
      const { code, stderr } = await pg('exec', 'writer', 'true');
      if (code !== 0) assert.match(stderr, /no space left/i);
      assert.ok(processLives(shim), 'a message that cannot be written does not end the shim');
    }
    assert.match(await ok('ps', '--format', '{{.Names}} {{.Status}}'), /^writer Up/);
    empty();
    assert.equal(await ok('exec', 'writer', 'cat', '/kept'), 'kept');
    await ok('exec', 'writer', 'sh', '-c', 'rm -f /big; echo more > /more; sync /more');
    await ok('stop', '-t', '0', 'writer');
    await ok('start', 'writer');
    assert.equal(await ok('exec', 'writer', 'cat', '/kept', '/more'), 'kept\nmore');
    await ok('rm', '-f', 'writer');
    await ok('verify');
  });

  it('keeps no container from being stopped, listed and removed', async () => {
    await ok('run', '-d', '--name', 'stopped', ...QUIET, IMAGE, 'sleep', '1000');
    await ok('run', '-d', '--rm', '--name', 'removed', ...QUIET, IMAGE, 'sleep', '1000');
    await ok('run', '-d', '--name', 'killed', ...QUIET, IMAGE, 'sleep', '1000');
    const shims = await Promise.all(
      ['stopped', 'removed', 'killed'].map(async (name) => Number(await ok('inspect', '-f', '{{.Pg.ShimPid}}', name))),
    );
    fill();
    await Promise.all([ok('stop', '-t', '0', 'stopped'), ok('stop', '-t', '0', 'removed')]);
    process.kill(shims[2]!, 'SIGKILL');
    // Twice: what could not be written down is found out again.
    for (let i = 0; i < 2; i++) {
      fill();
      const listed = (await ok('ps', '-a', '--format', '{{.Names}} {{.Status}}')).split('\n').toSorted();
      assert.equal(listed.length, 2, listed.join());
      for (const line of listed) assert.match(line, /^(stopped|killed) Exited/);
    }
    for (const shim of shims) assert.ok(!processLives(shim));
    const start = await pg('start', 'stopped');
    if (start.code !== 0) assert.match(start.stderr, /no space left/i);
    await ok('rm', '-f', 'stopped', 'killed');
    assert.deepEqual(readdirSync(join(disk, 'pg/containers')), []);
    empty();
    assert.equal(await ok('run', '--rm', ...QUIET, IMAGE, 'echo', 'works'), 'works');
  });
});
