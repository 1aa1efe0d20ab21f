import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeLayout } from './listing.ts';
import { imageOf, tarBytes } from './tar-builder.ts';
import type { SampleImage } from './transport/samples.ts';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../..');
const PG = process.env['PG_TEST_BIN'] ?? join(HOME, 'bin/pg');

describe('the commands about images', () => {
  let dir: string;
  let sample: SampleImage;
  let source: string;

  const pg = (...args: string[]): { code: number | null; out: string; err: string } => {
    const { status, stdout, stderr } = spawnSync(PG, args, {
      encoding: 'utf8',
      env: { ...process.env, PG_ROOT: join(dir, 'pg'), PG_HOUSEKEEPING: 'off' },
    });
    return { code: status, out: stdout, err: stderr };
  };

  before(async function () {
    if (!existsSync(join(HOME, 'dist/cli/main.js')) && process.env['PG_TEST_BIN'] === undefined) {
      console.error('SKIPPED: pg is not built (npm run build)');
      this.skip();
    }
    dir = mkdtempSync('/var/tmp/pg-test-');
    sample = imageOf(tarBytes([{ name: 'hello', data: 'world' }]));
    source = await writeLayout(join(dir, 'layout'), sample);
  });

  after(() => {
    if (dir) rmSync(dir, { recursive: true, force: true });
  });

  it('import, list, tag, export and remove one', () => {
    const imported = pg('import', '--name', 'hello', source);
    assert.deepEqual([imported.code, imported.out], [0, `${sample.configDigest}\n`]);
    assert.match(imported.err, /^hello:latest \(5B\) taken from the OCI directory /);
    assert.match(pg('import', '--name', 'hello', source).err, /is here already/);

    assert.equal(pg('tag', 'hello', 'localhost:5000/h:2').code, 0);
    assert.equal(pg('images', '-q').out, `${sample.configDigest.slice(7, 19)}\n`);
    assert.match(
      pg('images').out,
      /^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE\nhello +latest +[0-9a-f]{12} +.* +5B\nlocalhost:5000\/h +2 /,
    );
    assert.equal(
      pg('images', '--format', '{{.Repository}}:{{.Tag}}', '--filter', 'reference=hel*').out,
      'hello:latest\n',
    );
    assert.equal(pg('images', '--filter', 'dangling=true', '-q').out, '');

    const archive = join(dir, 'out.tar');
    assert.equal(pg('export', 'hello', `oci-archive:${archive}`).code, 0);
    assert.equal(pg('rmi', 'hello').out, 'Untagged: hello:latest\n');
    const removed = pg('rmi', sample.configDigest.slice(7, 15));
    assert.deepEqual(
      [removed.code, removed.out],
      [0, `Untagged: localhost:5000/h:2\nDeleted: ${sample.configDigest}\n`],
    );
    assert.equal(pg('import', '-q', `oci-archive:${archive}`).out, `${sample.configDigest}\n`);
  });

  it('list the others when a record is damaged, and remove it', () => {
    assert.equal(pg('import', '--name', 'broken', source).code, 0);
    const index = join(dir, 'pg/index/data.mdb');
    const bytes = readFileSync(index);
    const config = Buffer.from(`"treeRoot":"`);
    for (let at = bytes.indexOf(config); at >= 0; at = bytes.indexOf(config, at + 1)) bytes[at + 20]! ^= 1;
    writeFileSync(index, bytes);
    const listed = pg('images', '-q');
    assert.deepEqual([listed.code, listed.out], [0, '']);
    assert.match(listed.err, /record of image sha256:[0-9a-f]{64} is damaged/);
    assert.match(
      pg('rmi', 'broken').out,
      /^(Untagged: \S+\n)*Untagged: broken:latest\n(Untagged: \S+\n)*Deleted: sha256:/,
    );
    assert.deepEqual(pg('images', '-q'), { code: 0, out: '', err: '' });
    assert.equal(pg('import', '--name', 'hello', source).code, 0);
  });

  it('say what is wrong, with exit code 125', () => {
    for (const [args, words] of [
      [['import', 'nowhere:x'], /nowhere/],
      [['import', 'oci-archive:/no/such/file'], /no\/such\/file/],
      [['import', '--name', 'scratch', source], /scratch/],
      [['export', 'nope', 'oci:x'], /no such image: nope\n {4}bring it here first/],
      [['tag', 'hello', 'Not/Good'], /lower case/],
      [['images', '--filter', 'x=y'], /invalid filter/],
      [['import'], /needs SOURCE/],
    ] as const) {
      const { code, out, err } = pg(...args);
      assert.equal(code, 125, `${args.join(' ')}: ${err}`);
      assert.equal(out, '');
      assert.match(err, words);
      assert.doesNotMatch(err, /\n\s+at /, 'no stack trace');
    }
    const { code, err } = pg('rmi', 'nope', 'neither');
    assert.equal(code, 1);
    assert.match(err, /no such image: nope\n.*\n?.*no such image: neither/s);
  });
});
