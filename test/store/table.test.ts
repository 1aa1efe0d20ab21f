import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { isPgError } from '../../mdm/error.ts';
import { STORE_VERSION } from '../../store/index-db.ts';
import { openStore } from '../../store/store.ts';
import { Place } from './fixture.ts';

describe('store: tables', () => {
  let place: Place;
  beforeEach(() => {
    place = new Place();
  });
  afterEach(() => place.remove());

  it('keeps byte order, answers prefixes and bounds', () => {
    const table = place.open().table('names');
    const keys = [Buffer.from([0xff]), Buffer.from([0xff, 0xff]), 'b', 'ab', 'a', 'aé', Buffer.from([0]), 'abc'];
    for (const key of keys) table.put(key, Buffer.from(key));
    const found = [...table.range()].map(({ key, value }) => {
      assert.ok(key.equals(value));
      return key.toString('latin1');
    });
    assert.deepEqual(found, ['\0', 'a', 'ab', 'abc', 'a\xc3\xa9', 'b', '\xff', '\xff\xff']);
    const list = (options: Parameters<typeof table.keys>[0]): string[] =>
      [...table.keys(options)].map((key) => key.toString('latin1'));
    assert.deepEqual(list({ prefix: 'ab' }), ['ab', 'abc']);
    assert.deepEqual(list({ prefix: 'a', limit: 2 }), ['a', 'ab']);
    assert.deepEqual(list({ prefix: Buffer.from([0xff]) }), ['\xff', '\xff\xff']);
    assert.deepEqual(list({ prefix: '' }), found);
    assert.deepEqual(list({ start: 'ab', end: 'b' }), ['ab', 'abc', 'a\xc3\xa9']);
    assert.equal(table.count(), keys.length);
    assert.ok(table.remove('ab') && !table.remove('ab') && !table.has('ab') && table.get('ab') === undefined);
  });

  it('makes all of a transaction or none, also of tables first seen in it', () => {
    const store = place.open();
    const fail = (): void => {
      store.table('images').put('x', Buffer.from('1'));
      assert.equal(store.table('images').get('x')?.toString(), '1');
      throw new TypeError('given up');
    };
    assert.throws(() => store.transaction(fail), TypeError);
    assert.equal(store.table('images').get('x'), undefined);
    assert.throws(() => store.transaction(() => store.transaction(fail)), TypeError);
    const two = store.transaction(() => {
      store.table('images').put('x', Buffer.from('1'));
      store.transaction(() => store.table('layers').put('y', Buffer.from('2')));
      return 2;
    });
    assert.equal(two, 2);
    assert.equal(place.open().table('layers').get('y')?.toString(), '2');
  });

  it('shows at once, without a turn of the event loop, what another process wrote', () => {
    const table = place.open().table('names');
    const module = new URL('../../store/store.ts', import.meta.url).pathname;
    assert.equal(table.get('k'), undefined);
    for (const value of ['1', '2', '3']) {
      const program = `import { openStore } from ${JSON.stringify(module)};
        const store = openStore(${JSON.stringify(place.roots)});
        store.table('names').put('k', Buffer.from(${JSON.stringify(value)}));
        await store.close();`;
      execFileSync(process.execPath, ['--input-type=module', '-e', program]);
      assert.equal(table.get('k')?.toString(), value);
      assert.ok(table.has('k'));
      assert.equal([...table.range()].map((entry) => entry.value.toString()).join(), value);
    }
  });

  it('holds large values and many of them', () => {
    const table = place.open().table('nodes');
    const large = Buffer.alloc(5_000_000, 7);
    table.put('large', large);
    assert.ok(table.get('large')!.equals(large));
  });

  it('refuses a store of another format, and one that is not there when only reading', () => {
    const store = place.open();
    for (const [other, code] of [
      [STORE_VERSION + 1, 'NEWER_STORE'],
      [1, 'OLDER_STORE'],
    ] as const) {
      const version = Buffer.alloc(4);
      version.writeUInt32LE(other);
      store.table('meta').put('version', version);
      assert.throws(
        () => place.open(),
        (error) => isPgError(error, code) && error.hint !== undefined,
      );
    }
    const nowhere = { ...place.roots, data: `${place.dir}/nowhere` };
    assert.throws(
      () => openStore(nowhere, { readOnly: true }),
      (error) => isPgError(error, 'STORE_MISSING'),
    );
  });

  it('can be opened to be read only, also where a table was never made', async () => {
    place.open().table('names').put('a', Buffer.from('1'));
    const module = new URL('../../store/store.ts', import.meta.url).pathname;
    const program = `import { openStore } from ${JSON.stringify(module)};
      const store = openStore(${JSON.stringify(place.roots)}, { readOnly: true });
      console.log(store.table('names').get('a').toString(), store.table('never').get('a'), [...store.table('never').range()].length, store.table('never').count());
      await store.close();`;
    const out = execFileSync(process.execPath, ['--input-type=module', '-e', program]).toString();
    assert.equal(out, '1 undefined 0 0\n');
  });
});

describe('store: a thread that never returns to its event loop', () => {
  let place: Place;
  beforeEach(() => {
    place = new Place();
  });
  afterEach(() => place.remove());

  it('reads what was committed last, and holds no old state of the index', async () => {
    const table = place.open().table('names');
    table.put('k', Buffer.from('0'));
    const turns = new Int32Array(new SharedArrayBuffer(8));
    const module = new URL('../../store/store.ts', import.meta.url).pathname;
    const program = `
      const { workerData, parentPort } = require('node:worker_threads');
      import(${JSON.stringify(module)}).then(({ openStore }) => {
        const store = openStore(workerData.roots);
        const table = store.table('names');
        const { turns } = workerData;
        for (let turn = 0; turn < 100; turn++) {
          Atomics.wait(turns, 0, turn);
          const range = [...table.range({ prefix: 'k' })].length;
          const right = table.get('k')?.toString() === String(turn + 1) && table.has('k') && range === 1;
          Atomics.store(turns, 1, right ? turn + 1 : -1);
          Atomics.notify(turns, 1);
        }
        parentPort.postMessage(process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length);
        return store.close();
      });`;
    const worker = new Worker(program, { eval: true, workerData: { roots: place.roots, turns } });
    const timers = new Promise<number>((resolve, reject) => worker.once('message', resolve).once('error', reject));
    const ended = new Promise((resolve) => worker.once('exit', resolve));
    for (let turn = 0; turn < 100; turn++) {
      table.put('k', Buffer.from(String(turn + 1)));
      table.put(`large${turn % 2}`, Buffer.alloc(100_000, turn));
      const answer = Atomics.waitAsync(turns, 1, turn);
      Atomics.store(turns, 0, turn + 1);
      Atomics.notify(turns, 0);
      await answer.value;
      assert.equal(Atomics.load(turns, 1), turn + 1);
    }
    assert.equal(await timers, 0, 'reads leave no timers behind');
    await ended;
    // 10 MB were written; freed pages were used again.
    assert.ok(place.open().usage().indexBytes < 3_000_000, `${place.open().usage().indexBytes} bytes of index`);
  });
});
