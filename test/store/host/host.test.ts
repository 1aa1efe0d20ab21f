import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { executeBatch } from '../../../mdm/batch.ts';
import { isPgError } from '../../../mdm/error.ts';
import { type Instruction, makeInstruction } from '../../../mdm/instruction.ts';
import { bufferRoot, SECTOR_BYTES } from '../../../mdm/merkle.ts';
import { Host } from '../../../store/host/host.ts';
import type { HostFile } from '../../../store/host/host-file.ts';
import type { Store } from '../../../store/store.ts';
import { CASES, largePrograms, pattern, smallPrograms } from '../../mdm/programs.ts';
import { importAll, noise, Place } from '../fixture.ts';
import { bytesOf, checkFile, fillFile, placeAll, runBatch } from './model.ts';

const S = SECTOR_BYTES;
const NOTHING = new Uint8Array(0);
const I = makeInstruction;

describe('store: the durable host', function () {
  this.timeout(120_000);
  let here: Place;
  let store: Store;
  let host: Host;
  beforeEach(() => {
    here = new Place();
    store = here.open();
    host = new Host(store);
  });
  afterEach(() => here.remove());

  const execute = (file: HostFile, instructions: Instruction[], payloads: (Uint8Array | undefined)[] = []): void => {
    const given = instructions.map((_, i) => payloads[i]);
    const result = executeBatch(file, { initial: file.state, instructions }, given);
    if ('error' in result) throw result.error;
    assert.equal(result.outcome, 'committed');
  };
  const fill = (name: string, data: Uint8Array): HostFile => {
    const file = host.create(name);
    fillFile(file, data);
    return file;
  };
  const sectorFiles = (): number =>
    readdirSync(join(here.dir, 'sectors'), { recursive: true, encoding: 'utf8' }).filter((n) => n.length === 67).length;
  const entries = (table: string): number => store.table(table).count();

  it('keeps what random programs do, batch after batch, also when it is opened again', () => {
    let count = 0;
    fc.assert(
      fc.property(fc.array(smallPrograms, { minLength: 1, maxLength: 3 }), (programs) => {
        const name = `small ${count++}`;
        let bytes = pattern(programs[0]!.size, programs[0]!.seed);
        let file = fill(name, bytes);
        for (const { drafts } of programs) {
          const { steps, after } = placeAll(drafts, bytes);
          runBatch(file, steps);
          file = host.open(name);
          checkFile(file, after);
          bytes = after;
        }
        host.remove(name);
        for (const table of ['mdm-files', 'mdm-sectors', 'mdm-hashes', 'mdm-blocks']) assert.equal(entries(table), 0);
      }),
      { numRuns: Math.max(30, Math.floor(CASES * 0.002)) },
    );
  });

  it('files of several sectors, two of them sharing', () => {
    let count = 0;
    fc.assert(
      fc.property(largePrograms, largePrograms, ({ size, seed, drafts }, other) => {
        const name = `large ${count++}`;
        const bytes = pattern(size, seed);
        const file = fill(name, bytes);
        host.copy(name, `${name} copy`);
        const first = placeAll(drafts, bytes);
        runBatch(file, first.steps);
        checkFile(host.open(name), first.after);
        const copy = host.open(`${name} copy`);
        checkFile(copy, bytes);
        const second = placeAll(other.drafts, bytes);
        runBatch(copy, second.steps);
        checkFile(host.open(`${name} copy`), second.after);
        checkFile(host.open(name), first.after);
        const third = placeAll(other.drafts, first.after);
        runBatch(file, third.steps);
        checkFile(host.open(name), third.after);
        host.remove(name);
        checkFile(host.open(`${name} copy`), second.after);
        host.remove(`${name} copy`);
        for (const table of ['mdm-files', 'mdm-sectors', 'mdm-hashes', 'mdm-blocks']) assert.equal(entries(table), 0);
      }),
      { numRuns: Math.max(5, Math.floor(CASES * 0.0005)) },
    );
  });

  it('a file of two sectors costs two sector files, a copy none, a 4 KiB write a block', () => {
    const file = fill('a', noise(2 * S, 1));
    assert.equal(sectorFiles(), 2);
    host.copy('a', 'b');
    execute(file, [I('Write', [S + 4096, 4096])], [noise(4096, 2)]);
    assert.deepEqual([sectorFiles(), entries('mdm-blocks'), entries('mdm-sectors')], [2, 1, 3]);
    // The other file gets the same sector by its bytes: it is known already.
    const other = host.open('b');
    execute(other, [I('Write', [S + 4096, 4096])], [noise(4096, 2)]);
    assert.deepEqual([sectorFiles(), entries('mdm-blocks'), entries('mdm-sectors')], [2, 1, 2]);
    // A Copy of a whole sector makes it another reference.
    execute(other, [I('Truncate', [3 * S]), I('Copy', [S, 2 * S, 0])]);
    assert.deepEqual([sectorFiles(), entries('mdm-blocks'), entries('mdm-sectors')], [2, 1, 2]);
    checkFile(host.open('b'), Buffer.concat([bytesOf(file), bytesOf(file).subarray(0, S)]));
  });

  it('an append costs the new bytes; a full sector leaves the index', () => {
    const file = host.create('log');
    const data = noise(S + 9000, 3);
    for (let at = 0; at < data.length; at += 300_000) {
      const piece = data.subarray(at, at + 300_000);
      execute(file, [I('Truncate', [at + piece.length]), I('Write', [at, piece.length])], [undefined, piece]);
    }
    checkFile(host.open('log'), data);
    assert.deepEqual([sectorFiles(), entries('mdm-blocks')], [1, 3]);
  });

  it('ReadRoot reaches every full sector of its files and of the store, and none that is gone', async () => {
    const [image, mine, other] = [noise(S, 4), noise(S, 5), noise(2 * S + 10, 6)];
    await importAll(store, [image]);
    const file = fill('mine', mine);
    fill('other', other);
    execute(host.open('other'), [I('Write', [5, 3])], [Uint8Array.of(1, 2, 3)]);
    const read = (root: Uint8Array): Uint8Array => {
      const instructions = [I('ReadRoot', [root, 4000, 200], true)];
      const result = executeBatch(file, { initial: file.state, instructions }, [undefined]);
      if ('error' in result) throw result.error;
      assert.ok(result.outcome === 'committed');
      return result.steps[0]!.output;
    };
    const changed = Buffer.concat([other]);
    changed.set([1, 2, 3], 5);
    for (const sector of [image, mine, changed.subarray(0, S), other.subarray(S, 2 * S), new Uint8Array(S)]) {
      assert.ok(Buffer.from(read(bufferRoot(sector))).equals(Buffer.from(sector.subarray(4000, 4200))));
    }
    const gone = [bufferRoot(other.subarray(2 * S)), bufferRoot(noise(S, 9))];
    for (const root of gone)
      assert.throws(
        () => read(root),
        (e) => isPgError(e, 'MDM_SECTOR_NOT_FOUND'),
      );
    execute(file, [I('WriteRoot', [file.state.root, 0, 7, 1])], [Uint8Array.of(7)]);
    assert.throws(
      () => execute(file, [I('WriteRoot', [bufferRoot(mine), 0, 7, 1])], [Uint8Array.of(7)]),
      (e) => isPgError(e, 'MDM_SECTOR_CHANGED'),
    );
  });

  it('bytes that are an image sector cost nothing', async () => {
    const image = noise(S, 4);
    await importAll(store, [image]);
    const before = sectorFiles();
    checkFile(fill('a', image), image);
    assert.deepEqual([sectorFiles(), entries('mdm-blocks')], [before, 0]);
  });

  it('the collector takes no sector of a file, and those that none has', async () => {
    const file = fill('a', noise(3 * S, 7));
    const nothing = (): [] => [];
    assert.equal((await store.collect(nothing)).sectors, 0);
    execute(file, [I('Truncate', [S])]);
    execute(file, [I('Write', [9, 1])], [Uint8Array.of(1)]);
    assert.equal((await store.collect(nothing)).sectors, 2);
    assert.deepEqual((await store.verify()).problems, []);
    const expected = noise(3 * S, 7).subarray(0, S);
    expected[9] = 1;
    checkFile(host.open('a'), expected);
    host.remove('a');
    assert.equal((await store.collect(nothing)).sectors, 1);
    assert.equal(sectorFiles(), 0);
  });

  it('pg verify finds a block, a hash and a base that are not as they were written', async () => {
    fill('a', noise(S + 9000, 7));
    assert.deepEqual((await store.verify()).problems, []);
    for (const table of ['mdm-blocks', 'mdm-hashes'] as const) {
      const entry = [...store.table(table).range()].at(-1)!;
      const wrong = Buffer.from(entry.value);
      wrong[0]! ^= 1;
      store.table(table).put(entry.key, wrong);
      assert.equal((await store.verify()).problems.length, 1, table);
      store.table(table).put(entry.key, entry.value);
    }
    const name = bufferRoot(noise(S + 9000, 7).subarray(0, S));
    rmSync(store.sectorPath(name));
    assert.equal((await here.open().verify()).problems.length, 2, 'the sector, and what stands on it');
  });

  it('two that have the same file open: the second to commit is refused, and nothing is changed', () => {
    const one = fill('a', noise(9000, 8));
    const two = host.open('a');
    execute(one, [I('Write', [0, 1])], [Uint8Array.of(1)]);
    assert.throws(
      () => execute(two, [I('Write', [5000, 1])], [Uint8Array.of(2)]),
      (e) => isPgError(e, 'MDM_WRONG_STATE'),
    );
    const expected = noise(9000, 8);
    expected[0] = 1;
    checkFile(host.open('a'), expected);
    const read = I('Read', [0, 9]);
    const late = executeBatch(two, { initial: two.state, instructions: [read] }, [undefined]);
    assert.ok(late.outcome === 'failed' && late.error.code === 'MDM_WRONG_STATE', 'nor does it read what is new');
  });

  it('cuts at any byte and grows again: what was cut off is zero', () => {
    const data = noise(S + 3 * 4096 + 11, 9);
    const file = fill('a', data);
    let bytes = data;
    for (const size of [S + 4096, S + 9000, 2 * S + 5, S - 4096, S, 5, 3 * S, 0, 100]) {
      execute(file, [I('Truncate', [size])]);
      const next = Buffer.alloc(size);
      next.set(bytes.subarray(0, size));
      bytes = next;
      checkFile(host.open('a'), bytes);
    }
    execute(file, [I('Truncate', [2 ** 48]), I('Write', [2 ** 47, 3])], [undefined, Uint8Array.of(1, 2, 3)]);
    assert.equal(host.open('a').state.size, 2 ** 48);
    execute(file, [I('Truncate', [7])]);
    checkFile(host.open('a'), new Uint8Array(7));
    assert.deepEqual([entries('mdm-sectors'), entries('mdm-blocks')], [1, 0]);
  });

  it('takes files of 2^48 bytes that are nearly all zeros, with proofs', () => {
    const file = host.create('huge');
    const step = (name: string, fields: number[], payload?: Uint8Array) => ({
      instruction: I(name, fields, true),
      payload,
      after: NOTHING,
      output: NOTHING,
      changes: true,
    });
    runBatch(file, [step('Truncate', [2 ** 48 - 1]), step('Write', [2 ** 47 + 12, 3], Uint8Array.of(1, 2, 3))]);
    runBatch(host.open('huge'), [step('Copy', [4096, 2 ** 40, 2 ** 47]), step('Swap', [100, 2 ** 48 - 101, 2 ** 47])]);
    runBatch(host.open('huge'), [step('Truncate', [2 ** 40 + 15]), step('Truncate', [2 ** 45 + 7])]);
    const bytes = new Uint8Array(100);
    host.open('huge').readAt(bytes, 2 ** 40);
    assert.deepEqual([...bytes.subarray(0, 20)], [...Array(12).fill(0), 1, 2, 3, 0, 0, 0, 0, 0]);
    assert.ok(entries('mdm-hashes') < 12, 'what is zero is not there');
    host.remove('huge');
    assert.equal(entries('mdm-hashes') + entries('mdm-sectors') + entries('mdm-blocks'), 0);
  });

  it('names are checked', () => {
    host.create('a');
    const cases: [() => unknown, string][] = [
      [() => host.create('a'), 'MDM_FILE_EXISTS'],
      [() => host.open('b'), 'MDM_NO_SUCH_FILE'],
      [() => host.remove('b'), 'MDM_NO_SUCH_FILE'],
      [() => host.copy('b', 'c'), 'MDM_NO_SUCH_FILE'],
      [() => host.copy('a', 'a'), 'MDM_FILE_EXISTS'],
      [() => host.create(''), 'MDM_BAD_FILE_NAME'],
      [() => host.create('x'.repeat(256)), 'MDM_BAD_FILE_NAME'],
      [() => host.create('a\nb'), 'MDM_BAD_FILE_NAME'],
    ];
    for (const [action, code] of cases) assert.throws(action, (e) => isPgError(e, code), code);
    assert.deepEqual(
      [...host.list()].map(({ name }) => name),
      ['a'],
    );
  });
});
