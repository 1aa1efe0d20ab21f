import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { Entry, FLAG_DATA } from '../../../fs/log/entry.ts';
import { openHasher } from '../../../fs/log/hasher.ts';
import { createLog, firstBytes } from '../../../fs/log/header.ts';
import { type Log, openLog } from '../../../fs/log/log.ts';
import { isPgError } from '../../../mdm/error.ts';
import { bufferRoot } from '../../../mdm/merkle.ts';

const SALT = 0x12345678;

describe('a log', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const file = (): string => join(dir, 'log');
  const corrupt = (at: number): void => {
    const fd = openSync(file(), 'r+');
    const byte = readFileSync(file())[at]!;
    writeSync(fd, Buffer.from([byte ^ 1]), 0, 1, at);
    closeSync(fd);
  };

  it('begins with these bytes', () => {
    const base = Buffer.alloc(32, 0xab);
    const bytes = firstBytes(base, SALT, { sec: 1_700_000_000, nsec: 5 });
    assert.equal(
      bytes.toString('hex'),
      [
        // header entry: CRC, 2 leaves, no payload, head of 84 bytes, type 1, flags 0, sequence 0, time, reserved
        '2b5a4be6',
        '02000000',
        '00000000',
        '5400',
        '01',
        '00',
        '000000000000',
        '00f153650000',
        '05000000',
        '0000000000000000',
        // 'pglog\0', version 1, salt, base, padding
        '70676c6f6700',
        '0100',
        '78563412',
        'ab'.repeat(32),
        '00'.repeat(44),
        // commit: CRC, 1 leaf, head of 64 bytes, type 2, sequence 1, time, reserved, from 0, to 192, durable 0
        'db3b6a49',
        '01000000',
        '00000000',
        '4000',
        '02',
        '00',
        '010000000000',
        '00f153650000',
        '05000000',
        '0000000000000000',
        '0000000000000000',
        'c000000000000000',
        '0000000000000000',
      ].join(''),
    );
  });

  it('lays an entry out as documented', () => {
    createLog(dir, undefined, SALT);
    const log = openLog(dir);
    const payload = Buffer.alloc(5000, 'pg');
    const at = append(log, 'fields', payload);
    assert.equal(at, 192 + 64);
    log.close();
    const bytes = readFileSync(file()).subarray(192);
    assert.equal(
      bytes.toString('hex', 4, 64 - 4),
      `50000000881300002e00148002000000000000f15365000015cd5b0700000000000000006669656c6473${'00'.repeat(14)}`,
    );
    assert.deepEqual(bytes.subarray(64, 5064), payload);
    assert.equal(bytes.readUInt32LE(4) * 64, 5120, 'one more checksum of 4 bytes behind the payload, then padding');
    assert.equal(bytes.toString('hex', 5068, 5120), '00'.repeat(52));
    assert.equal(bytes.length, 5120 + 64, 'and a commit');
  });

  it('gives back what was appended, over many opens', () => {
    const expected: string[] = [];
    for (let round = 0; round < 5; round++) {
      const log = openLog(dir, { create: true });
      assert.deepEqual(entriesOf(log), expected);
      for (let i = 0; i < 20; i++) {
        append(log, `entry ${round}.${i}`, i % 3 === 0 ? Buffer.alloc(i * 3000 + 1, i) : undefined);
        expected.push(`entry ${round}.${i}`);
        if (i % 7 === 0) log.flush();
      }
      if (round % 2 === 0) log.close();
      else {
        log.flush();
        crash(log);
      }
    }
  });

  it('reads payloads in parts, from memory, from the file, across blocks and pieces', () => {
    const log = openLog(dir, { create: true });
    const payload = Buffer.from(Uint32Array.from({ length: 250_000 }, (_, i) => Math.imul(i, 2654435761)).buffer);
    for (const size of [1, 100, 4096, 4097, 60_000, 65_536, 65_537, 999_999]) {
      const at = append(log, 'x', payload.subarray(0, size));
      for (const place of ['memory', 'file']) {
        for (const [from, length] of [
          [0, size],
          [0, 1],
          [size - 1, 1],
          [size >> 1, size - (size >> 1)],
          [size >> 2, size >> 1],
        ] as const) {
          if (length === 0) continue;
          const into = Buffer.alloc(length + 2);
          log.readPayload(at, size, from, into, 1, length);
          assert.ok(
            into.subarray(1, length + 1).equals(payload.subarray(from, from + length)),
            `${place} ${size} ${from} ${length}`,
          );
        }
        log.flush();
      }
    }
    log.close();
  });

  it('does not hand out a payload that rotted, and hands out the rest of it', () => {
    const log = openLog(dir, { create: true });
    const at = append(log, 'x', Buffer.alloc(100_000, 1));
    const small = append(log, 'y', Buffer.alloc(10_000, 2));
    log.sync();
    corrupt(at + 50_000);
    corrupt(small + 5000);
    const into = Buffer.alloc(4096);
    log.readPayload(at, 100_000, 0, into, 0, 4096);
    log.readPayload(at, 100_000, 53_248, into, 0, 4096);
    assert.throws(
      () => log.readPayload(at, 100_000, 49_152, into, 0, 4096),
      (e) => isPgError(e, 'LOG_DAMAGED'),
    );
    log.readPayload(small, 10_000, 0, into, 0, 4096);
    assert.throws(
      () => log.readPayload(small, 10_000, 4096, into, 0, 1),
      (e) => isPgError(e, 'LOG_DAMAGED'),
    );
    crash(log);
  });

  it('keeps what was durable though a payload in it rotted, and refuses a rotten head', () => {
    let log = openLog(dir, { create: true });
    const first = append(log, 'first', Buffer.alloc(5000, 1));
    log.sync();
    append(log, 'second');
    log.sync();
    append(log, 'third');
    log.flush();
    crash(log);
    corrupt(first + 3);
    log = openLog(dir);
    assert.deepEqual(entriesOf(log), ['first', 'second', 'third']);
    assert.deepEqual(log.damaged, [192]);
    crash(log);
    corrupt(192 + 41);
    assert.throws(
      () => openLog(dir),
      (e) => isPgError(e, 'LOG_CORRUPT') && e.message.includes('byte 192'),
    );
  });

  it('cuts what no fdatasync covered at the first damage, whatever of it reached the disk', () => {
    let log = openLog(dir, { create: true });
    append(log, 'safe');
    const safe = log.sync();
    append(log, 'lost', Buffer.alloc(10_000, 3));
    log.flush();
    append(log, 'later');
    const end = log.flush();
    crash(log);
    const fd = openSync(file(), 'r+');
    writeSync(fd, Buffer.alloc(4096), 0, 4096, safe + 4096 - (safe % 4096));
    closeSync(fd);
    log = openLog(dir);
    assert.deepEqual(entriesOf(log), ['safe']);
    assert.equal(log.written, safe);
    assert.ok(end > safe);
    append(log, 'new');
    log.close();
    log = openLog(dir);
    assert.deepEqual(entriesOf(log), ['safe', 'new']);
    log.close();
  });

  it('writes zeros ahead when small syncs follow one another, and ends where it ends', () => {
    let log = openLog(dir, { create: true });
    for (let i = 0; i < 400; i++) {
      append(log, `e${i}`, Buffer.alloc(4000, i));
      log.sync();
    }
    const { size } = log;
    assert.ok(statSync(file()).size > size);
    crash(log);
    log = openLog(dir);
    assert.equal(log.written, size);
    assert.equal(entriesOf(log).length, 400);
    log.close();
    assert.equal(statSync(file()).size, size, 'a closed log has no byte more');
  });

  it('grows the last entry, and not one that is not the last', () => {
    let log = openLog(dir, { create: true });
    const at = append(log, 'grows', Buffer.alloc(100, 1));
    const { lastSequence } = log;
    for (let i = 0; i < 100; i++) {
      assert.ok(log.canGrow(lastSequence, 100));
      assert.equal(
        log.grow(Buffer.alloc(100, 2 + i), Object.assign(new Entry(), { sec: 1_700_000_001, nsec: i })),
        at + 100 + i * 100,
      );
    }
    const into = Buffer.alloc(100);
    log.readPayload(at, 10_100, 5000, into, 0, 100);
    assert.equal(into[0], 51);
    append(log, 'next');
    assert.equal(log.canGrow(lastSequence, 1), false);
    log.flush();
    assert.equal(log.canGrow(log.lastSequence, 1), false);
    log.readPayload(at, 10_100, 9999, into, 0, 100);
    assert.deepEqual([into[0], into[1]], [100, 101]);
    crash(log);
    log = openLog(dir);
    const seen: number[] = [];
    log.replay((entry) => seen.push(entry.payloadBytes, entry.nsec));
    assert.deepEqual(seen, [10_100, 99, 0, 123_456_789]);
    log.close();
  });

  it('has the root of its bytes, however far the hasher was', () => {
    let log = openLog(dir, { create: true });
    for (let i = 0; i < 50; i++) {
      append(log, `e${i}`, Buffer.alloc(30_000, i));
      if (i % 10 === 0) log.hasher.advance(log.flush(), 40_000);
      if (i === 25) {
        log.close();
        log = openLog(dir);
        assert.ok(log.hasher.size > 0);
      }
    }
    const { epoch, size, root } = log.position();
    assert.deepEqual([epoch, size], [0, log.size]);
    assert.deepEqual(Buffer.from(root), Buffer.from(bufferRoot(readFileSync(file()).subarray(0, size))));
    const other = openHasher(dir);
    assert.deepEqual(other.hasher.rootAt(size), root);
    other.close();
    log.close();
  });

  it('replays from a checkpoint, and from the start when that is missing, damaged or of another turn of events', () => {
    let log = openLog(dir, { create: true });
    append(log, 'before');
    const size = log.sync();
    log.writeCheckpoint([Buffer.from('state '), Buffer.from('so far')]);
    append(log, 'after');
    log.close();
    log = openLog(dir);
    assert.equal(log.checkpoint?.payload.toString(), 'state so far');
    assert.deepEqual(entriesOf(log), ['after']);
    crash(log);
    const checkpoint = readFileSync(join(dir, 'checkpoint'));
    const damaged = Buffer.from(checkpoint);
    damaged[70]! ^= 1;
    for (const bytes of [damaged, Buffer.alloc(0), checkpoint.subarray(0, -1)]) {
      writeFileSync(join(dir, 'checkpoint'), bytes);
      log = openLog(dir);
      assert.equal(log.checkpoint, undefined);
      assert.deepEqual(entriesOf(log), ['before', 'after']);
      crash(log);
    }
    writeFileSync(join(dir, 'checkpoint'), checkpoint);
    rmSync(join(dir, 'hash'), { force: true });
    truncateSync(file(), size - 64);
    log = openLog(dir);
    assert.equal(log.checkpoint, undefined, 'its commit is not there');
    log.close();
  });

  it('refuses what is newer, of another image, or open elsewhere', () => {
    const log = openLog(dir, { create: true });
    assert.throws(
      () => openLog(dir),
      (e) => isPgError(e, 'LOG_BUSY'),
    );
    const reader = openLog(dir, { readOnly: true });
    reader.close();
    log.close();
    assert.throws(
      () => openLog(dir, { base: Buffer.alloc(32, 1) }),
      (e) => isPgError(e, 'LOG_BASE'),
    );
    const fd = openSync(file(), 'r+');
    writeSync(fd, Buffer.from([2]), 0, 1, 46);
    closeSync(fd);
    assert.throws(
      () => openLog(dir),
      (e) => isPgError(e, 'LOG_VERSION'),
    );
    assert.throws(
      () => openLog(join(dir, 'none')),
      (e) => isPgError(e, 'LOG_MISSING'),
    );
    assert.equal(existsSync(join(dir, 'none')), false);
  });

  it('keeps its epoch, which only rises', () => {
    let log = openLog(dir, { create: true });
    log.setEpoch(3);
    assert.throws(
      () => log.setEpoch(2),
      (e) => isPgError(e, 'LOG_EPOCH_OLD'),
    );
    log.close();
    log = openLog(dir);
    assert.equal(log.position().epoch, 3);
    log.close();
  });
});

/** Appends an entry of type 20 with these fields; returns where its payload is. */
function append(log: Log, fields: string, payload?: Buffer, flags = FLAG_DATA): number {
  const bytes = Buffer.from(fields);
  const entry = Object.assign(new Entry(), {
    type: 20,
    flags,
    sec: 1_700_000_000,
    nsec: 123_456_789,
    bytes,
    fieldsEnd: bytes.length,
  });
  log.append(entry, payload, false);
  return entry.payloadAt;
}
function entriesOf(log: Log): string[] {
  const found: string[] = [];
  log.replay((entry) => found.push(entry.bytes.toString('latin1', entry.fieldsStart, entry.fieldsEnd)));
  return found;
}
function crash(log: Log): void {
  closeSync(log.fd);
}
