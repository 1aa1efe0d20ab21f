import { closeSync, fstatSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { flock, LOCK_EX, LOCK_NB } from './native.ts';

/** Held until released or until the process ends, however it ends: flock(2) on a file that is never removed while locked. */
export interface Lock {
  release(): void;
}

/** Takes the lock, or undefined when another process (or another lock of this one) has it. ENOENT when the file's directory is gone. */
export function tryLock(path: string): Lock | undefined {
  for (;;) {
    const fd = openSync(path, 'a', 0o600);
    if (!flock(fd, LOCK_EX | LOCK_NB)) {
      closeSync(fd);
      return undefined;
    }
    // The container may have been removed between open and flock: then this lock is of a file that nobody else will see.
    if (fstatSync(fd).nlink > 0) return { release: () => closeSync(fd) };
    closeSync(fd);
  }
}

/** Takes the lock, waiting up to `timeoutMs` for it; undefined when that was not enough. */
export async function waitLock(path: string, timeoutMs: number): Promise<Lock | undefined> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const lock = tryLock(path);
    if (lock !== undefined) return lock;
    if (performance.now() > deadline) return undefined;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Takes a lock that is only ever held for moments, making its directory. */
export async function briefLock(path: string): Promise<Lock> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const lock = await waitLock(path, 30_000);
  if (lock === undefined) throw new Error(`${path} has been locked for 30 s`);
  return lock;
}
