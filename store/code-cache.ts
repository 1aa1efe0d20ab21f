import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Where Node keeps compiled code of pg's programs between their starts. It is run without being looked at, so it lies where nobody else can put any: Node's own choice would be below /tmp, which is everybody's.
 * Whoever sets NODE_COMPILE_CACHE has chosen for himself. `uid`: whose process it is.
 */
export function codeCacheDir(env: NodeJS.ProcessEnv, uid: number): string {
  if (env['NODE_COMPILE_CACHE']) return env['NODE_COMPILE_CACHE'];
  if (uid === 0) return '/var/cache/pg/code';
  return join(env['XDG_CACHE_HOME'] || join(env['HOME'] || '/nonexistent', '.cache'), 'pg/code');
}

/** Makes the directory, if it is not there: nobody else's whatever the umask is, which is what Node would go by. Without one, code is compiled every time. */
export function makeCodeCache(dir: string): string {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  } catch {
    // A disk that is full or read-only.
  }
  return dir;
}

/** The environment of a process of pg's that is to keep its compiled code. */
export const withCodeCache = (env: NodeJS.ProcessEnv): NodeJS.ProcessEnv => ({
  ...env,
  NODE_COMPILE_CACHE: makeCodeCache(codeCacheDir(env, process.getuid?.() ?? 0)),
});
