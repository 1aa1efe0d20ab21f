import assert from 'node:assert/strict';
import { closeSync, copyFileSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { AppendBuffer, BUFFER_BYTES, type Flight } from '../../../fs/log/append-buffer.ts';
import { Entry, FLAG_DATA } from '../../../fs/log/entry.ts';
import { readHeader } from '../../../fs/log/header.ts';
import { type Log, openLog } from '../../../fs/log/log.ts';
import { RoomWriter } from '../../../fs/log/room-writer.ts';

const TYPE = 16;
const FIELDS = Buffer.from('a field');

/** What a reader finds of an entry: its payload, and the request that it did. */
interface Found {
  payload: Buffer;
  request: number;
}

/** Numbers in [0, 1), the same every time. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) / 2 ** 32;
}

function entryOf(request: number, result = 0): Entry {
  const view = new DataView(FIELDS.buffer, FIELDS.byteOffset, FIELDS.length);
  const about = { type: TYPE, flags: FLAG_DATA, bytes: FIELDS, view, fieldsStart: 0, fieldsEnd: FIELDS.length };
  return Object.assign(new Entry(), about, { sec: 1_700_000_000, requestLow: request, requestHigh: 7, result });
}

function entriesOf(log: Log): Found[] {
  const found: Found[] = [];
  log.replay((entry) => {
    const payload = Buffer.alloc(entry.payloadBytes);
    log.readPayload(entry.payloadAt, entry.payloadBytes, 0, payload, 0, entry.payloadBytes);
    assert.equal(entry.bytes.toString('latin1', entry.fieldsStart, entry.fieldsEnd), String(FIELDS));
    found.push({ payload, request: entry.view.getUint32(entry.fieldsStart - 8, true) });
  });
  return found;
}

describe('a log whose writer was killed', () => {
  let dir: string;
  beforeEach(() => (dir = mkdtempSync('/var/tmp/pg-test-')));
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  /** As a successor finds it: the file and the memory as they are now, or with the memory's last state not yet selected. */
  function successor(name: string, memory: ArrayBuffer, before: boolean): Log {
    const to = join(dir, name);
    mkdirSync(to);
    copyFileSync(join(dir, 'a/log'), join(to, 'log'));
    const copy = memory.slice(0);
    const words = new Int32Array(copy, 0, 3);
    if (before) words[2] = 3 - words[2]!;
    return openLog(to, { buffer: new AppendBuffer(copy) });
  }

  it('has every entry and every growth that was acknowledged, at any instant, and the request that did the last', () => {
    const memory = new ArrayBuffer(AppendBuffer.BYTES);
    const log = openLog(join(dir, 'a'), { create: true, buffer: new AppendBuffer(memory) });
    assert.equal(log.inherited, undefined);
    const rand = numbers(4);
    const model: Found[] = [];
    let step = 0;
    const check = (before: boolean, expected: readonly Found[], last: number): void => {
      const next = successor(`${step}${before}`, memory, before);
      assert.deepEqual(entriesOf(next), expected, `step ${step}, ${before ? 'before' : 'after'} the store`);
      if (last > 0) assert.deepEqual(next.inherited, { low: last, high: 7, result: last * 3 });
      assert.equal(next.written, next.size);
      next.close();
      rmSync(next.dir, { recursive: true });
    };
    for (step = 1; step < 70; step++) {
      const was = model.map((found) => ({ ...found }));
      const payload = Buffer.alloc(1 + Math.floor(rand() * (rand() < 0.1 ? 200_000 : 5000)), step);
      if (rand() < 0.5 && model.length > 0 && log.canGrow(log.lastSequence, payload.length)) {
        log.grow(payload, entryOf(step, step * 3));
        const last = model.at(-1)!;
        Object.assign(last, { payload: Buffer.concat([last.payload, payload]), request: step });
      } else {
        log.append(entryOf(step, step * 3), payload, false);
        model.push({ payload, request: step });
      }
      check(false, model, step);
      check(true, was, was.at(-1)?.request ?? 0);
      if (rand() < 0.1) {
        log.flush();
        for (const before of [false, true]) check(before, model, step);
      }
    }
    log.close();
  });

  /** A successor's file in which the writing of the room in flight came so far, with or without checksums. */
  function partlyWritten(to: string, memory: ArrayBuffer, bytes: number): void {
    const fd = openSync(join(to, 'log'), 'r+');
    const buffer = new AppendBuffer(memory.slice(0));
    const { flight, room } = buffer.takeOver(readHeader(fd, to).salt)!;
    assert.notEqual(flight, undefined);
    writeSync(fd, buffer.rooms[1 - room]!.bytes, 0, Math.min(bytes, flight!.used), flight!.start);
    closeSync(fd);
  }

  const refuses = (): void => assert.fail('the thread of this test is the test');

  it('has what another of its threads was writing, however far that came', () => {
    const memory = new ArrayBuffer(AppendBuffer.BYTES);
    const buffer = new AppendBuffer(memory);
    const writer = new RoomWriter(refuses);
    writer.ready();
    const log = openLog(join(dir, 'a'), { create: true, buffer, writer });
    const model: Found[] = [];
    const places: number[] = [];
    let flights = 0;
    for (let step = 1; step <= 24; step++) {
      const payload = Buffer.alloc(400_000 + step * 9000, step);
      if (!writer.hasWritten && log.size - log.written > 2 * BUFFER_BYTES - payload.length - 4096) writer.work(buffer);
      const entry = entryOf(step, step);
      log.append(entry, payload, false);
      model.push({ payload, request: step });
      places.push(entry.payloadAt);
      if (writer.hasWritten) continue;
      for (const [i, { payload: expected }] of model.entries()) {
        const found = Buffer.alloc(expected.length - 7);
        log.readPayload(places[i]!, expected.length, 7, found, 0, found.length);
        assert.ok(found.equals(expected.subarray(7)), `payload ${i} at step ${step}`);
      }
      flights++;
      if (flights % 4 !== 1) continue;
      for (const bytes of [0, 1_000_000, BUFFER_BYTES]) {
        const to = `${step}-${bytes}`;
        mkdirSync(join(dir, to));
        copyFileSync(join(dir, 'a/log'), join(dir, to, 'log'));
        partlyWritten(join(dir, to), memory, bytes);
        const next = openLog(join(dir, to), { buffer: new AppendBuffer(memory.slice(0)) });
        assert.deepEqual(entriesOf(next), model, `step ${step}, ${bytes} bytes written`);
        assert.deepEqual(next.inherited, { low: step, high: 7, result: step });
        next.close();
        rmSync(next.dir, { recursive: true });
      }
    }
    assert.ok(flights > 4, `only ${flights} were in flight`);
    if (!writer.hasWritten) writer.work(buffer);
    log.close();
    const again = openLog(join(dir, 'a'));
    assert.deepEqual(entriesOf(again), model);
    again.close();
  });

  it('is written by the thread that appends where the other one failed', () => {
    /** Is told a descriptor that is not open. */
    class Failing extends RoomWriter {
      override begin(room: number, flight: Flight, _fd: number, salt: number): boolean {
        return super.begin(room, flight, -1, salt);
      }
    }
    const buffer = new AppendBuffer();
    const writer = new Failing(refuses);
    writer.ready();
    const log = openLog(join(dir, 'a'), { create: true, buffer, writer });
    const model: Found[] = [];
    let failed = 0;
    for (let step = 1; step <= 20; step++) {
      const payload = Buffer.alloc(1 << 20, step);
      log.append(entryOf(step), payload, false);
      model.push({ payload, request: step });
      if (writer.hasWritten) continue;
      writer.work(buffer);
      assert.equal(writer.hasWritten, false);
      failed++;
    }
    assert.ok(failed > 2);
    log.close();
    const again = openLog(join(dir, 'a'));
    assert.deepEqual(entriesOf(again), model);
    again.close();
  });

  it('accepts nothing more when it had failed', () => {
    const memory = new ArrayBuffer(AppendBuffer.BYTES);
    const log = openLog(join(dir, 'a'), { create: true, buffer: new AppendBuffer(memory) });
    log.append(entryOf(1), Buffer.alloc(10, 1), false);
    log.fail(new Error('the disk is gone'));
    const next = successor('b', memory, false);
    assert.notEqual(next.failure, undefined);
    assert.throws(() => next.append(entryOf(2), undefined, false), { code: 'LOG_FAILED' });
    next.close();
    log.close();
  });

  it('takes nothing from memory that is of another log', () => {
    const memory = new ArrayBuffer(AppendBuffer.BYTES);
    const log = openLog(join(dir, 'a'), { create: true, buffer: new AppendBuffer(memory) });
    log.append(entryOf(1), Buffer.alloc(10, 1), false);
    const other = openLog(join(dir, 'b'), { create: true, buffer: new AppendBuffer(memory.slice(0)) });
    assert.equal(other.inherited, undefined);
    assert.deepEqual(entriesOf(other), []);
    other.close();
    log.close();
  });
});
