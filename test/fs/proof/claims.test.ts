import assert from 'node:assert/strict';
import { join } from 'node:path';
import fc from 'fast-check';
import { isPgError } from '../../../mdm/error.ts';
import { type NamespaceClaim } from '../../../fs/log/claim.ts';
import { Entry } from '../../../fs/log/entry.ts';
import { openLog } from '../../../fs/log/log.ts';
import { requirePosition } from '../../../fs/log/position-check.ts';
import { LogReader, openReplica } from '../../../fs/log/replica.ts';
import { type CheckedClaim, checkClaims } from '../../../fs/proof/claims.ts';
import { buildNamespace } from '../../../fs/proof/namespace.ts';
import { verifyProof } from '../../../fs/proof/proof-file.ts';
import { claimAtEnd, takeSnapshot } from '../../../fs/proof/snapshot.ts';
import { Fixture, ROOT_CALLER } from '../view/fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from '../view/programs.ts';
import { bytesOf, LABEL, Prover } from './harness.ts';

const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 640) / 80);

describe('claims about a container’s files', () => {
  let fixture: Fixture;
  let logs = 0;
  before(async () => {
    fixture = new Fixture();
    await fixture.image(IMAGE);
  });
  after(() => fixture.remove());

  const fresh = (): string => `claims-${logs++}`;
  const dirOf = (name: string): string => join(fixture.dir, name);

  function claim(name: string, change: Partial<NamespaceClaim> = {}): number {
    const { state, size, epoch } = takeSnapshot(fixture.store, fixture.treeRoot, dirOf(name));
    const log = openLog(dirOf(name));
    const end = log.appendNamespace({ size, epoch, root: buildNamespace(state).root, label: LABEL, ...change });
    log.close();
    return end;
  }

  const check = (name: string, size: number, epoch = 0): CheckedClaim[] =>
    checkClaims(fixture.store, fixture.treeRoot, dirOf(name), size, { label: LABEL, epoch });

  it('are what replay says, wherever they were made', () => {
    fc.assert(
      fc.property(fc.array(fc.array(operation, { maxLength: 30 }), { minLength: 1, maxLength: 4 }), (rounds) => {
        const name = fresh();
        const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
        let end = 0;
        for (const ops of rounds) {
          for (const op of ops) pair.run(op);
          pair.view.close();
          end = claim(name);
          pair.view = fixture.view(name);
          pair.check();
        }
        pair.view.close();
        assert.deepEqual(
          check(name, end).map(({ holds }) => holds),
          rounds.map(() => true),
        );
      }),
      { numRuns: CASES },
    );
  });

  it('that lie are caught', () => {
    const name = fresh();
    const view = fixture.view(name);
    view.mknod(1, 'x', 0o100644, 0, ROOT_CALLER);
    view.close();
    claim(name);
    const { size } = takeSnapshot(fixture.store, fixture.treeRoot, dirOf(name));
    const empty = buildNamespace(takeSnapshot(fixture.store, fixture.treeRoot, dirOf(name), 192).state).root;
    claim(name, { root: empty, size });
    claim(name, { root: empty, size: 192 });
    claim(name, { size: 256 });
    claim(name, { label: 'container/other' });
    const end = claim(name, { epoch: 1 });
    assert.deepEqual(
      check(name, end).map(({ holds }) => holds),
      [true, false, true, false, false, false],
    );
    assert.deepEqual(
      check(name, end, 1).map(({ holds }) => holds),
      [true, false, true, false, false, true],
    );
  });

  it('go with the log to another node, whose epoch later ones have', () => {
    const name = fresh();
    const view = fixture.view(name);
    const { ino } = view.mknod(1, 'x', 0o100644, 0, ROOT_CALLER);
    view.write(ino, 0, Buffer.from('moved'), false);
    view.close();
    const end = claim(name);
    const there = fresh();
    const replica = openReplica(dirOf(there), { create: true, epoch: 0 });
    const reader = new LogReader(dirOf(name));
    const bytes = Buffer.alloc(end);
    reader.readCommitted(0, bytes, end);
    reader.close();
    replica.append(bytes);
    const position = replica.sync();
    replica.setEpoch(1);
    replica.close();
    assert.deepEqual(claimAtEnd(dirOf(there), end)?.claim.label, LABEL);
    requirePosition(dirOf(there), position);
    assert.throws(
      () => requirePosition(dirOf(there), { ...position, size: end + 64 }),
      (error) => isPgError(error, 'LOG_CORRUPT'),
    );
    assert.throws(
      () => requirePosition(dirOf(there), { size: end, root: Buffer.alloc(32) }),
      (error) => isPgError(error, 'LOG_CORRUPT'),
    );
    assert.throws(
      () => requirePosition(dirOf(fresh()), position),
      (error) => isPgError(error, 'LOG_CORRUPT'),
    );
    const prover = new Prover(fixture, there);
    const log = openLog(dirOf(there));
    assert.equal(log.epoch, 1);
    log.close();
    const verified = verifyProof(prover.prove('/x', { start: 0, end: 5 }));
    assert.deepEqual([verified.claim.epoch, bytesOf(verified).toString()], [1, 'moved']);
    assert.deepEqual(
      check(there, prover.size, 1).map(({ holds }) => holds),
      [true, true],
    );
  });

  it('may be made when the budget for I/O is spent', () => {
    const name = fresh();
    fixture.view(name).close();
    const log = openLog(dirOf(name));
    log.meter.setBudget({ written: log.meter.spent.written });
    const entry = Object.assign(new Entry(), { type: 16 });
    assert.throws(
      () => log.append(entry, Buffer.alloc(1), false),
      (error) => isPgError(error, 'LOG_BUDGET'),
    );
    const before = log.meter.spent.compute;
    const size = log.appendNamespace({ size: log.written, epoch: 0, root: Buffer.alloc(32), label: LABEL });
    assert.equal(log.written, size);
    assert.ok(log.meter.spent.compute > before, 'it is charged all the same');
    log.close();
  });

  it('are not found in a file that looks like one', () => {
    const name = fresh();
    const view = fixture.view(name);
    const { ino } = view.mknod(1, 'x', 0o100644, 0, ROOT_CALLER);
    view.flush();
    view.close();
    const end = claim(name);
    const log = openLog(dirOf(name));
    const whole = Buffer.alloc(256);
    const reader = new LogReader(dirOf(name));
    reader.readCommitted(end - 256, whole, end);
    reader.close();
    log.close();
    const again = fixture.view(name);
    again.write(ino, 0, whole, false);
    const size = again.flush();
    again.close();
    assert.equal(claimAtEnd(dirOf(name), size), undefined);
    assert.equal(check(name, size).length, 1);
  });
});
