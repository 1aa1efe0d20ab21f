import assert from 'node:assert/strict';
import {
  existsSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startTicksOf } from '../../fs/detached.ts';
import { damagedSidecars, describeDamage, verifyLog } from '../../fs/log/verify.ts';
import type { Roots } from '../../store/paths.ts';

/** The program that is built: it starts in a third of the time that its sources take. */
const BUILT = new URL('../../dist/fs/detached.js', import.meta.url).href;
const { startDetachedMount, stopDetachedMount } = (await import(BUILT)) as typeof import('../../fs/detached.ts');

/** The ways in which a mount loses its processes. `server`: its holder starts another, and nobody sees it. */
export type Kill = 'server' | 'holder' | 'server, holder' | 'holder, server';

/** A writable mount of the empty image that is killed and made again: `pg mount --rw`, as the command does it. */
export class KilledMount {
  readonly dir = mkdtempSync('/var/tmp/pg-long-');
  readonly at = join(this.dir, 'mnt');
  readonly logDir: string;
  /** How long each mount took, ms. */
  readonly mountMs: number[] = [];
  readonly #roots: Roots = { data: join(this.dir, 'data'), run: join(this.dir, 'run'), config: join(this.dir, 'etc') };

  /** The store is in its own directory, or in `storeDir`. */
  constructor(storeDir?: string) {
    this.logDir = join(storeDir ?? this.dir, 'log');
    mkdirSync(this.at);
    mkdirSync(this.logDir, { recursive: true });
  }

  async mount(): Promise<void> {
    const start = performance.now();
    await startDetachedMount({
      roots: this.#roots,
      treeRoot: null,
      logDir: this.logDir,
      mountPoint: this.at,
      label: 'long',
    });
    this.mountMs.push(performance.now() - start);
  }

  /** Mounts, and kills the process that is to hold the mount after so long, if it is not there before. */
  async mountAndKill(afterMs: number): Promise<void> {
    const mounting = this.mount().then(
      () => true,
      () => false,
    );
    await sleep(afterMs);
    for (const pid of childrenOf(process.pid)) {
      if (!commandOf(pid).includes('mount-daemon')) continue;
      const servers = childrenOf(pid);
      for (const each of [pid, ...servers]) kill(each);
      await Promise.all([pid, ...servers].map(gone));
    }
    if (await mounting) await this.#killHeld();
  }

  async #killHeld(): Promise<void> {
    if (this.holder !== undefined) await this.kill('server, holder');
  }

  /** Process that holds the mount; undefined when none does. */
  get holder(): number | undefined {
    const dir = join(this.#roots.run, 'mounts');
    const name = existsSync(dir) ? readdirSync(dir).find((entry) => entry.endsWith('.json')) : undefined;
    if (name === undefined) return undefined;
    const { pid, startTicks } = JSON.parse(readFileSync(join(dir, name), 'utf8')) as {
      pid: number;
      startTicks: string;
    };
    return startTicksOf(pid) === startTicks ? pid : undefined;
  }

  /** kill -9; returns when the processes have gone, the server of a holder that was killed alone by itself. */
  async kill(how: Kill): Promise<void> {
    const { holder } = this;
    assert.ok(holder !== undefined, 'nobody holds the mount');
    const servers = childrenOf(holder);
    for (const who of how.split(', ')) for (const pid of who === 'holder' ? [holder] : servers) kill(pid);
    await Promise.all(servers.map(gone));
    if (how !== 'server') await gone(holder);
  }

  /** Takes the mount away in order, and reads the whole log: every checksum, every root that was kept. */
  async verify(): Promise<void> {
    await stopDetachedMount(this.#roots, this.at);
    const fd = openSync(join(this.logDir, 'log'), 'r');
    const { size } = fstatSync(fd);
    closeSync(fd);
    assert.equal(describeDamage(verifyLog(this.logDir, size, false)), undefined);
    assert.deepEqual(damagedSidecars(this.logDir), []);
  }

  /** What the daemons and servers have said since the beginning. */
  messages(): string {
    const dir = join(this.#roots.run, 'mounts');
    return readdirSync(dir)
      .filter((name) => name.endsWith('.log'))
      .map((name) => readFileSync(join(dir, name), 'utf8'))
      .join('');
  }

  /** Ends what there is and removes all of it. */
  async remove(): Promise<void> {
    await stopDetachedMount(this.#roots, this.at).catch(() => undefined);
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Median, 99th percentile and longest of the mounts, in words. */
  mountTimes(): string {
    const sorted = this.mountMs.toSorted((a, b) => a - b);
    const at = (share: number): string =>
      sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!.toFixed(0);
    return `${sorted.length} mounts: median ${at(0.5)} ms, 99 % ${at(0.99)} ms, longest ${at(1)} ms`;
  }
}

/** Waits until the process is gone or nothing but an exit code. */
export async function gone(pid: number): Promise<void> {
  while (existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(textOf(`/proc/${pid}/status`))) await sleep(2);
}

/** kill -9 of a process that may be gone already. */
export function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export function childrenOf(pid: number): number[] {
  const tasks = existsSync(`/proc/${pid}/task`) ? readdirSync(`/proc/${pid}/task`) : [];
  return tasks.flatMap((task) =>
    textOf(`/proc/${pid}/task/${task}/children`)
      .split(' ')
      .filter((word) => word.trim() !== '')
      .map(Number),
  );
}

const commandOf = (pid: number): string => textOf(`/proc/${pid}/cmdline`);

/** A file of /proc, empty when its process has just gone. */
function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
