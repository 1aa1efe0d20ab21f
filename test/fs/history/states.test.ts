import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { compareTrees } from '../../../layers/compare.ts';
import { isPgError } from '../../../mdm/error.ts';
import { commitsBackFrom } from '../../../fs/history/commits-back.ts';
import { parsePosition } from '../../../fs/history/positions.ts';
import { resolvePosition } from '../../../fs/history/resolve.ts';
import { rootAt } from '../../../fs/history/root-at.ts';
import { dropSnapshot, keepSnapshot, readSnapshots, snapshotsDir } from '../../../fs/history/snapshots.ts';
import { openStateAt, type StateAt } from '../../../fs/history/state-at.ts';
import { CommitList } from '../../../fs/log/commits.ts';
import { openLog } from '../../../fs/log/log.ts';
import { openView } from '../../../fs/view/open-view.ts';
import { dump, type Fixture, ROOT_CALLER, useFixture } from '../view/fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from '../view/programs.ts';
import { dumpState, pathsOf } from './dump-state.ts';

const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 2560) / 160);

/** Sizes of directories are the filesystem's business. */
const comparable = (lines: string[]): string[] =>
  lines.map((line) => line.replace(/^(\S+ 4\d{4} \d+ \S+ \d+) \d+/, '$1 -'));

