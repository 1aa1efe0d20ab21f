import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { executeBatch } from '../../mdm/batch.ts';
import { isPgError } from '../../mdm/error.ts';
import { makeInstruction } from '../../mdm/instruction.ts';
import { Host } from '../../store/host/host.ts';
import { PlainFile } from '../../store/host/plain-file.ts';
import { openStore, type Store } from '../../store/store.ts';
import { importAll, noise, readAll } from './fixture.ts';
import { checkFile, fillFile } from './host/model.ts';

describe('store: a full disk', () => {
  let dir = '';
  let store: Store | undefined;

  beforeEach(function () {
    if (process.getuid?.() !== 0) {
      console.error('skipped: a small file system can only be mounted by root');
      this.skip();
    }
    dir = mkdtempSync('/var/tmp/pg-test-');
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'pg-test', dir]);
    store = openStore({ data: dir, run: `${dir}/run`, config: `${dir}/etc` });
  });
  afterEach(async () => {
    if (dir === '') return;
    await store?.close();
    execFileSync('umount', [dir]);
    rmdirSync(dir);
    dir = '';
  });

  it('fails an import with DISK_FULL and leaves the store as it was', async () => {
    const bytes = noise(3_000_000, 1);
    const [ref] = await importAll(store!, [bytes]);
    const large = noise(40_000_000, 2);
    const parts = Array.from({ length: 400 }, (_, i) => large.subarray(i * 100_000, (i + 1) * 100_000));
    for (const contents of [[large], parts]) {
      await assert.rejects(importAll(store!, contents), (error) => isPgError(error, 'DISK_FULL'));
      assert.ok(readAll(store!, ref!).equals(bytes));
      assert.deepEqual((await store!.verify()).problems, []);
      const result = await store!.collect(() => [{ kind: 'content', ref: ref! }]);
      assert.deepEqual(result.waitingFor, [], 'the failed import holds no lease');
      assert.ok(result.bytes > 4_000_000, 'its space comes back');
    }
    const [again] = await importAll(store!, [noise(8_000_000, 3)]);
    assert.ok(readAll(store!, again!).equals(noise(8_000_000, 3)));
  });

  it('fails a transaction with DISK_FULL and undoes it', () => {
    const table = store!.table('images');
    table.put('before', Buffer.from('1'));
    const fill = (): void => {
      for (let i = 0; i < 40; i++) table.put(`k${i}`, Buffer.alloc(1 << 20, i + 1));
    };
    assert.throws(
      () => store!.transaction(fill),
      (error) => isPgError(error, 'DISK_FULL'),
    );
    assert.deepEqual([...table.keys()].map(String), ['before']);
    table.put('after', Buffer.from('2'));
    assert.equal(table.get('after')?.toString(), '2');
  });

  it('fails a batch of a machine file with DISK_FULL, and the file is as it was', async () => {
    const before = noise(5_000_000, 1);
    const file = new Host(store!).create('f');
    fillFile(file, before);
    const plain = `${dir}/plain`;
    writeFileSync(plain, noise(3_000_000, 2));
    const large = noise(30_000_000, 3);
    const instructions = [makeInstruction('Truncate', [large.length]), makeInstruction('Write', [0, large.length])];
    const ordinary = await PlainFile.open(plain);
    for (const one of [file, ordinary]) {
      const { state } = one;
      const result = executeBatch(one, { initial: state, instructions }, [undefined, large]);
      assert.ok(result.outcome === 'failed' && result.error.code === 'DISK_FULL');
      assert.deepEqual([result.final, one.state], [state, state]);
    }
    ordinary.close();
    assert.ok(readFileSync(plain).equals(noise(3_000_000, 2)));
    assert.deepEqual(
      readdirSync(dir).filter((name) => name.startsWith('.')),
      [],
    );
    checkFile(new Host(store!).open('f'), before);
    assert.ok((await store!.collect(() => [])).bytes > 4_000_000, 'what was written for nothing comes back');
    executeBatch(file, { initial: file.state, instructions: [makeInstruction('Truncate', [5])] }, [undefined]);
    checkFile(new Host(store!).open('f'), before.subarray(0, 5));
  });
});
