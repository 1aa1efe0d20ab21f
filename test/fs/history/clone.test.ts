import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, openSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { cloneLog } from '../../../fs/history/clone-log.ts';
import { commitsBackFrom } from '../../../fs/history/commits-back.ts';
import { isRetained } from '../../../fs/history/retained.ts';
import { keepSnapshot } from '../../../fs/history/snapshots.ts';
import { openStateAt } from '../../../fs/history/state-at.ts';
import { basesOf } from '../../../fs/log/bases.ts';
import { CommitList } from '../../../fs/log/commits.ts';
import { readHeader } from '../../../fs/log/header.ts';
import { openLog } from '../../../fs/log/log.ts';
import { giveBackIn } from '../../../fs/log/reclaim.ts';
import { LogReader, openReplica } from '../../../fs/log/replica.ts';
import { RootsFile } from '../../../fs/log/roots.ts';
import { verifyLog } from '../../../fs/log/verify.ts';
import { openView } from '../../../fs/view/open-view.ts';
import type { View } from '../../../fs/view/view.ts';
import { type Fixture, listNames, readWhole, ROOT_CALLER, useFixture } from '../view/fixture.ts';

const CASES = Math.ceil(Number(process.env['PG_TEST_CASES'] ?? 2560) / 320);
const SECTOR = 4 << 20;

/** What a log's files must be: names with the digests of what is in them. */
type Files = Map<string, string>;

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16);

interface Branch {
  name: string;
  view: View;
  files: Files;
  past: { size: number; files: Files }[];
  /** Sizes of states that have a name: they stay. */
  kept: Set<number>;
}

