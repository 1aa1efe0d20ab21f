import assert from 'node:assert/strict';
import { parseRetain } from '../../../cli/retain.ts';
import { cloneLog } from '../../../fs/history/clone-log.ts';
import { commitsBackFrom } from '../../../fs/history/commits-back.ts';
import { parsePosition } from '../../../fs/history/positions.ts';
import { resolvePosition } from '../../../fs/history/resolve.ts';
import { rollBackLog } from '../../../fs/history/rollback.ts';
import { keepSnapshot } from '../../../fs/history/snapshots.ts';
import { openStateAt } from '../../../fs/history/state-at.ts';
import { type Retain, writeRetain } from '../../../fs/log/retention.ts';
import type { View } from '../../../fs/view/view.ts';
import { isPgError } from '../../../mdm/error.ts';
import { type Fixture, readWhole, ROOT_CALLER, useFixture } from '../view/fixture.ts';

const MIB = 1 << 20;
const ROUNDS = 8;

describe('history of a log that is cleaned', () => {
  let fixture: Fixture;
  const { fresh, dirOf } = useFixture([], (made) => (fixture = made));

  /** Overwrites a file of 5 MiB again and again, with a checkpoint and a cleaning after each; the sizes of the log at each round. */
  function churn(
    name: string,
    retain: Retain,
    between: (round: number, size: number) => void,
  ): { view: View; sizes: number[] } {
    const view = fixture.view(name);
    writeRetain(dirOf(name), retain);
    const { ino } = view.mknod(1, 'file', 0o100644, 0, ROOT_CALLER);
    const sizes: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      for (let at = 0; at < 5; at++) view.write(ino, at * MIB, Buffer.alloc(MIB, `${round} `), false);
      const size = view.position().size;
      sizes.push(size);
      between(round, size);
      view.clean();
    }
    return { view, sizes };
  }

  /** What the file begins with at a position, or the code of the refusal. */
  function at(name: string, size: number, end: number): string {
    try {
      resolvePosition(dirOf(name), end, parsePosition(String(size), 0), 'web');
      const state = openStateAt(fixture.store, null, dirOf(name), size);
      const bytes = Buffer.alloc(5 * MIB);
      state.read(state.tree.lookup(1, 'file')!, 0, bytes);
      state.close();
      return bytes.equals(Buffer.alloc(bytes.length, bytes.subarray(0, 2))) ? bytes.toString('latin1', 0, 1) : 'mixed';
    } catch (error) {
      if (isPgError(error)) return error.code;
      throw error;
    }
  }

  it('goes, but for what is named', () => {
    const name = fresh();
    const dir = dirOf(name);
    const { view, sizes } = churn(name, { bytes: null, ms: null }, (round, size) => {
      if (round === 2)
        keepSnapshot(fixture.store, null, dir, { name: 'kept', size, root: '00'.repeat(32), ms: 0, createdMs: 0 });
    });
    const end = view.flush();
    const found = sizes.map((size) => at(name, size, end));
    assert.deepEqual(
      [found[0], found[1], found[2], found.at(-1)],
      ['NOT_RETAINED', 'NOT_RETAINED', '2', `${ROUNDS - 1}`],
    );
    assert.equal(resolvePosition(dir, end, parsePosition('kept', 0), 'web'), sizes[2]);
    assert.ok([...commitsBackFrom(dir, end)].length > 0);
    // A clone and a rollback begin with it as well as with anything.
    cloneLog(fixture.store, null, dir, dirOf('retention-clone'), sizes[2]!);
    assert.throws(
      () => cloneLog(fixture.store, null, dir, dirOf('retention-none'), sizes[1]!),
      (error) => isPgError(error),
    );
    const clone = fixture.view('retention-clone');
    assert.equal(readWhole(clone, clone.lookup(1, 'file').ino).toString('latin1', 0, 1), '2');
    clone.close();
    view.close();
    rollBackLog(fixture.store, null, dir, sizes[2]!);
    const back = fixture.view(name);
    assert.equal(readWhole(back, back.lookup(1, 'file').ino).toString('latin1', 0, 1), '2');
    back.close();
  });

  it('stays as far as was asked for, in bytes', () => {
    const name = fresh();
    const { view, sizes } = churn(name, { bytes: 12 * MIB, ms: null }, () => {});
    const end = view.flush();
    const found = sizes.map((size) => at(name, size, end));
    for (const [round, size] of sizes.entries())
      if (end - size <= 12 * MIB) assert.equal(found[round], `${round}`, `round ${round}: ${found.join(' ')}`);
    assert.deepEqual(found.slice(0, 2), ['NOT_RETAINED', 'NOT_RETAINED'], found.join(' '));
    // Nothing is kept for its sake any more.
    writeRetain(dirOf(name), { bytes: null, ms: null });
    view.clean();
    assert.equal(at(name, sizes[ROUNDS - 3]!, view.flush()), 'NOT_RETAINED');
    assert.equal(at(name, view.flush(), view.flush()), `${ROUNDS - 1}`);
    view.close();
  });

  it('stays as far as was asked for, in time', () => {
    const name = fresh();
    const { view, sizes } = churn(name, parseRetain('1h'), () => {});
    const end = view.flush();
    assert.deepEqual(
      sizes.slice(1).map((size) => at(name, size, end)),
      sizes.slice(1).map((_, i) => `${i + 1}`),
    );
    view.close();
  });

  it('is set in words', () => {
    assert.deepEqual(parseRetain('2g'), { bytes: 2 * 2 ** 30, ms: null });
    assert.deepEqual(parseRetain('90min'), { bytes: null, ms: 90 * 60e3 });
    assert.deepEqual(parseRetain('500m,1.5d'), { bytes: 500 * MIB, ms: 1.5 * 86400e3 });
    assert.deepEqual(parseRetain('none'), { bytes: null, ms: null });
    for (const text of ['', 'ever', '5 fortnights', '1g,', '-1d'])
      assert.throws(
        () => parseRetain(text),
        (error) => isPgError(error, 'BAD_USAGE') && error.hint !== undefined,
        text,
      );
  });
});
