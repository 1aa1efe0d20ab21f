import assert from 'node:assert/strict';
import { codeCacheDir } from '../../store/code-cache.ts';

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
});
