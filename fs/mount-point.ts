import { readFileSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { detachPath } from './fuse/device.ts';

/** What the kernel reads ahead of a sequential reader. */
const READ_AHEAD_KIB = 1024;
/**
 * What it holds dirty of a mount at most, where that is less than of any disk; from half of it on it writes back. A writer of much then has the server work beside it, not only
 * when it asks for durability.
 */
const MOST_DIRTY_BYTES = 192 << 20;

/** Whether this is what a mount answers that has lost its server; ECONNABORTED when it did so while it was asked. */
export const isOfDeadMount = (error: unknown): boolean =>
  ['ENOTCONN', 'ECONNABORTED'].includes((error as NodeJS.ErrnoException).code ?? '');

/** The mount point must be a directory; a dead mount on it is detached, a live one of ours is refused. */
export function clearMountPoint(mountPoint: string): void {
  for (let dead = 0; ; dead++) {
    try {
      // A dead FUSE mount answers stat(2) out of the kernel's cache, statfs(2) it does not.
      statfsSync(mountPoint);
      const at = statSync(mountPoint);
      if (!at.isDirectory()) throw new PgError('MOUNT_POINT', `${mountPoint} is not a directory`);
      if (at.dev !== statSync(dirname(mountPoint)).dev && isOurs(mountPoint)) {
        throw new PgError('MOUNT_POINT', `something of pg is mounted on ${mountPoint} already`, {
          hint: `pg umount ${mountPoint}`,
        });
      }
      return;
    } catch (error) {
      if (isOfDeadMount(error) && dead < 8) {
        detachPath(mountPoint);
        continue;
      }
      if (error instanceof PgError) throw error;
      throw new PgError('MOUNT_POINT', `cannot mount on ${mountPoint}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/** Whether the mount on top of this path is a filesystem of pg (proc(5), mountinfo: field 5 is the mount point, the type follows ` - `). */
function isOurs(mountPoint: string): boolean {
  const path = mountPoint.replaceAll(/[\\ \t\n]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').split('\n');
  const last = lines.findLast((line) => line.split(' ')[4] === path);
  return last !== undefined && last.includes(' - fuse.pg ');
}

/**
 * Lets the kernel read further ahead, and hold more dirty pages for this mount than the hundredth of what it allows in all (Linux before 6.2: as many as for any disk).
 * Best effort: sysfs may be read-only. Never waits for the mount in the calling thread, which may have to start its next server.
 */
export async function tuneDevice(mountPoint: string): Promise<void> {
  try {
    const { dev } = await stat(mountPoint);
    const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
    const bdi = `/sys/class/bdi/${(dev >>> 8) & 0xfff}:${minor}`;
    writeFileSync(`${bdi}/read_ahead_kb`, String(READ_AHEAD_KIB));
    writeFileSync(`${bdi}/strict_limit`, '0');
    writeFileSync(`${bdi}/max_ratio`, '100');
    // Refused when the machine allows less than that in all.
    writeFileSync(`${bdi}/max_bytes`, String(MOST_DIRTY_BYTES));
    writeFileSync(`${bdi}/strict_limit`, '1');
  } catch {
    // Slower, not wrong.
  }
}
