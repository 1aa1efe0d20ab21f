import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { isPgError } from '../../mdm/error.ts';
import { openStore, type Store } from '../../store/store.ts';
import { importAll, noise, readAll } from './fixture.ts';

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
});
