import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Word } from '../mount/acknowledged-writer.ts';
import { Bench, needFuse } from '../mount/harness.ts';
import { Knowledge } from '../mount/knowledge.ts';
import { Disk, materialize, randomOf } from './disk.ts';
import { traced } from './trace.ts';

/** How many crashes: one for each 400 of PG_TEST_CASES. */
const CRASHES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 8000) / 400);
const WORK_MS = 2500;

describe('a mount on a disk whose power goes under load', function () {
  this.timeout(600_000);
  let bench: Bench;
  before(function () {
    needFuse(this);
    if (spawnSync('strace', ['-V']).status !== 0) {
      console.error('SKIPPED: strace is not installed');
      this.skip();
    }
    bench = new Bench();
  });
  after(() => bench?.clean());

  const seed = Number(process.env['PG_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

  it(`has everything that fsync acknowledged (seed ${seed})`, async () => {
    const watched = join(bench.dir, 'watched');
    mkdirSync(watched);
    const workload = fileURLToPath(new URL('mounted-workload.ts', import.meta.url));
    const words = [join(bench.dir, 'traced'), join(watched, 'log'), bench.roots.data, String(WORK_MS)];
    const actions = traced([process.execPath, workload, ...words], watched, join(bench.dir, 'trace'));
    const disk = new Disk(actions);
    const marks = actions.filter((action) => action.kind === 'mark');
    assert.ok(marks.length > 100, `the writer said only ${marks.length} words`);
    const [from, last] = [marks[0]!.end, actions.at(-1)!.end];
    for (let n = 0; n < CRASHES; n++) {
      const random = randomOf(seed + n);
      const at = from + 1 + Math.floor(random() * (last - from));
      const logDir = join(bench.dir, `rebuilt-${n}`);
      materialize(disk.after(at, random), watched, logDir);
      const known = new Knowledge();
      for (const said of marks)
        if (said.end < at) for (const line of said.text.trim().split('\n')) known.hear(JSON.parse(line) as Word);
      const mount = await bench.mount({ logDir: join(logDir, 'log') });
      try {
        known.check(bench.at);
      } catch (error) {
        throw new Error(`PG_TEST_SEED=${seed}, crash ${n} at line ${at}`, { cause: error });
      } finally {
        await mount.unmount();
      }
      rmSync(logDir, { recursive: true });
    }
  });
});
