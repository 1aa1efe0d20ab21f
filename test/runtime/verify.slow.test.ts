import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { noise } from '../store/fixture.ts';
import { writeArchive } from '../grid/pair.ts';

const HOME = join(import.meta.dirname, '../..');
const PG = process.env['PG_TEST_BIN'] ?? join(HOME, 'bin/pg');

describe('pg verify', function () {
  this.timeout(120_000);
  let dir: string;

  const pg = (...args: string[]): { code: number | null; out: string; err: string } => {
    const { status, stdout, stderr } = spawnSync(PG, args, {
      encoding: 'utf8',
      env: { ...process.env, PG_ROOT: join(dir, 'pg') },
    });
    return { code: status, out: stdout, err: stderr };
  };

  before(async function () {
    if (!existsSync(join(HOME, 'dist/cli/main.js')) && process.env['PG_TEST_BIN'] === undefined) {
      console.error('SKIPPED: pg is not built (npm run build)');
      this.skip();
    }
    dir = mkdtempSync('/var/tmp/pg-test-');
    await writeArchive(join(dir, 'one.tar'), 'one:latest', [{ 'usr/': null, 'usr/tool': noise(90_000, 1) }]);
    await writeArchive(join(dir, 'two.tar'), 'two:latest', [{ big: Buffer.concat([noise(4 << 20, 2), noise(90, 3)]) }]);
    for (const name of ['one', 'two'])
      assert.equal(pg('import', '-q', `docker-archive:${join(dir, `${name}.tar`)}`).code, 0);
  });
  after(() => {
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  const sectors = (): string[] =>
    readdirSync(join(dir, 'pg/sectors'), { recursive: true, encoding: 'utf8' })
      .filter((name) => /[0-9a-f]{64}$/.test(name))
      .map((name) => join(dir, 'pg/sectors', name));

  it('names the image and the path, for a named image only what that reaches, and mends from the archive', () => {
    assert.deepEqual([pg('verify').code, pg('verify', 'one').code], [0, 0]);
    assert.match(pg('verify', 'three').err, /there is no image, container or named mount three/);
    const path = sectors().find((file) => readFileSync(file).includes(noise(4 << 20, 2).subarray(0, 4096)))!;
    const kept = readFileSync(path);
    const bad = Buffer.from(kept);
    bad[1000]! ^= 4;
    writeFileSync(path, bad);
    assert.equal(pg('verify', 'one').code, 0);
    const { code, out } = pg('verify', 'two');
    assert.equal(code, 1);
    assert.match(
      out,
      /^sector [0-9a-f]{64}: block 0 does not have its checksum \(\/.*\)\nimage two:latest: \/big cannot be read: sector /,
    );
    assert.equal(pg('verify', '--repair').code, 1, 'nobody has a copy');
    assert.ok(readFileSync(path).equals(bad));
    assert.equal(pg('verify', '--repair', '--from', `docker-archive:${join(dir, 'one.tar')}`).code, 1);
    const mended = pg('verify', '--repair', '--from', `docker-archive:${join(dir, 'two.tar')}`);
    assert.equal(mended.code, 0, mended.err);
    assert.match(mended.out, /\nmended: sector [0-9a-f]{64}: the archive .*two\.tar\nwhat is left:\n$/);
    assert.ok(readFileSync(path).equals(kept));
    rmSync(path);
    assert.equal(
      pg('verify', '--repair', '--from', `docker-archive:${join(dir, 'two.tar')}`).code,
      0,
      'also one that is gone',
    );
    assert.ok(readFileSync(path).equals(kept));
  });

  it('says that the index is damaged where reading it would end the process, and makes it anew', () => {
    const path = join(dir, 'pg/index/data.mdb');
    const file = readFileSync(path);
    for (let page = 2; page * 4096 < file.length; page++) file.fill(0xff, page * 4096 + 8, page * 4096 + 64);
    writeFileSync(path, file);
    // As it is left by a command that the damage ends: the next ones say what is wrong instead of dying of it, too.
    const dead = join(dir, 'pg/index/using/1.0');
    writeFileSync(dead, '');
    for (const words of [['images'], ['images'], ['df']]) {
      const { code, err } = pg(...words);
      assert.equal(code, 125);
      assert.match(err, /^pg: the index is damaged: .*\n +stop everything .* pg verify --rebuild\n$/);
    }
    const { code, err } = pg('verify');
    assert.deepEqual(
      [code, /^pg: the index is damaged: .*\n +stop everything .* pg verify --rebuild\n$/.test(err)],
      [125, true],
      err,
    );
    const { code: rebuilt, out } = pg('verify', '--rebuild');
    assert.equal(rebuilt, 0);
    assert.match(out, /^the index is as it was on .*\n0 sectors that it did not have/);
    assert.match(pg('images').out, /^one .*\ntwo |^two .*\none /m);
    assert.deepEqual(readdirSync(join(dir, 'pg/index/using')), []);
  });
});
