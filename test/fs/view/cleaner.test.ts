import assert from 'node:assert/strict';
import { closeSync, cpSync, fsyncSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { giveBack } from '../../../fs/log/reclaim.ts';
import { readHeader } from '../../../fs/log/header.ts';
import { CommitList } from '../../../fs/log/commits.ts';
import { openLog } from '../../../fs/log/log.ts';
import { LogReader, openReplica } from '../../../fs/log/replica.ts';
import { RootsFile } from '../../../fs/log/roots.ts';
import { verifyLog } from '../../../fs/log/verify.ts';
import { checkClaims } from '../../../fs/proof/claims.ts';
import { buildNamespace } from '../../../fs/proof/namespace.ts';
import { takeSnapshot } from '../../../fs/proof/snapshot.ts';
import { logSource } from '../../../fs/proof/source.ts';
import { isPgError } from '../../../mdm/error.ts';
import { SECTOR_BYTES } from '../../../mdm/merkle.ts';
import { openView } from '../../../fs/view/open-view.ts';
import type { View } from '../../../fs/view/view.ts';
import { CRASHES, record, replay } from '../log/disk-recorder.ts';
import { dump, type Fixture, readWhole, ROOT_CALLER, useFixture } from './fixture.ts';
import { IMAGE, modelOfImage, operation, Pair } from './programs.ts';

const MIB = 1 << 20;

describe('the cleaner', function () {
  this.timeout(240_000);
  let fixture: Fixture;
  const { fresh, dirOf, crash } = useFixture(IMAGE, (made) => (fixture = made));

  /** Bytes of the disk that the log's file takes. */
  const onDisk = (name: string): number => {
    const fd = openSync(join(dirOf(name), 'log'), 'r');
    fsyncSync(fd);
    closeSync(fd);
    return statSync(join(dirOf(name), 'log')).blocks * 512;
  };
  /** So many MiB of dead bytes, and one live block now and then between them. */
  const litter = (view: View, ino: number, mebibytes: number, seed: number): void => {
    for (let i = 0; i < mebibytes; i++) view.write(ino, 0, Buffer.alloc(MIB, seed + i), false);
    view.write(ino, 2 * MIB + seed * 8192, Buffer.alloc(4096, seed), false);
  };

  it('changes nothing that can be seen, at any time, over checkpoints, crashes and remounts', () => {
    const step = fc.oneof(
      { weight: 12, arbitrary: operation },
      { weight: 3, arbitrary: fc.constantFrom('litter' as const, 'clean' as const) },
      { weight: 2, arbitrary: fc.constantFrom('checkpoint' as const, 'crash' as const, 'close' as const) },
    );
    let givenBack = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 90, size: 'max' }), (steps) => {
        const name = fresh();
        const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
        // Not in the model: a file without a name.
        let hidden = pair.view.tmpfile(1, 0o600, ROOT_CALLER).ino;
        let seed = 0;
        for (const op of steps) {
          if (typeof op === 'object') pair.run(op);
          else if (op === 'litter') litter(pair.view, hidden, 6, seed++ % 20);
          else if (op === 'clean') givenBack += pair.view.clean().givenBackBytes;
          else if (op === 'checkpoint') pair.view.checkpoint();
          else {
            const before = dump(pair.view, true);
            if (op === 'crash') crash(pair.view);
            else pair.view.close();
            pair.view = fixture.view(name);
            assert.deepEqual(dump(pair.view, true), before, op);
            hidden = pair.view.tmpfile(1, 0o600, ROOT_CALLER).ino;
          }
        }
        pair.check();
        pair.view.clean();
        pair.check();
        pair.view.close();
        rmSync(dirOf(name), { recursive: true });
      }),
      { numRuns: 25 },
    );
    assert.ok(givenBack > 0, 'something was given back');
  });

  it('gives the space of removed files back, and moves what lies between', () => {
    const name = fresh();
    let view = fixture.view(name);
    const keep = view.mknod(1, 'keep', 0o644, 0, ROOT_CALLER).ino;
    const gone = view.mknod(1, 'gone', 0o644, 0, ROOT_CALLER).ino;
    for (let i = 0; i < 40; i++) {
      view.write(gone, i * MIB, Buffer.alloc(MIB, i), false);
      if (i % 3 === 0) view.write(keep, i * 5000, Buffer.alloc(5000, i), false);
    }
    const copied = view.mknod(1, 'copied', 0o644, 0, ROOT_CALLER).ino;
    view.copyFileRange(keep, 0, copied, 0, 39 * 5000 + 5000);
    const expected = readWhole(view, keep);
    view.unlink(1, 'gone');
    view.forget(gone);
    view.checkpoint();
    assert.ok(onDisk(name) > 40 * MIB);
    const { presentBytes, liveBytes } = view.cleaner!.usage();
    assert.ok(liveBytes < MIB && presentBytes > 40 * MIB);
    assert.equal(view.cleaner!.isDue(view.checkpointBytes, Infinity), true);
    const { movedBytes, damaged, givenBackBytes } = view.clean();
    assert.ok(movedBytes > 0 && movedBytes <= 14 * 5000, 'what two files share is moved once');
    assert.equal(damaged, 0);
    assert.ok(givenBackBytes >= 32 * MIB, `${givenBackBytes}`);
    assert.ok(onDisk(name) < 12 * MIB, `${onDisk(name)}`);
    assert.equal(view.cleaner!.isDue(view.checkpointBytes, Infinity), false);
    assert.deepEqual(readWhole(view, keep), expected);
    assert.deepEqual(readWhole(view, copied), expected);
    const position = view.position();
    crash(view);
    view = fixture.view(name);
    assert.deepEqual(view.position(), position, 'the root is what it was');
    assert.deepEqual(readWhole(view, keep), expected);
    view.close();
  });

  it('begins earlier where more is dead than the disk has free, and moves no more than there is space for', () => {
    const view = fixture.view(fresh());
    for (let i = 0; i < 32; i++) {
      const { ino } = view.mknod(1, `f${i}`, 0o644, 0, ROOT_CALLER);
      view.write(ino, 0, Buffer.alloc(MIB, i), false);
    }
    for (let i = 0; i < 32; i += 2) {
      const { ino } = view.lookup(1, `f${i}`);
      view.unlink(1, `f${i}`);
      view.forget(ino);
    }
    view.flush();
    const cleaner = view.cleaner!;
    const isDue = (freeBytes: number): boolean => cleaner.isDue(view.checkpointBytes, freeBytes);
    assert.equal(isDue(Infinity), false);
    assert.equal(isDue(20 * MIB), false);
    assert.equal(isDue(MIB), true);
    cleaner.begin(5 * MIB);
    assert.equal(cleaner.step(Infinity), true);
    const { movedBytes } = cleaner.finish(0);
    assert.ok(movedBytes >= 2 * MIB && movedBytes <= 6 * MIB, `${movedBytes / MIB} MiB moved`);
    view.close();
  });

  it('keeps a file that is written over again and again within twice its size', () => {
    const name = fresh();
    const view = fixture.view(name);
    const file = view.mknod(1, 'file', 0o644, 0, ROOT_CALLER).ino;
    const size = 32;
    let most = 0;
    const random = [7, 3, 11, 5];
    for (let i = 0; i < 10 * size * 4; i++) {
      // Not in order: every sector keeps some of what is needed.
      const block = i < size * 4 ? i : (i * random[i % 4]!) % (size * 4);
      view.write(file, block * (MIB / 4), Buffer.alloc(MIB / 4, i), false);
      if (i % 32 !== 31) continue;
      view.flush();
      if (view.cleaner!.isDue(view.checkpointBytes, Infinity)) view.clean();
      most = Math.max(most, view.cleaner!.usage().presentBytes);
    }
    view.clean();
    const { presentBytes, liveBytes } = view.cleaner!.usage();
    assert.ok(liveBytes >= size * MIB);
    assert.ok(presentBytes <= 2 * liveBytes, `${presentBytes / liveBytes} of what is needed`);
    assert.ok(most <= 2 * size * MIB + 56 * MIB, `${most / MIB} MiB at most`);
    // Behind its end lies what is reserved.
    assert.ok(onDisk(name) <= 2 * liveBytes + 20 * MIB);
    view.close();
  });

  it('leaves a log that is listed, verified and proved as far as it goes, and says what is gone', () => {
    const name = fresh();
    const dir = dirOf(name);
    const view = fixture.view(name);
    const file = view.mknod(1, 'litter', 0o644, 0, ROOT_CALLER).ino;
    litter(view, file, 9, 1);
    const early = view.flush();
    litter(view, file, 9, 2);
    assert.ok(view.clean().givenBackBytes > 0);
    view.write(file, 0, Buffer.from('more'), false);
    const { size, root } = view.position();
    crash(view);
    for (const roots of ['kept', 'bytes'] as const) {
      const list = new CommitList(dir, size, roots);
      assert.ok(list.goneBefore > early);
      const commits = [...list.oldestFirst()];
      assert.deepEqual([...list.newestFirst()], commits.toReversed(), roots);
      list.close();
      assert.ok(commits.length >= 2 && commits[0]!.start === list.goneBefore);
      assert.deepEqual(commits.at(-1)!.root, root, roots);
    }
    const path = join(dir, 'log');
    const fd = openSync(path, 'r+');
    assert.deepEqual(
      logSource(fd, size, dir).root(),
      root,
      'a proof is made on what is there and the roots of what is not',
    );
    assert.throws(
      () => openLog(dir, { readOnly: true, limit: early }),
      (error) => isPgError(error, 'LOG_CLEANED'),
    );
    const verify = (): number[] => {
      const { payloads, sectors, missingBytes, bytes } = verifyLog(dir, size, true);
      return [payloads, sectors, missingBytes, bytes];
    };
    assert.deepEqual(verify(), [0, 0, 0, size]);
    const { salt } = readHeader(fd, path);
    const roots = new RootsFile(dir, salt).all();
    const there = roots.findIndex(({ isGone }) => !isGone);
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, there * SECTOR_BYTES + 300_000);
    writeSync(fd, Buffer.from([byte[0]! ^ 4]), 0, 1, there * SECTOR_BYTES + 300_000);
    assert.equal(verify()[1], 1);
    writeSync(fd, byte, 0, 1, there * SECTOR_BYTES + 300_000);
    closeSync(fd);
    const log = fixture.log(name);
    const claim = { size, epoch: 0, root: new Uint8Array(32), label: 'mount/x' };
    const end = log.appendNamespace(claim);
    log.close();
    const found = checkClaims(fixture.store, fixture.treeRoot, dir, end, { label: 'mount/x', epoch: 0 });
    assert.deepEqual(
      found.map(({ holds }) => holds),
      [false],
    );
    const snapshot = takeSnapshot(fixture.store, fixture.treeRoot, dir);
    const again = fixture.log(name);
    const { root: names } = buildNamespace(snapshot.state);
    const later = again.appendNamespace({ ...claim, size: snapshot.size, root: names });
    again.close();
    assert.deepEqual(
      checkClaims(fixture.store, fixture.treeRoot, dir, later, { label: 'mount/x', epoch: 0 }).map(
        ({ holds }) => holds,
      ),
      [false, true],
    );
  });

  it('can be taken along: what was given back is not sent, a checkpoint is, and the root is the same', () => {
    const name = fresh();
    const dir = dirOf(name);
    const view = fixture.view(name);
    const file = view.mknod(1, 'litter', 0o644, 0, ROOT_CALLER).ino;
    litter(view, file, 9, 1);
    view.flush();
    /** Ships to a copy what it lacks, as a move does; the bytes sent. */
    const ship = (to: string, spoil: (checkpoint: Buffer) => void = () => {}): number => {
      const { size, root } = view.position();
      const reader = new LogReader(dir);
      const replica = openReplica(dirOf(to), { create: true, epoch: 0 });
      let sent = 0;
      let at = reader.endsWith(replica.size, replica.lastCommit()) ? replica.size : 0;
      if (reader.isCleanedBehind(at)) {
        const checkpoint = reader.checkpoint();
        spoil(checkpoint.file);
        const base = replica.beginBase(at, checkpoint.size);
        base.takeCheckpoint(checkpoint.file);
        sent += checkpoint.file.length;
        while (at < checkpoint.size) {
          const end = Math.min(checkpoint.size, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES);
          const gone = reader.goneRoot(at);
          if (gone === undefined) {
            const bytes = Buffer.alloc(end - at);
            reader.readCommitted(at, bytes, size);
            base.takeBytes(at, bytes);
            sent += bytes.length;
          } else base.takeGone(Math.floor(at / SECTOR_BYTES), gone);
          at = end;
        }
        replica.finishBase();
      }
      const tail = Buffer.alloc(size - at);
      reader.readCommitted(at, tail, size);
      try {
        replica.append(tail);
        assert.equal(replica.isVouched, true);
        assert.deepEqual(replica.sync(), { epoch: 0, size, root });
      } finally {
        replica.close();
        reader.close();
      }
      return sent + tail.length;
    };
    const check = (to: string): void => {
      const copy = fresh();
      cpSync(dirOf(to), dirOf(copy), { recursive: true });
      const there = fixture.view(copy);
      assert.deepEqual(dump(there, true), dump(view, true));
      there.close();
    };
    const [early, late] = [fresh(), fresh()];
    ship(early);
    litter(view, file, 9, 2);
    assert.ok(view.clean().givenBackBytes >= 2 * SECTOR_BYTES);
    const { presentBytes } = view.cleaner!.usage();
    for (const to of [early, late]) {
      assert.ok(ship(to) <= presentBytes + MIB, 'no more than is there');
      check(to);
      view.write(file, 0, Buffer.from('more'), false);
      assert.ok(ship(to) < 1000, 'the second time what is new');
      check(to);
    }
    litter(view, file, 9, 3);
    view.clean();
    ship(late);
    check(late);
    assert.throws(
      () => ship(fresh(), (checkpoint) => (checkpoint[checkpoint.length >> 1]! ^= 1)),
      (error) => isPgError(error, 'LOG_CORRUPT'),
    );
    // Whole, but not the one that the log names.
    const other = (checkpoint: Buffer): void => {
      checkpoint[checkpoint.length - 100]! ^= 1;
      const payload = checkpoint.subarray(64, -4);
      checkpoint.writeUInt32LE(crc32(checkpoint.subarray(0, 64), crc32(payload)), checkpoint.length - 4);
    };
    assert.throws(
      () => ship(fresh(), other),
      (error) => isPgError(error, 'LOG_CORRUPT') && error.message.includes('names'),
    );
    crash(view);
  });

  it('survives a crash at every step', () => {
    const name = fresh();
    const pair = new Pair(fixture.view(name), modelOfImage(IMAGE));
    const { view } = pair;
    const file = view.mknod(1, 'litter', 0o644, 0, ROOT_CALLER).ino;
    // Something is needed of every sector.
    for (let i = 0; i < 10; i++) litter(view, file, 2, i);
    view.checkpoint();
    view.position();
    const expected = dump(view, true);
    const before = fresh();
    cpSync(dirOf(name), dirOf(before), { recursive: true });
    const fd = view.logFd();
    let punches = 0;
    const operations = record(dirOf(name), new Map([[fd, join(dirOf(name), 'log')]]), (punch) => {
      view.cleaner!.begin(Infinity);
      view.cleaner!.step(Infinity);
      view.checkpoint();
      view.checkpoint();
      assert.equal(view.hashSome(Infinity), true);
      view.position();
      const sectors = view.cleaner!.candidates();
      punches = sectors.length;
      giveBack(dirOf(name), fd, readHeader(fd, name).salt, sectors, punch);
      view.cleaner!.finish(sectors.length);
    });
    assert.ok(punches >= 3, `${punches} sectors`);
    assert.ok(operations.length > 20);
    crash(view);
    for (let count = 0; count <= operations.length; count++) {
      for (const kind of CRASHES) {
        const copy = fresh();
        cpSync(dirOf(before), dirOf(copy), { recursive: true });
        replay(operations, count, dirOf(copy), kind);
        const log = fixture.log(copy);
        const again = openView(fixture.tree, fixture.store, log);
        assert.deepEqual(dump(again, true), expected, `${kind}, ${count} of ${operations.length}`);
        again.position();
        again.close();
        rmSync(dirOf(copy), { recursive: true });
      }
    }
  });
});
