import { statfsSync } from 'node:fs';
import type { Reclaimer } from './reclaim.ts';
import { reserveBlocks, isDiskFull, writeZeros } from './disk.ts';

/** Disk space kept for entries that free space, when there is none left for the others: the least, or this part of what the log takes, so that the cleaner can empty sectors. */
const LEAST_HEADROOM = 256 << 10;
const HEADROOM_PART = 1 / 16;
const MOST_HEADROOM = 8 << 20;

/** Space is reserved generously while the disk has so many times more. */
const PLENTY = 4;
/** Zeros are written ahead in pieces of this size. */
const ZEROS_AHEAD = 1 << 20;
/** Syncs that come within this of each other, of fewer bytes than this, are small ones in quick succession. */
const QUICK_MS = 100;
const SMALL_BYTES = 256 << 10;
/** So many of them and zeros are worth while. */
const SMALL_SYNCS = 8;

/** Space of the disk that is the log's before it is needed: reserved, or even written with zeros (docs/decisions/0020-log-writes.md). */
export class LogSpace {
  readonly #fd: number;
  /** Space that is the file's already ends here. */
  #reserved: number;
  /** Up to here the file holds written zeros (or entries). */
  #zeroed = 0;
  #smallSyncs = 0;
  #lastSyncAt = 0;

  readonly #reclaimer: Reclaimer;

  /** Of the log open as `fd`, which ends at `size`, and of which this knows what was given back. */
  constructor(fd: number, size: number, reclaimer: Reclaimer) {
    this.#fd = fd;
    this.#reclaimer = reclaimer;
    this.#reserved = size;
  }

  get reserved(): number {
    return this.#reserved;
  }

  /** What is kept of the disk by a log of `size` bytes. */
  headroom(size: number): number {
    return Math.max(LEAST_HEADROOM, Math.min(MOST_HEADROOM, Math.floor(this.#present(size) * HEADROOM_PART)));
  }

  /** What a log of `size` bytes takes of the disk. */
  #present(size: number): number {
    return size - this.#reclaimer.absentBytes();
  }

  /** Bytes that can be appended to a log of `size` bytes by entries that free space, whatever others do with the disk. */
  spareBehind(size: number): number {
    return Math.max(0, this.#reserved - size);
  }

  /** The file holds entries up to `end`. */
  written(end: number): void {
    this.#reserved = Math.max(this.#reserved, end);
    if (this.#smallSyncs >= SMALL_SYNCS && this.#zeroed < end + ZEROS_AHEAD / 16) this.#zeroAhead(end);
  }

  /** An fdatasync covered so many bytes more than the one before. */
  synced(bytes: number): void {
    const now = performance.now();
    const isSmall = now - this.#lastSyncAt < QUICK_MS && bytes < SMALL_BYTES;
    this.#smallSyncs = isSmall ? this.#smallSyncs + 1 : 0;
    this.#lastSyncAt = now;
  }

  /** Reserves everything up to `target`, generously if there is space; the file ends at `end` now. Returns the error when it cannot. */
  reserve(target: number, end: number): unknown {
    if (target <= this.#reserved) return undefined;
    const generous = Math.min(64 << 20, Math.max(1 << 20, this.#present(end) / 8));
    const free = this.#free();
    for (const ahead of free > PLENTY * generous ? [generous, 0] : [0]) {
      const to = Math.ceil((target + ahead) / 4096) * 4096;
      // A fallocate(2) that fails may keep what it got: on a full disk nothing would be left for anybody else, a checkpoint that lets the cleaner give back for one.
      if (to - this.#reserved > free) return noSpace();
      try {
        reserveBlocks(this.#fd, this.#reserved, to - this.#reserved);
        this.#reserved = to;
        return undefined;
      } catch (error) {
        if (ahead === 0 || !isDiskFull(error)) return error;
      }
    }
    return undefined;
  }

  /** Bytes that anybody may still take of the disk. */
  #free(): number {
    const { bavail, bsize } = statfsSync(`/proc/self/fd/${this.#fd}`);
    return bavail * bsize;
  }

  /** Small syncs in quick succession: with zeros written ahead each is a plain overwrite, and its fdatasync needs no journal commit of the disk below. */
  #zeroAhead(end: number): void {
    const from = Math.max(this.#zeroed, end);
    if (this.reserve(from + ZEROS_AHEAD, end) !== undefined) return;
    try {
      writeZeros(this.#fd, from, ZEROS_AHEAD);
      this.#zeroed = from + ZEROS_AHEAD;
    } catch {
      this.#smallSyncs = -Infinity;
    }
  }
}

const noSpace = (): Error => Object.assign(new Error('ENOSPC: no space left on device, fallocate'), { code: 'ENOSPC' });
