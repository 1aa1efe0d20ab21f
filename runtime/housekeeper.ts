import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PgError } from '../mdm/error.ts';
import { indexDir, type Roots } from '../store/paths.ts';
import { openStore } from '../store/store.ts';
import { siblingModule } from '../store/threads.ts';
import { type Lock, tryLock, waitLock } from './lock.ts';
import { startTicksOf } from './migrate-state.ts';
import { readSettings } from './settings.ts';
import { tidy } from './tidy.ts';

/** How long it waits for more to come before it begins: commands come in rows. */
const GRACE_MS = 3000;
/** How long a command waits for it to stop: it finishes the batch at hand. */
const STOP_MS = 60_000;

const lockPath = (roots: Roots): string => join(roots.run, 'housekeeper.lock');
const pidPath = (roots: Roots): string => join(roots.run, 'housekeeper.pid');
const wantedPath = (roots: Roots): string => join(roots.run, 'housekeeper.wanted');

/**
 * Has the store tidied up in the background, by a process of the lowest priority that ends when it is done. Called by commands that bring or remove something. Does nothing
 * where the settings, or PG_HOUSEKEEPING=off in the environment, say so. What goes wrong there is no concern of the command.
 */
export async function wakeHousekeeper(roots: Roots): Promise<void> {
  if (process.env['PG_HOUSEKEEPING'] === 'off') return;
  const { housekeeping } = await readSettings(roots);
  if (!housekeeping) return;
  mkdirSync(roots.run, { recursive: true, mode: 0o711 });
  writeFileSync(wantedPath(roots), '');
  const program = fileURLToPath(siblingModule(import.meta.url, './housekeeper-process'));
  const child = spawn(process.execPath, ['--no-warnings', program, JSON.stringify(roots)], {
    stdio: 'ignore',
    detached: true,
    cwd: '/',
  });
  child.on('error', () => undefined);
  child.unref();
}

/** The housekeeper's life. It ends at once if there is one already. */
export async function keepHouse(roots: Roots, signal: AbortSignal): Promise<void> {
  const lock = lockOf(roots);
  if (lock === undefined) return;
  try {
    writeFileSync(pidPath(roots), `${process.pid} ${startTicksOf(process.pid) ?? ''}`);
    for (let seen = -1; seen !== wantedAt(roots) && !signal.aborted;) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, GRACE_MS);
        signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), { once: true });
      });
      seen = wantedAt(roots);
      if (!signal.aborted) await tidyOnce(roots, signal);
    }
  } finally {
    rmSync(pidPath(roots), { force: true });
    lock.release();
  }
}

/** The lock; undefined if another has it, or the installation has gone. */
function lockOf(roots: Roots): Lock | undefined {
  try {
    return tryLock(lockPath(roots));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

function wantedAt(roots: Roots): number {
  return statSync(wantedPath(roots), { throwIfNoEntry: false })?.mtimeMs ?? -1;
}

async function tidyOnce(roots: Roots, signal: AbortSignal): Promise<void> {
  // An installation that was removed meanwhile is not to be made again.
  if (statSync(indexDir(roots), { throwIfNoEntry: false }) === undefined) return;
  const { compress } = await readSettings(roots);
  const store = openStore(roots);
  try {
    await tidy(roots, store, compress === 'idle', 1, signal);
  } finally {
    await store.close();
  }
}

/** Has a housekeeper stop, and keeps others from beginning until the lock is released. BUSY if it does not stop. */
export async function relieveHousekeeper(roots: Roots): Promise<Lock> {
  mkdirSync(roots.run, { recursive: true, mode: 0o711 });
  const free = tryLock(lockPath(roots));
  if (free !== undefined) return free;
  stopRunning(roots);
  const lock = await waitLock(lockPath(roots), STOP_MS);
  if (lock !== undefined) return lock;
  throw new PgError('BUSY', 'another pg gc is at work, or the housekeeper does not stop', { hint: 'try again later' });
}

function stopRunning(roots: Roots): void {
  try {
    const [pid = 0, ticks = ''] = readFileSync(pidPath(roots), 'utf8').split(' ');
    if (startTicksOf(Number(pid)) === ticks) process.kill(Number(pid), 'SIGTERM');
  } catch {
    // it has just ended
  }
}
