import { closeSync, constants, openSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * A clone's log goes on where its parent's was: it shares the parent's bytes by hard links to the parent's files, `base-END`, each of which holds the bytes from
 * where the one before ends (from 0 on, the first) up to END, a multiple of 4 MiB. The clone's own file `log` has the same addresses; what its bases hold is a
 * hole in it. Whoever reads a log reads through `readFully`, which comes here to find the file.
 */
export interface BaseFile {
  name: string;
  /** Bytes of the log before this are in it, those before its predecessor's end excepted. */
  end: number;
}

interface OpenBase {
  end: number;
  fd: number;
}

/** The open files of the bases of logs, by the descriptor of the log's own file. Most logs have none. */
const openBases = new Map<number, readonly OpenBase[]>();

const NAME = /^base-(\d{1,16})$/;

/** The bases of the log in `dir`, in order. */
export function basesOf(dir: string): BaseFile[] {
  let names: string[];
  try {
    names = readdirSync(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names
    .flatMap((name) => {
      const end = Number(NAME.exec(name)?.[1]);
      return Number.isSafeInteger(end) ? [{ name, end }] : [];
    })
    .toSorted((a, b) => a.end - b.end);
}

/** Bytes of the log that are in other files than its own, `log`: 0 unless it is a clone's. */
export const baseBytes = (dir: string): number => basesOf(dir).at(-1)?.end ?? 0;

/** As `openSync` of the file `log` of a directory; what is read from it by `readFully` may lie in its bases. To be closed by `closeLog`. */
export function openWithBases(path: string, flags: number): number {
  const fd = openSync(path, flags, 0o600);
  const bases: OpenBase[] = [];
  try {
    const dir = dirname(path);
    for (const { name, end } of basesOf(dir)) bases.push({ end, fd: openSync(join(dir, name), constants.O_RDONLY) });
  } catch (error) {
    for (const base of bases) closeSync(base.fd);
    closeSync(fd);
    throw error;
  }
  if (bases.length > 0) openBases.set(fd, bases);
  else openBases.delete(fd);
  return fd;
}

/** Opens the log in `dir` for reading. */
export const openToRead = (dir: string): number => openWithBases(join(dir, 'log'), constants.O_RDONLY);

/** Closes what `openWithBases` or `openToRead` opened. */
export function closeLog(fd: number): void {
  for (const base of openBases.get(fd) ?? []) closeSync(base.fd);
  openBases.delete(fd);
  closeSync(fd);
}

/** The file that holds the byte at `offset` of the log open as `fd`, and where what it holds ends. */
export function fileAt(fd: number, offset: number): { fd: number; end: number } {
  if (openBases.size === 0) return { fd, end: Infinity };
  return openBases.get(fd)?.find(({ end }) => offset < end) ?? { fd, end: Infinity };
}
