/** How commands tell of their progress: bars on a terminal, events for programs, nothing in a pipe. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { shownProgress } from '../../cli/progress.ts';
import { writeLayout } from '../layers/listing.ts';
import { imageOf, tarBytes } from '../layers/tar-builder.ts';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../..');
const PG = process.env['PG_TEST_BIN'] ?? join(HOME, 'bin/pg');

/** A terminal, or a pipe, that remembers what was written to it. */
function stream(isTTY: boolean): { out: string[]; stream: NodeJS.WriteStream } {
  const out: string[] = [];
  const fake = { isTTY, columns: 100, rows: 10, write: (text: string) => out.push(text) > 0 };
  return { out, stream: fake as unknown as NodeJS.WriteStream };
}

describe('progress', () => {
  it('is a bar for each task and one for all of them, with bytes, rate and ETA', () => {
    const { out, stream: terminal } = stream(true);
    const progress = shownProgress({}, terminal);
    progress.total!(3000);
    progress.start('a', 'layer 1', 1000);
    progress.start('b', 'layer 2', 2000);
    progress.advance('a', 500);
    progress.done('b', 'already here');
    progress.end();
    const escapes = new RegExp(`${String.fromCodePoint(27)}\\[[0-9]*[A-Z]`, 'g');
    const last = out.at(-1)!.replaceAll(escapes, '').split('\n');
    assert.match(last[0]!, /^layer 1 +█{12}░{12} 500B\/1kB [0-9.]+[kM]?B\/s ETA 0:/);
    assert.match(last[1]!, /^layer 2 +already here$/);
    assert.match(last[2]!, /^total +█{20}░{4} 2.5kB\/3kB [0-9.]+[kM]?B\/s ETA 0:/);
  });

  it('is nothing in a pipe, nor when it is to be quiet', () => {
    for (const [flags, isTTY] of [
      [{}, false],
      [{ quiet: true }, true],
      [{ progress: 'none' }, true],
    ] as const) {
      const { out, stream: to } = stream(isTTY);
      const progress = shownProgress(flags, to);
      progress.start('a', 'layer 1', 1000);
      progress.advance('a', 500);
      progress.done('a');
      progress.end();
      assert.deepEqual(out, []);
    }
  });

  it('is events, one object a line, as docs/formats/progress.md has them', () => {
    const { out, stream: pipe } = stream(false);
    const progress = shownProgress({ progress: 'json' }, pipe);
    progress.total!(3000);
    progress.start('a', 'layer 1', 1000);
    progress.advance('a', 1000);
    progress.done('a');
    progress.start('b', 'layer 2');
    progress.done('b', 'already here');
    progress.result({ image: 'x' });
    const events = out.map((line) => JSON.parse(line) as Record<string, unknown>);
    assert.ok(out.every((line) => line.endsWith('\n') && line.indexOf('\n') === line.length - 1));
    assert.deepEqual(
      events.map(({ rate, ...rest }) => (rate === undefined ? rest : { ...rest, rate: typeof rate })),
      [
        { event: 'total', totalBytes: 3000 },
        { event: 'start', id: 'a', label: 'layer 1', bytes: 1000 },
        { event: 'progress', id: 'a', done: 1000, bytes: 1000, totalDone: 1000, totalBytes: 3000, rate: 'number' },
        { event: 'done', id: 'a', done: 1000, totalDone: 1000, totalBytes: 3000 },
        { event: 'start', id: 'b', label: 'layer 2' },
        { event: 'done', id: 'b', done: 0, note: 'already here', totalDone: 1000, totalBytes: 3000 },
        { event: 'result', image: 'x' },
      ],
    );
  });

  it('of the commands: events alone on stderr, the id alone on stdout, errors as events too', async function () {
    if (!existsSync(join(HOME, 'dist/cli/main.js')) && process.env['PG_TEST_BIN'] === undefined) return this.skip();
    const dir = mkdtempSync('/var/tmp/pg-test-');
    try {
      const sample = imageOf(tarBytes([{ name: 'hello', data: 'world' }]));
      const source = await writeLayout(join(dir, 'layout'), sample);
      const pg = (...args: string[]): { code: number | null; out: string; events: Record<string, unknown>[] } => {
        const env = { ...process.env, PG_ROOT: join(dir, 'pg') };
        const { status, stdout, stderr } = spawnSync(PG, args, { encoding: 'utf8', env });
        const events = stderr.split('\n').slice(0, -1);
        return { code: status, out: stdout, events: events.map((line) => JSON.parse(line) as Record<string, unknown>) };
      };
      const imported = pg('import', '--progress=json', source, 'hello');
      assert.deepEqual([imported.code, imported.out], [0, `${sample.configDigest}\n`]);
      const blobBytes = sample.layers[0]!.blob.length;
      assert.deepEqual(imported.events.at(-1), {
        event: 'result',
        image: sample.configDigest,
        names: ['hello:latest'],
        digests: [],
        took: `the OCI directory ${dir}/layout`,
        alreadyPresent: false,
        readBytes: blobBytes,
        presentBytes: 0,
        contentBytes: 5,
        knownBytes: 0,
      });
      assert.equal(pg('import', '--progress=json', source, 'hello').events.at(-1)!['alreadyPresent'], true);
      const exported = pg('export', '--progress=json', 'hello', `oci:${dir}/out`);
      assert.equal(exported.out, `${sample.digest}\n`);
      const { to, digest, isPublished } = exported.events.at(-1)!;
      assert.deepEqual([to, digest, isPublished], [`the OCI directory ${dir}/out`, sample.digest, true]);
      const failed = pg('import', '--progress=json', 'oci:/no/such/directory');
      assert.deepEqual([failed.code, failed.out, failed.events.length], [125, '', 1]);
      assert.deepEqual([failed.events[0]!['event'], failed.events[0]!['code']], ['error', 'FILE_UNREADABLE']);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});
