import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, statfsSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { openLog } from '../../../fs/log/log.ts';
import { isFsError } from '../../../fs/view/error.ts';
import { openView } from '../../../fs/view/open-view.ts';
import type { View } from '../../../fs/view/view.ts';
import { dump, Fixture, listNames, readWhole, ROOT_CALLER as ROOT } from './fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from './programs.ts';

describe('a view over a disk', function () {
  this.timeout(120_000);
  let fixture: Fixture;

  before(async () => {
    fixture = new Fixture();
    await fixture.image(IMAGE);
  });
  after(() => fixture.remove());

  it('stands at a commit no older than the last sync, whichever pages after it reached the disk', () => {
    let logs = 0;
    fc.assert(
      fc.property(
        fc.array(operation, { minLength: 20, maxLength: 80, size: 'max' }),
        fc.nat(19),
        fc.array(fc.boolean(), { minLength: 5, maxLength: 40 }),
        (ops, syncAt, pages) => {
          const name = `torn-${logs++}`;
          const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
          const states = new Map([[192, pair.model.dump()]]);
          let durable = 192;
          for (const [i, op] of ops.entries()) {
            pair.run(op);
            states.set(pair.view.flush(), pair.model.dump());
            if (i === syncAt) durable = pair.view.position().size;
          }
          const end = pair.view.stats().logBytes;
          closeSync(pair.view.logFd());
          const fd = openSync(join(fixture.dir, name, 'log'), 'r+');
          for (let page = Math.ceil(durable / 4096), i = 0; page * 4096 < end; page++, i++) {
            if (pages[i % pages.length])
              writeSync(fd, Buffer.alloc(4096), 0, Math.min(4096, end - page * 4096), page * 4096);
          }
          closeSync(fd);
          const log = fixture.log(name);
          const size = log.written;
          assert.ok(size >= durable && states.has(size), `${size} of ${end}, durable ${durable}`);
          const view = openView(fixture.tree, fixture.store, log);
          assert.deepEqual(dump(view), states.get(size));
          view.close();
          rmSync(join(fixture.dir, name), { recursive: true });
        },
      ),
      { numRuns: 40 },
    );
  });

  it('lets a full disk be seen, takes back nothing, and goes on when there is space', function () {
    const at = join(fixture.dir, 'small');
    mkdirSync(at);
    if (process.getuid?.() !== 0 || spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'pg-test', at]).status !== 0) {
      console.error('skipped: a tmpfs cannot be mounted here (needs root)');
      this.skip();
    }
    try {
      const base = { base: fixture.treeRoot! };
      let view = openView(fixture.tree, fixture.store, openLog(join(at, 'log'), { create: true, ...base }));
      const names = fillDisk(view, at);
      view.unlink(1, names[0]!);
      view.rmdir(1, 'e');
      const before = dump(view);
      view.flush();
      closeSync(view.logFd());
      view = openView(fixture.tree, fixture.store, openLog(join(at, 'log'), base));
      assert.deepEqual(dump(view), before, 'what was acknowledged is there, what was refused is not');
      rmSync(join(at, 'ballast'));
      view.mknod(1, 'again', 0o100644, 0, ROOT);
      view.write(view.lookup(1, 'again').ino, 0, Buffer.alloc(100_000, 1), false);
      const { size } = view.position();
      view.close();
      // What the end appends says of a checkpoint, if there was space for one.
      const over = readFileSync(join(at, 'log', 'log')).length - size;
      assert.ok(over >= 0 && over < 4096, `${over} bytes more`);
    } finally {
      spawnSync('umount', [at]);
    }
  });

  it('makes space for what removes something, once, before it is refused', function () {
    const at = join(fixture.dir, 'removing');
    mkdirSync(at);
    if (process.getuid?.() !== 0 || spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'pg-test', at]).status !== 0) {
      console.error('skipped: a tmpfs cannot be mounted here (needs root)');
      this.skip();
    }
    try {
      const log = openLog(join(at, 'log'), { create: true, base: fixture.treeRoot! });
      const view = openView(fixture.tree, fixture.store, log);
      const dir = view.mkdir(1, 'names', 0o755, ROOT).ino;
      const names = Array.from({ length: 25_000 }, (_, i) => `name ${i}`);
      for (const name of names) view.mknod(dir, name, 0o644, 0, ROOT);
      view.mknod(1, 'meanwhile', 0o644, 0, ROOT);
      view.flush();
      const { bavail, bsize } = statfsSync(at);
      writeFileSync(join(at, 'ballast'), Buffer.alloc(bavail * bsize, 1));
      let calls = 0;
      view.whenFull(() => {
        calls++;
        rmSync(join(at, 'ballast'));
        // As the cleaner does: other entries, while that one is in the making.
        view.setattr(1, { mode: 0o711 }, ROOT);
        view.unlink(1, 'meanwhile');
        return true;
      });
      for (const name of names) view.unlink(dir, name);
      assert.equal(calls, 1);
      assert.equal(view.getattr(1).mode & 0o777, 0o711);
      view.rmdir(1, 'names');
      const before = dump(view);
      closeSync(flushed(view).logFd());
      const again = openView(fixture.tree, fixture.store, openLog(join(at, 'log')));
      assert.deepEqual(dump(again), before);
      again.close();
    } finally {
      spawnSync('umount', [at]);
    }
  });

  it('leaves a disk that is almost full what others need', function () {
    const at = join(fixture.dir, 'nearly');
    mkdirSync(at);
    if (process.getuid?.() !== 0 || spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=6m', 'pg-test', at]).status !== 0) {
      console.error('skipped: a tmpfs cannot be mounted here (needs root)');
      this.skip();
    }
    try {
      writeFileSync(join(at, 'ballast'), Buffer.alloc(4 << 20, 1));
      const free = (): number => statfsSync(at).bavail * statfsSync(at).bsize;
      const before = free();
      const log = openLog(join(at, 'log'), { create: true, base: fixture.treeRoot! });
      assert.ok(before - free() < 1 << 19, `${before} bytes were free, ${free()} are`);
      log.close();
    } finally {
      spawnSync('umount', [at]);
    }
  });

  it('answers EIO for what rotted in the image or in the log, and all else is well', () => {
    const view = fixture.view('rot');
    const made = view.mknod(1, 'f', 0o100644, 0, ROOT).ino;
    view.write(made, 0, Buffer.alloc(12_288, 'good'), false);
    view.position();
    const path = join(fixture.dir, 'rot', 'log');
    const at = readFileSync(path).indexOf('good') + 5000;
    const fd = openSync(path, 'r+');
    writeSync(fd, 'B', at);
    closeSync(fd);
    assert.throws(
      () => readWhole(view, made),
      (error) => isFsError(error, 'EIO') && error.message.includes('rot/log'),
    );
    const into = Buffer.alloc(4096);
    assert.equal(view.read(made, 0, into), 4096);
    assert.equal(view.read(made, 8192, into), 4096);
    view.write(made, 4096, Buffer.alloc(4096, 'new!'), false);
    assert.equal(readWhole(view, made).subarray(4096, 4100).toString(), 'new!', 'written over, it is well again');
    view.close();
  });

  it('holds a directory of 100,000 names', () => {
    let view = fixture.view('many');
    const dir = view.mkdir(1, 'many', 0o755, ROOT).ino;
    for (let i = 0; i < 100_000; i++) view.mknod(dir, `name-${i}`, 0o100644, 0, ROOT);
    for (let i = 0; i < 100_000; i += 2) view.unlink(dir, `name-${i}`);
    closeSync(flushed(view).logFd());
    view = fixture.view('many');
    let seen = 0;
    view.readdir(dir, 0, () => ++seen > 0);
    assert.equal(seen, 50_002);
    assert.equal(view.lookup(dir, 'name-99999').nlink, 1);
    assert.throws(
      () => view.rmdir(1, 'many'),
      (error) => isFsError(error, 'ENOTEMPTY'),
    );
    for (let i = 1; i < 100_000; i += 2) view.unlink(dir, `name-${i}`);
    assert.deepEqual(listNames(view, dir), []);
    view.rmdir(1, 'many');
    view.close();
    view = fixture.view('many');
    assert.equal(view.stats().inodes, 1, 'only the root is left');
    view.close();
  });
});

function flushed(view: View): View {
  view.flush();
  return view;
}

/** Fills the disk under the view's log: first with a file beside it, then with files in it. Returns the names that were made. */
function fillDisk(view: View, at: string): string[] {
  writeFileSync(join(at, 'ballast'), Buffer.alloc(3 << 20, 1));
  const names: string[] = [];
  for (;;) {
    const name = `f${names.length}`;
    try {
      const { ino } = view.mknod(1, name, 0o100644, 0, ROOT);
      names.push(name);
      view.write(ino, 0, Buffer.alloc(50_000, names.length), false);
    } catch (error) {
      assert.ok(isFsError(error, 'ENOSPC'), String(error));
      break;
    }
  }
  assert.ok(names.length > 10);
  const last = view.lookup(1, names.at(-1)!);
  assert.ok(last.size === 0 || last.size === 50_000);
  for (let i = 0; i < 3; i++) {
    assert.throws(
      () => view.write(last.ino, 0, Buffer.alloc(1 << 20), false),
      (error) => isFsError(error, 'ENOSPC'),
    );
  }
  assert.ok(view.flush() > 0);
  return names;
}
