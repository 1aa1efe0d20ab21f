import { closeSync, fstatSync, ftruncateSync, openSync, renameSync, rmSync, statfsSync } from 'node:fs';
import { join } from 'node:path';
import { NEW_CHECKPOINT } from './checkpoints.ts';
import { isDiskFull, reserveBlocks } from './disk.ts';

const ROOM = 'checkpoint.room';
/** Its size is a multiple of this. */
const STEP = 128 << 10;
/** What is left to others. */
const LEFT_BYTES = 8192;

/**
 * Reserves space of the disk for a checkpoint of so many bytes in the log's directory `dir`, in a file of its own: with no byte left, what was removed could be given back only once a
 * checkpoint says that it is not needed any more. Returns how much there is now: less on a disk that is full already.
 */
export function keepRoom(dir: string, bytes: number): number {
  const want = Math.ceil(bytes / STEP) * STEP;
  const fd = openSync(join(dir, ROOM), 'a', 0o600);
  try {
    const { size } = fstatSync(fd);
    if (size > 2 * want) ftruncateSync(fd, want);
    // A fallocate(2) that fails may keep what it got, and a part is of use, too.
    const { bavail, bsize } = statfsSync(dir);
    const more = Math.min(want - size, bavail * bsize - LEFT_BYTES);
    if (more > 0) reserveBlocks(fd, size, more);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
  }
  try {
    return fstatSync(fd).size;
  } finally {
    closeSync(fd);
  }
}

/** Makes the room the file of a checkpoint in the making; false when there is none. */
export function takeRoom(dir: string): boolean {
  try {
    renameSync(join(dir, ROOM), join(dir, NEW_CHECKPOINT));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** Gives the room up. */
export function removeRoom(dir: string): void {
  rmSync(join(dir, ROOM), { force: true });
}
