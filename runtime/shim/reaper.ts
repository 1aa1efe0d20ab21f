import { existsSync } from 'node:fs';
import { type Exit, reap } from '../native.ts';

/** How soon to look again at a process that is not our child yet. */
const ADOPTION_MS = 10;

/**
 * Waits for processes that became our children by adoption (native.ts, becomeSubreaper). Node waits only for those it spawned itself.
 */
export class Reaper {
  private readonly watched = new Map<number, (exit: Exit) => void>();
  private readonly onChild = (): void => this.look();

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
        setTimeout(this.onChild, ADOPTION_MS);
        continue;
      }
      this.watched.delete(pid);
      resolve(exit ?? { code: 137, signal: 9 });
    }
  }
}