describe('clones of logs', () => {
  let fixture: Fixture;
  const { fresh, dirOf } = useFixture(
    [{ path: 'image', kind: 'file', mode: 0o644, data: Buffer.from('of the image') }],
    (made) => (fixture = made),
  );

  function filesOf(view: View): Files {
    return new Map(listNames(view, 1).map(({ name, ino }) => [name, digest(readWhole(view, ino))]));
  }

  function begin(): Branch {
    const name = fresh();
    const view = fixture.view(name);
    const files = filesOf(view);
    return { name, view, files, past: [{ size: view.flush(), files: new Map(files) }], kept: new Set() };
  }

  /** Writes a file of so many MiB (or part of one that is there), and commits. */
  function write(branch: Branch, file: string, mib: number, seed: number): void {
    const { view, files } = branch;
    const found = listNames(view, 1).find(({ name }) => name === file);
    const ino = found?.ino ?? view.mknod(1, file, 0o100644, 0, ROOT_CALLER).ino;
    const bytes = Buffer.alloc(Math.ceil(mib * 2 ** 20), `${seed} of ${branch.name} `);
    for (let at = 0; at < bytes.length; at += 1 << 20) view.write(ino, at, bytes.subarray(at, at + (1 << 20)), false);
    files.set(file, digest(readWhole(view, ino)));
    branch.past.push({ size: view.flush(), files: new Map(files) });
  }

  function clone(from: Branch, at: { size: number; files: Files }): Branch {
    const name = fresh();
    cloneLog(fixture.store, fixture.treeRoot, dirOf(from.name), dirOf(name), at.size);
    const past = from.past.filter(({ size }) => size <= at.size);
    return { name, view: fixture.view(name), files: new Map(at.files), past, kept: new Set() };
  }

  function keep(branch: Branch, at: { size: number }): void {
    const dir = dirOf(branch.name);
    if (branch.kept.has(at.size) || !isRetained(dir, at.size)) return;
    const snapshot = { name: `s${at.size}`, size: at.size, root: '00'.repeat(32), ms: 0, createdMs: 0 };
    keepSnapshot(fixture.store, fixture.treeRoot, dir, snapshot);
    branch.kept.add(at.size);
  }

  function check({ name, view, files, past, kept }: Branch): void {
    assert.deepEqual(filesOf(view), files);
    for (const { size, files: then } of past) {
      if (!isRetained(dirOf(name), size)) {
        assert.ok(!kept.has(size), 'what has a name stays');
        continue;
      }
      const log = openLog(dirOf(name), { readOnly: true, limit: size });
      const before = openView(fixture.tree, fixture.store, log);
      assert.deepEqual(filesOf(before), then);
      before.close();
    }
  }

  const action = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        does: fc.constant('write' as const),
        branch: fc.nat(9),
        file: fc.constantFrom('a', 'b', 'image'),
        mib: fc.constantFrom(0.001, 0.5, 3, 5),
        seed: fc.nat(9),
      }),
    },
    { weight: 3, arbitrary: fc.record({ does: fc.constant('clone' as const), branch: fc.nat(9), at: fc.nat(9) }) },
    {
      weight: 1,
      arbitrary: fc.record({ does: fc.constantFrom('remove' as const, 'remount' as const), branch: fc.nat(9) }),
    },
    { weight: 2, arbitrary: fc.record({ does: fc.constant('clean' as const), branch: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant('keep' as const), branch: fc.nat(9), at: fc.nat(9) }) },
  );

  it('go their own ways, whichever is removed first', () => {
    fc.assert(
      fc.property(fc.array(action, { minLength: 4, maxLength: 14 }), (actions) => {
        const branches = [begin()];
        write(branches[0]!, 'a', 5, 0);
        for (const one of actions) {
          const branch = branches[one.branch % branches.length]!;
          if (one.does === 'write') write(branch, one.file, one.mib, one.seed);
          else if (one.does === 'clean') branch.view.clean();
          else if (one.does === 'keep') keep(branch, branch.past[one.at % branch.past.length]!);
          else if (one.does === 'clone') {
            const at = branch.past[one.at % branch.past.length]!;
            if (isRetained(dirOf(branch.name), at.size)) branches.push(clone(branch, at));
          } else if (one.does === 'remount') {
            branch.view.close();
            branch.view = fixture.view(branch.name);
          } else if (branches.length > 1) {
            branch.view.close();
            rmSync(dirOf(branch.name), { recursive: true });
            branches.splice(branches.indexOf(branch), 1);
          }
        }
        for (const branch of branches) check(branch);
        for (const { view, name } of branches) {
          view.close();
          rmSync(dirOf(name), { recursive: true });
        }
      }),
      { numRuns: CASES },
    );
  });

  /** A log of which much may be given back, but for the state `at`; what the cleaner was about to give back of it. */
  function cleanable(): { branch: Branch; at: Branch['past'][number]; sectors: number[] } {
    const branch = begin();
    write(branch, 'a', 9, 1);
    const at = branch.past.at(-1)!;
    write(branch, 'a', 9, 2);
    write(branch, 'a', 9, 3);
    const { view } = branch;
    view.checkpoint();
    view.checkpoint();
    assert.equal(view.hashSome(Infinity), true);
    view.position();
    const sectors = view.cleaner!.candidates();
    assert.ok(sectors.length >= 3);
    return { branch, at, sectors };
  }

  it('leave their parent what it writes behind them: that is given back', () => {
    const branch = begin();
    write(branch, 'a', 9, 1);
    const cloned = clone(branch, branch.past.at(-1)!);
    for (let seed = 2; seed < 8; seed++) write(branch, 'a', 9, seed);
    const space = (): number => statSync(join(dirOf(branch.name), 'log')).blocks * 512;
    const before = space();
    assert.ok(branch.view.clean().givenBackBytes >= 9 * SECTOR);
    assert.ok(space() < before - 9 * SECTOR);
    const { presentBytes, liveBytes } = branch.view.cleaner!.usage();
    assert.ok(liveBytes >= 9 << 20 && presentBytes < liveBytes + 3 * SECTOR, `${presentBytes} of which ${liveBytes}`);
    check(cloned);
    check(branch);
    for (const { view } of [branch, cloned]) view.close();
  });

  it('keep what they need, though the cleaner had chosen it before they were made', () => {
    const { branch, at, sectors } = cleanable();
    const cloned = clone(branch, at);
    giveBackIn(dirOf(branch.name), sectors);
    check(cloned);
    check(branch);
    for (const { view } of [branch, cloned]) view.close();
    rmSync(dirOf(cloned.name), { recursive: true });
    giveBackIn(dirOf(branch.name), sectors);
    assert.ok(!isRetained(dirOf(branch.name), at.size));
  });

  it('snapshots do, too, and a crash in between', () => {
    const { branch, at, sectors } = cleanable();
    const dir = dirOf(branch.name);
    const snapshot = { name: 'then', size: at.size, root: '00'.repeat(32), ms: 0, createdMs: 0 };
    keepSnapshot(fixture.store, fixture.treeRoot, dir, snapshot);
    giveBackIn(dir, sectors);
    const filesThen = (): Files => {
      const state = openStateAt(fixture.store, fixture.treeRoot, dir, at.size);
      const found = new Map(at.files);
      const bytes = Buffer.alloc(9 << 20);
      const ino = state.state.lookup(1, 'a')!;
      state.read(ino, 0, bytes);
      state.close();
      return found.set('a', digest(bytes));
    };
    assert.deepEqual(filesThen(), at.files);
    // Noted, and then the process was gone before it could look.
    const fd = openSync(join(dir, 'log'), 'r');
    const roots = new RootsFile(dir, readHeader(fd, dir).salt);
    closeSync(fd);
    for (const sector of sectors) roots.put(sector, { root: roots.get(sector)!.root, isGone: true });
    roots.close();
    branch.view.close();
    branch.view = fixture.view(branch.name);
    assert.deepEqual(filesThen(), at.files);
    branch.view.close();
  });

  it('keep what they share when the parent receives another log', () => {
    const parent = begin();
    write(parent, 'a', 9, 1);
    const cloned = clone(parent, parent.past.at(-1)!);
    const other = begin();
    write(other, 'b', 1, 5);
    for (const { view } of [parent, other]) view.close();
    // A clone's copy has bases, which are not the other log's.
    const second = clone(cloned, cloned.past.at(-1)!);
    second.view.close();
    for (const branch of [parent, second]) {
      const replica = openReplica(dirOf(branch.name), { epoch: 0 });
      replica.reset();
      const reader = new LogReader(dirOf(other.name));
      const bytes = Buffer.alloc(other.past.at(-1)!.size);
      reader.readCommitted(0, bytes, bytes.length);
      reader.close();
      for (let at = 0; at < bytes.length; at += 1 << 20) replica.append(bytes.subarray(at, at + (1 << 20)));
      replica.sync();
      replica.close();
      const view = fixture.view(branch.name);
      assert.deepEqual(filesOf(view), other.files);
      view.close();
    }
    check(cloned);
    cloned.view.close();
  });

  it('share full sectors, have the same history, and move as any log', () => {
    const parent = begin();
    write(parent, 'a', 6, 1);
    write(parent, 'b', 7, 2);
    const at = parent.past.at(-1)!;
    write(parent, 'b', 1, 3);
    const first = clone(parent, at);
    write(first, 'c', 5, 4);
    const second = clone(first, first.past.at(-1)!);
    const early = clone(first, parent.past[1]!);
    assert.deepEqual(
      [first, second, early].map(({ name }) => basesOf(dirOf(name)).map(({ end }) => end / SECTOR)),
      [[3], [3, 4], [1]],
    );
    for (const { name } of [first, second, early])
      assert.ok(statSync(join(dirOf(name), 'log')).blocks * 512 < 2.5 * SECTOR, 'what is shared takes no space again');
    parent.view.close();
    rmSync(dirOf(parent.name), { recursive: true });
    write(second, 'd', 1, 5);
    for (const branch of [first, second, early]) check(branch);

    const size = second.view.flush();
    const dir = dirOf(second.name);
    const list = new CommitList(dir, size, 'bytes');
    const commits = [...list.oldestFirst()];
    list.close();
    assert.deepEqual(
      [...commitsBackFrom(dir, size)].map(({ end }) => end).toReversed(),
      commits.map(({ end }) => end),
    );
    assert.equal(verifyLog(dir, size, true).payloads, 0);
    const reader = new LogReader(dir);
    const bytes = Buffer.alloc(size);
    assert.equal(reader.readCommitted(0, bytes, size), size);
    reader.close();
    const replica = openReplica(dirOf('moved'), { create: true, epoch: 0 });
    replica.append(bytes);
    const position = replica.sync();
    replica.close();
    assert.deepEqual(Buffer.from(position.root), Buffer.from(commits.at(-1)!.root));
    assert.deepEqual(Buffer.from(second.view.position().root), Buffer.from(position.root));
    assert.ok(!existsSync(join(dirOf('moved'), 'base-12582912')));
    const moved = openStateAt(fixture.store, fixture.treeRoot, dirOf('moved'));
    assert.notEqual(moved.tree.lookup(1, 'd'), undefined);
    moved.close();
    for (const { view } of [first, second, early]) view.close();
    // Everything is closed: none of the bases stays open.
    const open = readdirSync('/proc/self/fd').length;
    fixture.view(second.name).close();
    assert.equal(readdirSync('/proc/self/fd').length, open);
  });
});
