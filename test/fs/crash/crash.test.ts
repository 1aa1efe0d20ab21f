import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openLog } from '../../../fs/log/log.ts';
import { openView } from '../../../fs/view/open-view.ts';
import type { View } from '../../../fs/view/view.ts';
import { dump, Fixture, ROOT_CALLER as ROOT } from '../view/fixture.ts';
import { IMAGE } from '../view/programs.ts';
import { Disk, materialize, randomOf } from './disk.ts';
import { type Action, traced } from './trace.ts';
import type { Outcome } from './workload.ts';

/** How many crashes in all: a sixteenth of PG_TEST_CASES. */
const CRASHES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 4800) / 16);
const PER_PROGRAM = 150;
const OPERATIONS = 120;

describe('a log on a disk whose power goes at any moment', function () {
  this.timeout(600_000);
  let fixture: Fixture;
  /** What is rebuilt is synced many times, which need not reach a disk. */
  let memory: string;
  before(async function () {
    if (spawnSync('strace', ['-V']).status !== 0) {
      console.error('SKIPPED: strace is not installed');
      this.skip();
    }
    fixture = new Fixture();
    await fixture.image(IMAGE);
    memory = mkdtempSync(existsSync('/dev/shm') ? '/dev/shm/pg-test-' : join(fixture.dir, 'memory-'));
  });
  after(async () => {
    if (memory !== undefined) rmSync(memory, { recursive: true, force: true });
    await fixture?.remove();
  });

  const record = (seed: number): { actions: Action[]; outcome: Outcome; dir: string } => {
    const dir = join(fixture.dir, `watched-${seed}`);
    const outcome = join(fixture.dir, `outcome-${seed}`);
    const workload = fileURLToPath(new URL('workload.ts', import.meta.url));
    const words = [join(dir, 'log'), join(fixture.dir, 'data'), Buffer.from(fixture.treeRoot!).toString('hex')];
    const command = [process.execPath, workload, ...words, String(seed), String(OPERATIONS), outcome];
    const actions = traced(command, dir, join(fixture.dir, `trace-${seed}`));
    return { actions, outcome: JSON.parse(readFileSync(outcome, 'utf8')) as Outcome, dir };
  };

  for (let first = 0; first < CRASHES; first += PER_PROGRAM) {
    const seed = Number(process.env['PG_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31)) + first;
    it(`stands at a commit no older than the last sync (seed ${seed})`, () => {
      const { actions, outcome, dir } = record(seed);
      const to = join(memory, 'rebuilt');
      const disk = new Disk(actions);
      for (const [path, bytes] of disk.whole())
        if (bytes !== null) assert.ok(readFileSync(path).equals(bytes), `${path}: the trace is not all that was done`);
      const last = actions.at(-1)!.end;
      const from = actions.find((action) => action.kind === 'mark')!.end;
      for (let n = 0; n < Math.min(PER_PROGRAM, CRASHES - first); n++) {
        const random = randomOf(seed + n);
        const at = from + 1 + Math.floor(random() * (last - from));
        materialize(disk.after(at, random), dir, to);
        check(join(to, 'log'), durableAt(actions, at), outcome, `PG_TEST_SEED=${seed}, crash ${n} at line ${at}`);
        rmSync(to, { recursive: true });
      }
    });
  }

  /** The log opens where the model was, and takes more. */
  const check = (logDir: string, durable: number, { states }: Outcome, name: string): void => {
    const within = (action: (view: View) => void): void => {
      const view = openView(fixture.tree, fixture.store, openLog(logDir, { base: fixture.treeRoot! }));
      try {
        action(view);
      } finally {
        view.close();
      }
    };
    let after: string[] = [];
    within((view) => {
      const size = view.stats().logBytes;
      assert.ok(size >= durable && states[size] !== undefined, `${name}: the log ends at ${size}, durable ${durable}`);
      assert.deepEqual(dump(view), states[size], name);
      view.mknod(1, 'after', 0o100644, 0, ROOT);
      view.position();
      after = dump(view);
    });
    within((view) => assert.deepEqual(dump(view), after, name));
  };
});

/** What the program had been told was durable. */
function durableAt(actions: readonly Action[], at: number): number {
  let durable = 0;
  for (const action of actions)
    if (action.kind === 'mark' && action.end < at) durable = Math.max(durable, Number(action.text.split(' ')[1]));
  return durable;
}
