import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { cloneLog } from '../../../fs/history/clone-log.ts';
import { commitsBackFrom } from '../../../fs/history/commits-back.ts';
import { findConflict } from '../../../fs/history/conflicts.ts';
import { openStateAt, type StateAt } from '../../../fs/history/state-at.ts';
import { openView } from '../../../fs/view/open-view.ts';
import { openLog } from '../../../fs/log/log.ts';
import { RETAIN_ALL, writeRetain } from '../../../fs/log/retention.ts';
import type { View } from '../../../fs/view/view.ts';
import { isPgError } from '../../../mdm/error.ts';
import { dump, type Fixture, readWhole, ROOT_CALLER, useFixture } from '../view/fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from '../view/programs.ts';
import { copyModel } from './copy-model.ts';
import { pathsOf } from './dump-state.ts';

const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 2560) / 64);

describe('what a clone has done, done in the log that it is a clone of', () => {
  let fixture: Fixture;
  const { fresh, dirOf } = useFixture(IMAGE, (made) => (fixture = made));

  const conflict = (main: string, clone: string, from: number): string | undefined =>
    findConflict(fixture.store, fixture.treeRoot, dirOf(main), dirOf(clone), from);

  function pathsAt(name: string, size?: number): Map<string, string> {
    const at: StateAt = openStateAt(fixture.store, fixture.treeRoot, dirOf(name), size);
    const paths = pathsOf(at);
    at.close();
    return paths;
  }

  function startClone(main: string, from: number): { clone: string; firstIno: number } {
    const clone = fresh();
    const firstIno = cloneLog(fixture.store, fixture.treeRoot, dirOf(main), dirOf(clone), from);
    return { clone, firstIno };
  }

  it('is as each of the two has it, where the other left it alone', () => {
    let merged = 0;
    const ops = fc.array(operation, { maxLength: 6 });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 20 }), ops, ops, (before, ours, theirs) => {
        const main = fresh();
        const pair = new Pair(fixture.view(main), modelOfImage(IMAGE));
        for (const op of before) pair.run(op);
        const from = pair.view.flush();
        const { clone, firstIno } = startClone(main, from);
        const other = new Pair(fixture.view(clone), copyModel(pair.model));
        for (const op of ours) pair.run(op);
        for (const op of theirs) other.run(op);
        other.view.close();
        const end = pair.view.flush();
        if (conflict(main, clone, from) === undefined) {
          merged++;
          const [was, here, there] = [pathsAt(main, from), pathsAt(main, end), pathsAt(clone)];
          pair.view.merge(dirOf(clone), from, firstIno);
          const now = pathsAt(main, pair.view.flush());
          if (!movesDirectories(was, here) && !movesDirectories(was, there)) check(was, here, there, now);
          const lines = dump(pair.view);
          pair.view.close();
          rmSync(join(dirOf(main), 'checkpoint'), { force: true });
          const again = fixture.view(main);
          assert.deepEqual(dump(again), lines);
          again.close();
        } else pair.view.close();
      }),
      { numRuns: CASES },
    );
    assert.ok(merged > 0);
  });

  it('is all there though the clone was cleaned meanwhile', () => {
    const main = fresh();
    const view = fixture.view(main);
    const from = view.flush();
    const { clone, firstIno } = startClone(main, from);
    writeRetain(dirOf(clone), RETAIN_ALL);
    const other = fixture.view(clone);
    const kept = other.mknod(1, 'kept', 0o644, 0, ROOT_CALLER).ino;
    other.write(kept, 0, Buffer.from('result'), false);
    const scratch = other.mknod(1, 'scratch', 0o644, 0, ROOT_CALLER).ino;
    for (let i = 0; i < 14; i++) other.write(scratch, i << 20, Buffer.alloc(1 << 20, i), false);
    other.unlink(1, 'scratch');
    other.forget(scratch);
    other.clean();
    other.close();
    assert.equal(conflict(main, clone, from), undefined);
    view.merge(dirOf(clone), from, firstIno);
    assert.equal(readWhole(view, view.lookup(1, 'kept').ino).toString(), 'result');
    view.close();
  });

  const isDirectory = (text: string): boolean => ((JSON.parse(text) as [number])[0] & 0o170000) === 0o040000;

  function movesDirectories(was: Map<string, string>, now: Map<string, string>): boolean {
    return [...was].some(([path, text]) => isDirectory(text) && !isDirectory(now.get(path) ?? '[0]'));
  }

  function check(
    was: Map<string, string>,
    here: Map<string, string>,
    there: Map<string, string>,
    now: Map<string, string>,
  ): void {
    for (const path of new Set([...was.keys(), ...here.keys(), ...there.keys(), ...now.keys()])) {
      const [before, ours, theirs] = [was.get(path), here.get(path), there.get(path)];
      if (ours === before) assert.equal(now.get(path), theirs, path);
      else if (theirs === before) assert.equal(now.get(path), ours, path);
    }
  }

  const inoOf = (view: View, name: string): number => view.lookup(1, name).ino;

  it('is refused where both changed the same', () => {
    const cases: [string, (view: View) => void, (view: View) => void, boolean][] = [
      [
        'one file',
        (v) => v.write(inoOf(v, 'a'), 0, Buffer.from('x'), false),
        (v) => v.setattr(inoOf(v, 'a'), { mode: 0 }, ROOT_CALLER),
        true,
      ],
      [
        'one name',
        (v) => v.mkdir(1, 'new', 0o755, ROOT_CALLER),
        (v) => v.mknod(1, 'new', 0o100644, 0, ROOT_CALLER),
        true,
      ],
      [
        'names in one directory',
        (v) => v.mkdir(1, 'x', 0o755, ROOT_CALLER),
        (v) => v.mkdir(1, 'y', 0o755, ROOT_CALLER),
        false,
      ],
      [
        'a directory and a name in it',
        (v) => v.rmdir(1, 'e'),
        (v) => v.mkdir(inoOf(v, 'e'), 'y', 0o755, ROOT_CALLER),
        true,
      ],
      [
        'a file and its other name',
        (v) => v.unlink(1, 'a'),
        (v) => v.write(v.lookup(inoOf(v, 'd'), 'c').ino, 0, Buffer.from('x'), false),
        true,
      ],
      [
        'a source',
        (v) => v.write(inoOf(v, 'a'), 0, Buffer.from('x'), false),
        (v) => v.copyFileRange(inoOf(v, 'a'), 0, inoOf(v, 'b'), 0, 10),
        true,
      ],
      [
        'two files',
        (v) => v.write(inoOf(v, 'a'), 0, Buffer.from('x'), false),
        (v) => v.write(inoOf(v, 'b'), 0, Buffer.from('x'), false),
        false,
      ],
      [
        'what was only read',
        (v) => v.read(inoOf(v, 'a'), 0, Buffer.alloc(9)),
        (v) => v.write(inoOf(v, 'a'), 0, Buffer.from('x'), false),
        false,
      ],
      [
        'directories into one another',
        (v) => v.rename(1, 'e', inoOf(v, 'd'), 'e', 0, ROOT_CALLER),
        (v) => v.rename(1, 'd', inoOf(v, 'e'), 'd', 0, ROOT_CALLER),
        true,
      ],
    ];
    for (const [what, ours, theirs, refused] of cases) {
      const main = fresh();
      const view = fixture.view(main);
      const from = view.flush();
      const { clone } = startClone(main, from);
      ours(view);
      const other = fixture.view(clone);
      theirs(other);
      other.close();
      view.flush();
      const found = conflict(main, clone, from);
      assert.equal(found !== undefined, refused, `${what}: ${found}`);
      view.close();
    }
  });

  it('is one batch, however large, and wholly there or not after a crash', () => {
    const main = fresh();
    const view = fixture.view(main);
    const from = view.flush();
    const { clone, firstIno } = startClone(main, from);
    const made = view.mknod(1, 'ours', 0o100644, 0, ROOT_CALLER).ino;
    view.write(made, 0, Buffer.from('ours'), false);
    const end = view.flush();
    const other = fixture.view(clone);
    const big = Buffer.alloc(1 << 20, 'theirs ');
    const { ino } = other.mknod(1, 'theirs', 0o100644, 0, ROOT_CALLER);
    assert.equal(ino, made, 'both count from the same number');
    for (let i = 0; i < 9; i++) {
      other.write(ino, i << 20, big, false);
      other.flush();
    }
    other.close();
    const stale = view.merge(dirOf(clone), from, firstIno);
    assert.deepEqual(stale, { inodes: [made + 1], names: [{ dir: 1, name: 'theirs' }] });
    const size = view.flush();
    assert.deepEqual([...commitsBackFrom(dirOf(main), size)].map((commit) => [commit.start, commit.end])[0], [
      end,
      size,
    ]);
    assert.equal(readWhole(view, view.lookup(1, 'theirs').ino).length, 9 << 20);
    assert.equal(readWhole(view, made).toString(), 'ours');
    // What of it reached the disk before a crash is cut.
    for (const cut of [size - 64, size - (5 << 20), end + 4096]) {
      const copy = fresh();
      mkdirSync(dirOf(copy));
      copyFileSync(join(dirOf(main), 'log'), join(dirOf(copy), 'log'));
      truncateSync(join(dirOf(copy), 'log'), cut);
      const log = openLog(dirOf(copy));
      assert.equal(log.written, end);
      const crashed = openView(fixture.tree, fixture.store, log);
      assert.throws(() => crashed.lookup(1, 'theirs'));
      assert.equal(readWhole(crashed, crashed.lookup(1, 'ours').ino).toString(), 'ours');
      crashed.close();
    }
    view.close();
    const strange = openLog(dirOf(main));
    const again = openView(fixture.tree, fixture.store, strange);
    assert.throws(
      () => again.merge(dirOf(clone), end + 64, firstIno),
      (error) => isPgError((error as Error).cause, 'LOG_CORRUPT'),
    );
    again.close();
  });
});
