import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { rollBackLog } from '../../../fs/history/rollback.ts';
import { keepSnapshot, readSnapshots } from '../../../fs/history/snapshots.ts';
import { openStateAt } from '../../../fs/history/state-at.ts';
import { openLog } from '../../../fs/log/log.ts';
import { checkClaims } from '../../../fs/proof/claims.ts';
import { buildNamespace } from '../../../fs/proof/namespace.ts';
import { takeSnapshot } from '../../../fs/proof/snapshot.ts';
import { Follower } from '../../../fs/view/follower.ts';
import { openView } from '../../../fs/view/open-view.ts';
import { dump, type Fixture, ROOT_CALLER, useFixture } from '../view/fixture.ts';
import type { Model } from '../view/model.ts';
import { IMAGE, modelOfImage, operation, type Op, Pair } from '../view/programs.ts';
import { copyModel } from './copy-model.ts';

const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 2560) / 320);

type Step = { step: 'run'; ops: Op[] } | { step: 'back'; to: number } | { step: 'lose checkpoint' } | { step: 'name' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ step: fc.constant('run' as const), ops: fc.array(operation, { maxLength: 15 }) }),
  },
  { weight: 3, arbitrary: fc.record({ step: fc.constant('back' as const), to: fc.nat(20) }) },
  fc.record({ step: fc.constantFrom('lose checkpoint' as const, 'name' as const) }),
);

describe('a log that is rolled back', () => {
  let fixture: Fixture;
  const { fresh, dirOf } = useFixture(IMAGE, (made) => (fixture = made));

  const sizeOf = (name: string): number => {
    const log = openLog(dirOf(name), { readOnly: true });
    log.close();
    return log.written;
  };

  function runSteps(name: string, steps: readonly Step[]): { size: number; model: Model }[] {
    const dir = dirOf(name);
    let pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
    const past = [{ size: pair.view.flush(), model: copyModel(pair.model) }];
    for (const one of steps) {
      if (one.step === 'run') for (const op of one.ops) pair.run(op);
      pair.view.close();
      let { model } = pair;
      const size = sizeOf(name);
      past.push({ size, model: copyModel(model) });
      if (one.step === 'back') {
        const to = past[one.to % past.length]!;
        const at = rollBackLog(fixture.store, fixture.treeRoot, dir, to.size);
        assert.equal(at.size, sizeOf(name));
        model = copyModel(to.model);
        past.push({ size: at.size, model: copyModel(model) });
      } else if (one.step === 'lose checkpoint') rmSync(join(dir, 'checkpoint'), { force: true });
      else if (one.step === 'name')
        keepSnapshot(fixture.store, fixture.treeRoot, dir, {
          name: `s${size}.${past.length}`,
          size,
          root: '00'.repeat(32),
          ms: 0,
          createdMs: 0,
        });
      pair = new Pair(fixture.view(name), model);
      pair.check();
    }
    pair.view.close();
    return past;
  }

  it('has the files of then, and all its history', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 1, maxLength: 8 }), (steps) => {
        const name = fresh();
        const past = runSteps(name, steps);
        const dir = dirOf(name);
        for (const { size, model } of past) {
          const view = openView(fixture.tree, fixture.store, openLog(dir, { readOnly: true, limit: size }));
          assert.deepEqual(dump(view), model.dump());
          view.close();
        }
        // Whoever follows the log, and whoever replays it from the first entry, comes to the same.
        rmSync(join(dir, 'checkpoint'), { force: true });
        const { state, size } = takeSnapshot(fixture.store, fixture.treeRoot, dir);
        const log = openLog(dir);
        const end = log.appendNamespace({ size, epoch: 0, root: buildNamespace(state).root, label: 'mount/x' });
        log.close();
        rmSync(join(dir, 'checkpoint'), { force: true });
        const about = { label: 'mount/x', epoch: 0 };
        assert.deepEqual(
          checkClaims(fixture.store, fixture.treeRoot, dir, end, about).map(({ holds }) => holds),
          [true],
        );
        const follower = new Follower(dir, fixture.tree, fixture.treeRoot ?? undefined);
        follower.follow(end);
        follower.close();
        for (const snapshot of readSnapshots(dir)) assert.ok(past.some((one) => one.size === snapshot.size));
      }),
      { numRuns: CASES },
    );
  });

  it('gives no inode number a second time, and replays in no time', () => {
    const name = fresh();
    const dir = dirOf(name);
    const seen = new Set<number>();
    let view = fixture.view(name);
    const start = view.flush();
    for (let i = 0; i < 14; i++) {
      const { ino } = view.mknod(1, `file${i}`, 0o100644, 0, ROOT_CALLER);
      assert.ok(!seen.has(ino));
      seen.add(ino);
      view.close();
      rollBackLog(fixture.store, fixture.treeRoot, dir, i % 3 === 0 && i > 0 ? start : sizeOf(name));
      // Fourteen times back and nothing but the log to tell where to: each is looked up once, not again for each that follows.
      rmSync(join(dir, 'checkpoint'));
      view = fixture.view(name);
    }
    view.close();
    const at = openStateAt(fixture.store, fixture.treeRoot, dir);
    assert.deepEqual(
      Array.from({ length: 14 }, (_, i) => i).filter((i) => at.tree.lookup(1, `file${i}`) !== undefined),
      [13],
    );
    at.close();
  });
});
