import { closeSync, constants, fstatSync, openSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { syncDirectory } from './disk.ts';

/** `shared-END`: an empty file that says that a clone shares the log's bytes up to END. */
const NAME = /^shared-(\d{1,16})$/;

/** Says, durably, that a clone shares the first `end` bytes of the log in `dir`: after its link was made, and before it is looked at what was given back. */
export function noteShared(dir: string, end: number): void {
  closeSync(openSync(join(dir, `shared-${end}`), constants.O_WRONLY | constants.O_CREAT, 0o600));
  syncDirectory(dir);
}

/**
 * Up to where others may need the bytes of the log in `dir`, open as `fd`: 0 while its file has one link; everything when it has more and nothing is noted (by an older
 * program, or not yet). What clones that are gone once noted counts as long as there are others.
 */
export function sharedEnd(dir: string, fd: number): number {
  if (fstatSync(fd).nlink === 1) return 0;
  const ends = notesIn(dir).map(({ end }) => end);
  return ends.length === 0 ? Infinity : Math.max(...ends);
}

/** Removes what clones noted, once there are none. */
export function forgetShared(dir: string, fd: number): void {
  if (fstatSync(fd).nlink === 1) for (const { name } of notesIn(dir)) rmSync(join(dir, name), { force: true });
}

function notesIn(dir: string): { name: string; end: number }[] {
  return readdirSync(dir).flatMap((name) => {
    const end = NAME.exec(name)?.[1];
    return end === undefined ? [] : [{ name, end: Number(end) }];
  });
}
