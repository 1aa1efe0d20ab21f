import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { Entry } from '../../../fs/log/entry.ts';
import { type Log, openLog } from '../../../fs/log/log.ts';
import { LogReader, openReplica } from '../../../fs/log/replica.ts';
import { isPgError } from '../../../mdm/error.ts';

describe('a replica of a log', () => {
  let dir: string;
  let log: Log;
  beforeEach(() => {
    dir = mkdtempSync('/var/tmp/pg-test-');
    log = openLog(join(dir, 'source'), { create: true });
  });
  afterEach(() => {
    log.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const target = (): string => join(dir, 'target');
  const append = (size: number): void => {
    const bytes = Buffer.from('fields');
    const entry = Object.assign(new Entry(), { type: 30, flags: 0, bytes, fieldsEnd: bytes.length });
    log.append(entry, size === 0 ? undefined : Buffer.alloc(size, size), false);
  };
  const bytesFrom = (offset: number): Buffer => {
    const size = log.flush();
    const reader = new LogReader(join(dir, 'source'));
    const bytes = Buffer.alloc(size - offset);
    assert.equal(reader.readCommitted(offset, bytes, size), bytes.length);
    reader.close();
    return bytes;
  };

  it('comes to the same position, in whatever portions the bytes come and whenever it is reopened', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(20_000), { minLength: 1, maxLength: 20 }),
        fc.array(fc.integer({ min: 100, max: 30_000 }), { minLength: 1, maxLength: 20 }),
        (sizes, portions) => {
          for (const [i, size] of sizes.entries()) {
            append(size);
            if (i % 3 === 0) log.flush();
          }
          rmSync(target(), { recursive: true, force: true });
          let replica = openReplica(target(), { create: true, epoch: 0 });
          let bytes = bytesFrom(0);
          for (let i = 0; bytes.length > 0; i++) {
            const portion = bytes.subarray(0, portions[i % portions.length]!);
            replica.append(portion);
            bytes = bytes.subarray(portion.length);
            if (i % 4 === 3 && i < 20) {
              if (i % 8 === 3) replica.sync();
              replica.close();
              replica = openReplica(target(), { epoch: 0 });
              bytes = bytesFrom(replica.size);
            }
          }
          assert.deepEqual(replica.sync(), log.position());
          replica.close();
          const copy = openLog(target());
          assert.deepEqual(copy.position(), log.position());
          copy.close();
        },
      ),
      { numRuns: 30 },
    );
  });

  it('takes a beginning that comes to nothing for what it is, and closes only what is its own', () => {
    append(5000);
    const replica = openReplica(target(), { create: true, epoch: 0 });
    const isCorrupt = (error: unknown): boolean => isPgError(error, 'LOG_CORRUPT');
    replica.beginBase(0, 8192).takeCheckpoint(Buffer.from('of another'));
    // Announced once more: the first is given up.
    const base = replica.beginBase(0, 8192);
    base.takeCheckpoint(Buffer.from('nonsense'));
    assert.throws(() => replica.append(bytesFrom(0)), isCorrupt);
    base.takeBytes(0, Buffer.concat([bytesFrom(0), Buffer.alloc(8192)]).subarray(0, 8192));
    assert.throws(() => replica.finishBase(), isCorrupt);
    assert.throws(() => base.takeCheckpoint(Buffer.from('more')), isCorrupt);
    // Descriptors that are free by now are somebody else's next.
    const others = [1, 2, 3].map((i) => openSync(join(dir, `other-${i}`), 'w'));
    replica.close();
    for (const fd of others) closeSync(fd);
    const again = openReplica(target(), { epoch: 0 });
    again.append(bytesFrom(again.size));
    assert.deepEqual(again.sync(), log.position());
    again.close();
  });

  it('tells a prefix of the log from another log', () => {
    append(5000);
    const replica = openReplica(target(), { create: true, epoch: 0 });
    replica.append(bytesFrom(0));
    const [size, commit] = [replica.size, replica.lastCommit()];
    append(100);
    log.flush();
    const reader = new LogReader(join(dir, 'source'));
    assert.equal(reader.endsWith(size, commit), true);
    assert.equal(reader.endsWith(size, Buffer.alloc(64)), false);
    assert.equal(reader.endsWith(size + 64, commit), false);
    reader.close();
    replica.reset();
    assert.deepEqual([replica.size, replica.lastCommit().length], [0, 0]);
    replica.append(bytesFrom(0));
    assert.deepEqual(replica.position().root, log.position().root);
    replica.close();
  });

  it('takes no bit that was changed on the way, and goes on with the right ones', () => {
    for (const size of [100, 9000, 0, 4096]) append(size);
    const bytes = bytesFrom(0);
    const position = log.position();
    const replica = openReplica(target(), { create: true, epoch: 0 });
    for (let at = 0; at < bytes.length; at += 97) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 4;
      try {
        replica.append(changed);
        assert.notDeepEqual(replica.position(), position);
      } catch (error) {
        assert.ok(isPgError(error, 'LOG_CORRUPT'), String(error));
      }
      replica.reset();
    }
    replica.append(bytes);
    assert.deepEqual(replica.position(), position);
    const more = bytes.subarray(192, 192 + 256);
    assert.throws(
      () => replica.append(more),
      (e) => isPgError(e, 'LOG_CORRUPT'),
    );
    append(50);
    replica.append(bytesFrom(replica.size));
    assert.deepEqual(replica.sync(), log.position());
    replica.close();
  });

  it('refuses a log of an epoch that is over', () => {
    const replica = openReplica(target(), { create: true, epoch: 4 });
    replica.append(bytesFrom(0));
    replica.sync();
    replica.setEpoch(5);
    replica.close();
    assert.throws(
      () => openReplica(target(), { epoch: 4 }),
      (e) => isPgError(e, 'LOG_EPOCH_OLD'),
    );
    const next = openReplica(target(), { epoch: 5 });
    assert.equal(next.position().epoch, 5);
    assert.throws(
      () => next.setEpoch(4),
      (e) => isPgError(e, 'LOG_EPOCH_OLD'),
    );
    next.close();
  });
});
