import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { type Exit, reap } from '../native.ts';

/** How soon to look again at a process that is not our child yet. */
const ADOPTION_MS = 10;
/** A child that is dead for this long is none of Node's: those it waits for as soon as its loop turns. */
const STRANGER_MS = 2000;

/**
 * Waits for processes that became our children by adoption (native.ts, becomeSubreaper); Node waits only for those it spawned itself. Those that
 * nobody asks for are reaped too: what an exec that failed leaves behind would keep the container's first process from ending (pid_namespaces(7)).
 */
export class Reaper {
  private readonly watched = new Map<number, (exit: Exit) => void>();
  private readonly onChild = (): void => {
    this.look();
    this.sweepLater();
  };
  private strangers: ReadonlySet<number> = new Set();
  private sweep: NodeJS.Timeout | undefined;

  constructor() {
    process.on('SIGCHLD', this.onChild);
  }

  /**
   * How the process ended, once it has. One that is still (or, ended, waits) in the hands of the runtime that made it becomes ours when
   * the runtime has ended. One that is gone without having been ours counts as ended by SIGKILL: its end was not seen.
   */
  exitOf(pid: number): Promise<Exit> {
    return new Promise((resolve) => {
      this.watched.set(pid, resolve);
      this.look();
    });
  }

  private look(): void {
    for (const [pid, resolve] of this.watched) {
      const exit = reap(pid);
      if (exit === undefined) continue;
      if (exit === null && existsSync(`/proc/${pid}`)) {
        setTimeout(() => this.look(), ADOPTION_MS);
        continue;
      }
      this.watched.delete(pid);
      resolve(exit ?? { code: 137, signal: 9 });
    }
  }

  private sweepLater(): void {
    this.sweep ??= setTimeout(() => {
      this.sweep = undefined;
      const dead = new Set(deadChildren().filter((pid) => !this.watched.has(pid)));
      for (const pid of dead) if (this.strangers.has(pid)) reap(pid);
      this.strangers = new Set([...dead].filter((pid) => !this.strangers.has(pid)));
      if (this.strangers.size > 0) this.sweepLater();
    }, STRANGER_MS).unref();
  }
}

/** Our children that have ended and are not waited for (proc(5): task/TID/children, and state Z in stat). */
function deadChildren(): number[] {
  const pids = readdirSync('/proc/self/task').flatMap((thread) => childrenOf(thread));
  return pids.filter((pid) => /^\d+ \(.*\) Z /s.test(read(`/proc/${pid}/stat`)));
}

const childrenOf = (thread: string): number[] =>
  read(`/proc/self/task/${thread}/children`).split(' ').filter(Boolean).map(Number);

/** Threads and processes may be gone meanwhile. */
function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
