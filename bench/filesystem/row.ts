import { join } from 'node:path';
import { run, seconds } from '../engines.ts';

/** One row of the table: what is measured, in a unit of which more is better. Runs on a mount with an empty writable layer; `prepare` is not timed. */
export interface Row {
  name: string;
  unit: string;
  prepare?(root: string): void;
  /** The mount is taken away after `prepare`, the caches are dropped, and it is mounted again. */
  cold?: boolean;
  /** Its result in `unit`. */
  measure(root: string): number;
}

/** How many of `amount` a second `work` does. */
export function perSecond(amount: number, work: () => void): number {
  return amount / seconds(work);
}

/** The directory of the rows' own data in a mount. */
export const bench = (root: string, path: string): string => join(root, 'bench', path);

/** Runs a shell script with the mount as its root directory. Returns what it printed. */
export const inside = (root: string, script: string, user = 'root'): string =>
  run('chroot', [`--userspec=${user}`, root, '/bin/sh', '-ec', script], {
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    HOME: '/root',
    LC_ALL: 'C',
  });
