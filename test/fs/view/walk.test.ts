import assert from 'node:assert/strict';
import { closeSync, cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { Entry, TYPE_CHECKPOINT } from '../../../fs/log/entry.ts';
import { namedCheckpoint } from '../../../fs/log/checkpoint-entry.ts';
import { openLog } from '../../../fs/log/log.ts';
import { readHeader } from '../../../fs/log/header.ts';
import { entriesBetween, SCAN_START } from '../../../fs/log/scanner.ts';
import { openView } from '../../../fs/view/open-view.ts';
import type { OnlineCheckpoint, View } from '../../../fs/view/view.ts';
import { bufferRoot } from '../../../mdm/merkle.ts';
import { dump, type Fixture, ROOT_CALLER, useFixture } from './fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from './programs.ts';

describe('a checkpoint', function () {
  this.timeout(120_000);
  let fixture: Fixture;
  const { fresh, dirOf, crash } = useFixture(IMAGE, (made) => (fixture = made));

  /** A directory of many names and a file of many runs: they are written in stretches. */
  const grow = (view: View, seed: number): void => {
    const dir = view.mkdir(1, `large${seed}`, 0o755, ROOT_CALLER).ino;
    const file = view.mknod(1, `holes${seed}`, 0o644, 0, ROOT_CALLER).ino;
    for (let i = 0; i < 1200; i++) {
      view.mknod(dir, `name${i}`, 0o600, 0, ROOT_CALLER);
      view.write(file, i * 9000, Buffer.from(`${seed} ${i}`), false);
    }
  };

  it('written a little at a time is the state that it was begun with, whatever is done meanwhile', () => {
    fc.assert(
      fc.property(
        fc.array(operation, { maxLength: 60, size: 'max' }),
        fc.array(fc.tuple(operation, fc.nat(6)), { minLength: 5, maxLength: 60, size: 'max' }),
        fc.boolean(),
        (first, meanwhile, isLarge) => {
          const name = fresh();
          const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
          const { view } = pair;
          for (const op of first) pair.run(op);
          if (isLarge) grow(view, 1);
          const online = view.beginCheckpoint()!;
          const copy = fresh();
          const before = dump(view, true);
          view.flush();
          cpSync(dirOf(name), dirOf(copy), { recursive: true });
          const pieces: Uint8Array[] = [];
          const step = (): boolean => {
            const isDone = online.step(0);
            pieces.push(...online.take());
            return isDone;
          };
          let isDone = false;
          for (const [i, [op, steps]] of meanwhile.entries()) {
            for (let left = steps; left > 0 && !isDone; left--) isDone = step();
            if (!isLarge) pair.run(op);
            else if (i % 2 === 0) view.unlink(view.lookup(1, 'large1').ino, `name${i * 7}`);
            else view.write(view.lookup(1, 'holes1').ino, i * 5000, Buffer.alloc(9000, i), false);
          }
          while (!isDone) isDone = step();
          const log = fixture.log(copy);
          log.replay(() => {});
          log.writeCheckpoint(pieces);
          log.close();
          const again = openLog(dirOf(copy));
          assert.ok(again.checkpoint !== undefined);
          const restored = openView(fixture.tree, fixture.store, again);
          assert.equal(restored.stats().bytesSinceCheckpoint, 192);
          // What reading the first view did to times of access is not looked at.
          assert.deepEqual(dump(restored, true), before);
          restored.close();
          if (!isLarge) pair.check();
          crash(view);
          rmSync(dirOf(name), { recursive: true });
          rmSync(dirOf(copy), { recursive: true });
        },
      ),
      { numRuns: 40 },
    );
  });

  it('is due when many small entries would have to be replayed, not only by their bytes; copies of many runs count', () => {
    const view = fixture.view(fresh());
    const { ino } = view.mknod(1, 'f', 0o644, 0, ROOT_CALLER);
    const change = (count: number): void => {
      for (let i = 0; i < count; i++) view.setattr(ino, { mode: 0o600 + (i % 8) }, ROOT_CALLER);
    };
    change(60_000);
    assert.equal(view.checkpointDue(), false);
    change(6_000);
    assert.equal(view.checkpointDue(), true);
    view.checkpoint();
    assert.equal(view.checkpointDue(), false);
    for (let i = 0; i < 1000; i++) view.write(ino, i * 8192, Buffer.from('x'), false);
    for (let i = 0; i < 70; i++)
      view.copyFileRange(ino, 0, view.mknod(1, `f${i}`, 0o644, 0, ROOT_CALLER).ino, 0, 1 << 24);
    assert.ok(view.stats().bytesSinceCheckpoint < 1 << 20);
    assert.equal(view.checkpointDue(), true);
    view.close();
  });

  it('is named in the log, with the root of its payload', () => {
    const name = fresh();
    const view = fixture.view(name);
    grow(view, 2);
    view.checkpoint();
    crash(view);
    const path = join(dirOf(name), 'log');
    const fd = fixture.log(name).fd;
    const found = [...entriesOf(fd, path)];
    closeSync(fd);
    assert.equal(found.length, 1);
    const payload = readFileSync(join(dirOf(name), 'checkpoint')).subarray(64, -4);
    assert.equal(found[0]!.bytes, payload.length);
    assert.deepEqual(Buffer.from(found[0]!.root), Buffer.from(bufferRoot(payload)));
  });

  it('takes the place of the one before, which is kept; a damaged one costs a longer replay', () => {
    const name = fresh();
    const view = fixture.view(name);
    const path = (file: string): string => join(dirOf(name), file);
    const sizes: number[] = [];
    for (let i = 0; i < 3; i++) {
      view.mkdir(1, `dir${i}`, 0o755, ROOT_CALLER);
      view.checkpoint();
      sizes.push(view.stats().logBytes);
    }
    view.mkdir(1, 'last', 0o755, ROOT_CALLER);
    const expected = dump(view, true);
    crash(view);
    const [newer, older] = [readFileSync(path('checkpoint')), readFileSync(path('checkpoint.1'))];
    assert.ok(newer.readUInt32LE(16) > older.readUInt32LE(16));
    for (const damage of [
      () => rmSync(path('checkpoint')),
      () => writeFileSync(path('checkpoint'), newer.fill(7, 70, 90)),
    ]) {
      damage();
      const log = fixture.log(name);
      assert.equal(log.checkpoint?.size, older.readUInt32LE(16));
      const again = openView(fixture.tree, fixture.store, log);
      assert.deepEqual(dump(again, true), expected);
      again.checkpoint();
      crash(again);
      assert.deepEqual(
        readFileSync(path('checkpoint.1')),
        older,
        'the damaged one does not take the place of the whole one',
      );
    }
    rmSync(path('checkpoint'));
    rmSync(path('checkpoint.1'));
    const replayed = fixture.view(name);
    assert.deepEqual(dump(replayed, true), expected);
    replayed.close();
  });

  it('that comes to nothing leaves those before as they were', () => {
    const name = fresh();
    let view = fixture.view(name);
    view.checkpoint();
    grow(view, 3);
    const online: OnlineCheckpoint = view.beginCheckpoint()!;
    online.step(0);
    writeFileSync(join(dirOf(name), 'checkpoint.part'), Buffer.concat(online.take()));
    online.stop();
    view.unlink(1, 'holes3');
    const expected = dump(view, true);
    crash(view);
    view = fixture.view(name);
    assert.equal(existsSync(join(dirOf(name), 'checkpoint.part')), false);
    assert.deepEqual(dump(view, true), expected);
    view.close();
  });

  function* entriesOf(fd: number, path: string): Generator<ReturnType<typeof namedCheckpoint>> {
    const { length } = readFileSync(path);
    const { salt } = readHeader(fd, path);
    const scan = (): Generator<Entry> => entriesBetween(fd, salt, SCAN_START, length, path);
    try {
      for (const entry of scan()) if (entry.type === TYPE_CHECKPOINT) yield namedCheckpoint(entry, path);
    } catch {
      // Space written ahead.
    }
  }
});
