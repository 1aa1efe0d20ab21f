import { createRequire } from 'node:module';

const POSIX_FADV_WILLNEED = 3; // bits/fcntl-linux.h

type Advise = (fd: number, offset: number, length: number, advice: number) => number;
let advise: Advise | undefined;

/**
 * posix_fadvise(2) WILLNEED: the kernel begins to read these bytes of a file into its cache; returns at once, and
 * whatever goes wrong does not matter.
 */
export function adviseWillNeed(fd: number, offset: number, length: number): void {
  // Loaded when first needed: most commands never read a large content.
  advise ??= createRequire(import.meta.url)('koffi')
    .load('libc.so.6')
    .func('int posix_fadvise(int, int64, int64, int)') as Advise;
  advise(fd, offset, length, POSIX_FADV_WILLNEED);
}