describe('states of a log', () => {
  let fixture: Fixture;
  const { fresh, dirOf } = useFixture(IMAGE, (made) => (fixture = made));

  const stateAt = (name: string, size: number): StateAt =>
    openStateAt(fixture.store, fixture.treeRoot, dirOf(name), size);

  function sizes(name: string, end: number): number[] {
    return [...commitsBackFrom(dirOf(name), end)].map((commit) => commit.end).toReversed();
  }

  it('are what the files were, at every commit, while the log goes on', () => {
    fc.assert(
      fc.property(fc.array(fc.array(operation, { maxLength: 25 }), { minLength: 1, maxLength: 5 }), (rounds) => {
        const name = fresh();
        const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
        const past: { size: number; lines: string[] }[] = [];
        for (const [i, ops] of rounds.entries()) {
          for (const op of ops) pair.run(op);
          past.push({ size: pair.view.flush(), lines: pair.model.dump() });
          if (i % 2 === 1) pair.view.checkpoint();
        }
        for (const { size, lines } of past) {
          const at = stateAt(name, size);
          assert.deepEqual(comparable(dumpState(at)), comparable(lines));
          at.close();
          const view = openView(fixture.tree, fixture.store, openLog(dirOf(name), { readOnly: true, limit: size }));
          assert.deepEqual(dump(view), lines);
          view.close();
        }
        pair.view.close();
      }),
      { numRuns: CASES },
    );
  });

  it('compare as their paths do', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), fc.array(operation, { maxLength: 20 }), (first, second) => {
        const name = fresh();
        const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
        for (const op of first) pair.run(op);
        const before = stateAt(name, pair.view.flush());
        for (const op of second) pair.run(op);
        const after = stateAt(name, pair.view.flush());
        const bytesOf = (at: StateAt, ino: number): Buffer => {
          const bytes = Buffer.alloc(at.tree.get(ino)!.size);
          at.read(ino, 0, bytes);
          return bytes;
        };
        const same = (a: { ino: number }, b: { ino: number }): boolean =>
          bytesOf(before, a.ino).equals(bytesOf(after, b.ino));
        const found = [...compareTrees(before.tree, after.tree, same)].map(({ kind, path }) => `${kind} ${path}`);
        assert.deepEqual(found, differences(pathsOf(before), pathsOf(after)));
        before.close();
        after.close();
        pair.view.close();
      }),
      { numRuns: CASES * 2 },
    );
  });

  it('are found by size, root, time and name', () => {
    const name = fresh();
    const view = fixture.view(name);
    for (let i = 0; i < 3; i++) {
      view.mknod(1, `f${i}`, 0o100644, 0, ROOT_CALLER);
      view.flush();
    }
    const end = view.position().size;
    const dir = dirOf(name);
    const all = sizes(name, end);
    assert.equal(all.length, 4);
    const list = new CommitList(dir, end, 'kept');
    const roots = [...list.oldestFirst()].map(({ root }) => Buffer.from(root).toString('hex'));
    list.close();
    const find = (word: string): number => resolvePosition(dir, end, parsePosition(word, Date.now()), 'web');
    for (const [i, size] of all.entries()) {
      assert.equal(rootAt(dir, size), roots[i]);
      assert.equal(find(String(size)), size);
      assert.equal(find(roots[i]!), size);
      assert.equal(find(roots[i]!.slice(0, 8).toUpperCase()), size);
    }
    assert.equal(find('latest'), end);
    assert.equal(find('{0 seconds ago}'), end);
    assert.equal(find('@latest'), end);
    const refused = (word: string, code: string): void =>
      assert.throws(
        () => find(word),
        (error) => isPgError(error, code),
        word,
      );
    for (const word of ['193', String(end + 64), '00000000', '2020-01-01', 'nobody']) refused(word, 'NO_SUCH_POSITION');
    for (const word of ['', '@', 'abc def', '-5x', '{long ago}', '2020-13-01', '-', '../x'])
      refused(word, 'BAD_POSITION');
    view.close();
  });

  it('keep their names, and lose them', () => {
    const name = fresh();
    const dir = dirOf(name);
    const view = fixture.view(name);
    view.mknod(1, 'one', 0o100644, 0, ROOT_CALLER);
    const size = view.flush();
    const keep = (as: string): void =>
      keepSnapshot(fixture.store, fixture.treeRoot, dir, {
        name: as,
        size,
        root: rootAt(dir, size),
        ms: 1,
        createdMs: 2,
      });
    keep('before');
    view.mknod(1, 'two', 0o100644, 0, ROOT_CALLER);
    view.flush();
    assert.throws(
      () => keep('before'),
      (error) => isPgError(error, 'NAME_TAKEN'),
    );
    assert.deepEqual(
      readSnapshots(dir).map((snapshot) => [snapshot.name, snapshot.size]),
      [['before', size]],
    );
    assert.equal(resolvePosition(dir, view.flush(), parsePosition('before', 0), 'web'), size);
    // A command that was killed leaves a state without a name.
    writeFileSync(join(snapshotsDir(dir), 'lost'), 'x');
    keep('again');
    assert.deepEqual(readdirSync(snapshotsDir(dir)).toSorted(), ['again', 'before']);
    assert.throws(
      () => dropSnapshot(dir, 'lost', 'web'),
      (error) => isPgError(error, 'NO_SUCH_SNAPSHOT'),
    );
    dropSnapshot(dir, 'before', 'web');
    assert.ok(!existsSync(join(snapshotsDir(dir), 'before')));
    rmSync(snapshotsDir(dir), { recursive: true });
    dropSnapshot(dir, 'again', 'web');
    view.close();
  });
});

/** By comparing all paths: what is below a directory that is new or gone is left out. */
function differences(before: Map<string, string>, after: Map<string, string>): string[] {
  const isDir = (text: string | undefined): boolean =>
    text !== undefined && (JSON.parse(text)[0] & 0o170000) === 0o040000;
  const parentOf = (path: string): string => path.slice(0, path.lastIndexOf('/')) || '/';
  const shown = (path: string): boolean =>
    path === '/' || (isDir(before.get(parentOf(path))) && isDir(after.get(parentOf(path))));
  const lines: { path: string; line: string }[] = [];
  for (const path of new Set([...before.keys(), ...after.keys()])) {
    const [a, b] = [before.get(path), after.get(path)];
    if (a === b || !shown(path)) continue;
    lines.push({ path, line: `${a === undefined ? 'A' : b === undefined ? 'D' : 'C'} ${path}` });
  }
  const key = (path: string): string => path.replaceAll('/', '\0');
  return lines.toSorted((a, b) => (key(a.path) < key(b.path) ? -1 : 1)).map(({ line }) => line);
}
