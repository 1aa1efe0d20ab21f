import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { Entry, FLAG_DATA, sealEntry, TYPE_ROOT } from '../../../fs/log/entry.ts';
import { openHasher } from '../../../fs/log/hasher.ts';
import { readHeader } from '../../../fs/log/header.ts';
import { type Log, openLog } from '../../../fs/log/log.ts';
import { requirePosition } from '../../../fs/log/position-check.ts';
import { openReplica } from '../../../fs/log/replica.ts';
import { type RecordedRoot, recordedRoot } from '../../../fs/log/root-entry.ts';
import { RootsFile } from '../../../fs/log/roots.ts';
import { Scanner, viewOf } from '../../../fs/log/scanner.ts';
import { Accumulator } from '../../../mdm/accumulator.ts';
import { isPgError } from '../../../mdm/error.ts';
import { bufferRoot, SECTOR_BYTES } from '../../../mdm/merkle.ts';

describe('the roots kept of a log', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const isCorrupt = (error: unknown): boolean => isPgError(error, 'LOG_CORRUPT') && /byte/.test(error.message);
  const log = (): Log => openLog(dir, { create: true });
  const bytes = (): Buffer => readFileSync(join(dir, 'log'));
  const flip = (at: number): void => {
    const fd = openSync(join(dir, 'log'), 'r+');
    writeSync(fd, Buffer.from([bytes()[at]! ^ 1]), 0, 1, at);
    closeSync(fd);
  };
  const append = (to: Log, mebibytes: number): void => {
    for (let i = 0; i < mebibytes; i++) {
      const entry = Object.assign(new Entry(), { type: 16, flags: FLAG_DATA });
      to.append(entry, Buffer.alloc(1 << 20, to.lastSequence), false);
      to.flush();
    }
  };
  /** A log of so many MiB, hashed and closed. */
  const written = (mebibytes: number): { size: number; root: Uint8Array } => {
    const made = log();
    append(made, mebibytes);
    const position = made.position();
    made.close();
    return position;
  };
  const recordsOf = (): (RecordedRoot & { at: number })[] => {
    const fd = openSync(join(dir, 'log'), 'r');
    const { length } = bytes();
    const scanner = new Scanner(fd, readHeader(fd, dir).salt, 128, 1, length, 'skip data');
    const found: (RecordedRoot & { at: number })[] = [];
    for (const entry = new Entry(); scanner.at < length && scanner.next(entry) === 'entry';)
      if (entry.type === TYPE_ROOT) found.push({ ...recordedRoot(entry, dir), at: entry.at });
    closeSync(fd);
    return found;
  };

  it('are those of the sectors, and their fold is the root of the log', () => {
    const { size, root } = written(9);
    const fd = openSync(join(dir, 'log'), 'r');
    const roots = new RootsFile(dir, readHeader(fd, dir).salt);
    const kept = roots.all();
    assert.equal(kept.length, 2);
    for (const [i, sector] of kept.entries()) {
      const start = i * SECTOR_BYTES;
      assert.deepEqual(sector, {
        root: Uint8Array.from(bufferRoot(bytes().subarray(start, start + SECTOR_BYTES))),
        isGone: false,
      });
      assert.deepEqual(roots.get(i), sector);
    }
    assert.equal(roots.get(2), undefined);
    const fold = new Accumulator();
    for (const sector of kept) fold.appendSector(sector.root);
    fold.append(bytes().subarray(2 * SECTOR_BYTES, size));
    assert.deepEqual(fold.root(), root);
    roots.close();
    closeSync(fd);
  });

  it('stand for the bytes of sectors, in whatever portions the others come', () => {
    const sectors = [0, 1, 2, 3, 4].map((i) => Buffer.alloc(SECTOR_BYTES, `sector ${i}`));
    const roots = sectors.map((sector) => bufferRoot(sector));
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.constant('root' as const), fc.integer({ min: 1, max: SECTOR_BYTES })), {
          minLength: 1,
          maxLength: 5,
        }),
        fc.nat(200_000),
        (ways, tail) => {
          const accumulator = new Accumulator();
          const told: Uint8Array[] = [];
          accumulator.onSector = (sector, root) => {
            assert.deepEqual(root, roots[sector]);
            told.push(root);
            return root;
          };
          for (const [i, way] of ways.entries()) {
            if (way === 'root') {
              // What was appended of the sector before counts for nothing.
              accumulator.append(Buffer.alloc(tail, 'other'));
              accumulator.appendSector(roots[i]!);
            } else
              for (let at = 0; at < SECTOR_BYTES; at += way) accumulator.append(sectors[i]!.subarray(at, at + way));
          }
          accumulator.append(Buffer.alloc(tail, 'tail'));
          const all = Buffer.concat([...sectors.slice(0, ways.length), Buffer.alloc(tail, 'tail')]);
          assert.deepEqual(accumulator.root(), bufferRoot(all));
          assert.deepEqual(Accumulator.restore(accumulator.serialize()).root(), bufferRoot(all));
          assert.equal(told.length, ways.filter((way) => way !== 'root').length);
        },
      ),
      { numRuns: 12 },
    );
  });

  it('are recorded in the log every so often, and what is recorded is compared at a replica', () => {
    const made = log();
    for (let i = 0; i < 4; i++) {
      append(made, 12);
      made.position();
    }
    append(made, 1);
    const { size, root } = made.position();
    made.close();
    const records = recordsOf();
    assert.ok(records.length >= 2, `${records.length} roots were recorded`);
    for (const recorded of records) {
      assert.ok(recorded.size <= recorded.at && recorded.size % SECTOR_BYTES === 0);
      assert.deepEqual(Buffer.from(recorded.root), Buffer.from(bufferRoot(bytes().subarray(0, recorded.size))));
    }
    const whole = bytes().subarray(0, size);
    const replica = openReplica(join(dir, 'copy'), { create: true, epoch: 0 });
    for (let at = 0; at < size; at += 3 << 20) replica.append(whole.subarray(at, at + (3 << 20)));
    assert.deepEqual(replica.sync().root, root);
    replica.close();

    const other = Buffer.from(whole);
    const at = records[0]!.at;
    other[at + 50]! ^= 1;
    const fd = openSync(join(dir, 'log'), 'r');
    sealEntry(other, viewOf(other), at, readHeader(fd, dir).salt);
    closeSync(fd);
    const misled = openReplica(join(dir, 'misled'), { create: true, epoch: 0 });
    assert.throws(() => {
      for (let from = 0; from < size; from += 3 << 20) misled.append(other.subarray(from, from + (3 << 20)));
    }, isCorrupt);
    assert.ok(misled.size <= at);
    assert.deepEqual(
      Buffer.from(misled.position().root),
      Buffer.from(bufferRoot(whole.subarray(0, misled.size))),
      'it is what it was before',
    );
    misled.append(whole.subarray(misled.size));
    assert.deepEqual(misled.position().root, root);
    misled.close();
  });

  it('tell, behind a mount, that a byte is not what was written, or that another root was recorded', () => {
    const { size } = written(10);
    rmSync(join(dir, 'hash'));
    let opened = openHasher(dir);
    assert.deepEqual([...opened.recheck(size)].filter(Boolean), []);
    assert.equal(opened.hasher.advance(size), true);
    opened.close();
    flip(SECTOR_BYTES + 77_777);
    opened = openHasher(dir);
    for (const recorded of opened.recheck(size)) if (recorded !== undefined) opened.hasher.expect(recorded);
    assert.throws(() => opened.hasher.advance(size), isCorrupt);
    assert.throws(() => opened.hasher.advance(size), isCorrupt, 'and again');
    opened.close();
    flip(SECTOR_BYTES + 77_777);
    opened = openHasher(dir);
    opened.hasher.expect({ size: SECTOR_BYTES, root: bufferRoot(bytes().subarray(0, SECTOR_BYTES)) });
    opened.hasher.expect({ size: 2 * SECTOR_BYTES, root: new Uint8Array(32) });
    assert.throws(() => opened.hasher.advance(size), isCorrupt);
    assert.throws(() => opened.hasher.expect({ size: SECTOR_BYTES, root: new Uint8Array(32) }), isCorrupt);
    opened.close();
  });

  it('are compared from a checkpoint that the mount did start from, though it has written newer ones and given sectors back', () => {
    const made = log();
    append(made, 5);
    const size = made.sync();
    for (let i = 0; i < 2; i++) {
      append(made, 1);
      made.writeCheckpoint([Buffer.from('state')]);
    }
    made.position();
    made.close();
    const fd = openSync(join(dir, 'log'), 'r+');
    const roots = new RootsFile(dir, readHeader(fd, dir).salt);
    roots.put(0, { ...roots.get(0)!, isGone: true });
    writeSync(fd, Buffer.alloc(SECTOR_BYTES - 256), 0, SECTOR_BYTES - 256, 256);
    roots.close();
    closeSync(fd);
    const { recheck, close } = openHasher(dir);
    assert.deepEqual([...recheck(size)], []);
    close();
  });

  it('are made again when they are lost, damaged or of another log', () => {
    const { size, root } = written(10);
    const path = join(dir, 'roots');
    const whole = readFileSync(path);
    const damaged = Buffer.from(whole);
    damaged[64 + 5]! ^= 1;
    const ofAnother = Buffer.from(whole);
    ofAnother[12]! ^= 1;
    for (const [what, content] of Object.entries({
      lost: undefined,
      damaged,
      ofAnother,
      short: whole.subarray(0, 80),
    })) {
      if (content === undefined) rmSync(path);
      else writeFileSync(path, content);
      const again = log();
      assert.deepEqual(again.position(), { epoch: 0, size, root }, what);
      again.hasher.save(size, again.lastSequence);
      assert.deepEqual(readFileSync(path), whole, what);
      again.close();
    }
    const newer = Buffer.from(whole);
    newer[8] = 9;
    newer.writeUInt32LE(zlibCheck(newer), 60);
    writeFileSync(path, newer);
    assert.throws(log, (error) => isPgError(error, 'LOG_VERSION'));
  });

  it('must fold to what was hashed', () => {
    const { size } = written(10);
    const path = join(dir, 'roots');
    const fd = openSync(join(dir, 'log'), 'r');
    const roots = new RootsFile(dir, readHeader(fd, path).salt);
    roots.put(0, { root: bufferRoot(Buffer.from('other')), isGone: false });
    roots.close();
    const opened = openHasher(dir);
    assert.throws(() => opened.hasher.rootAt(size), isCorrupt);
    opened.close();
    closeSync(fd);
  });

  it('show at a start whether a log is what was recorded, though it was not closed there', () => {
    const { size, root } = written(9);
    const more = log();
    append(more, 1);
    more.close();
    requirePosition(dir, { size, root });
    const damaged = (error: unknown): boolean =>
      isPgError(error, 'LOG_CORRUPT') && error.message.includes(String(size));
    assert.throws(() => requirePosition(dir, { size, root: new Uint8Array(32) }), damaged);
    rmSync(join(dir, 'hash'));
    requirePosition(dir, { size, root });
    flip(size - 100_000);
    // Checksums tell what differs: only reading that fails.
    assert.match(requirePosition(dir, { size, root }) ?? '', /1 of its payloads/);
  });
});

function zlibCheck(header: Buffer): number {
  return crc32(header.subarray(0, 60));
}
