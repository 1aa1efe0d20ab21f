import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codeCacheDir, makeCodeCache } from '../../store/code-cache.ts';

describe('store: where compiled code is kept', () => {
  it("is a place of root's, or of the user's own, and never one that is everybody's", () => {
    const cases: [NodeJS.ProcessEnv, number, string][] = [
      [{}, 0, '/var/cache/pg/code'],
      // sudo may leave a user's.
      [{ HOME: '/home/u', XDG_CACHE_HOME: '/home/u/c', TMPDIR: '/tmp' }, 0, '/var/cache/pg/code'],
      [{ HOME: '/home/u', TMPDIR: '/tmp' }, 1000, '/home/u/.cache/pg/code'],
      [{ HOME: '/home/u', XDG_CACHE_HOME: '/c' }, 1000, '/c/pg/code'],
      [{}, 1000, '/nonexistent/.cache/pg/code'],
      [{ NODE_COMPILE_CACHE: '/mine' }, 0, '/mine'],
    ];
    for (const [env, uid, dir] of cases) assert.equal(codeCacheDir(env, uid), dir);
  });

  it('is made for nobody else, whatever the umask; where it cannot be made that is no error', () => {
    const above = mkdtempSync(join(tmpdir(), 'pg-test-'));
    const umask = process.umask(0);
    try {
      for (const path of [makeCodeCache(join(above, 'pg/code')), join(above, 'pg')])
        assert.equal(statSync(path).mode & 0o777, 0o700);
      assert.equal(makeCodeCache('/dev/null/code'), '/dev/null/code');
    } finally {
      process.umask(umask);
      rmSync(above, { recursive: true });
    }
  });
});
