import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH (fs/ext4/ext4.h): what has not reached the device never will. */
const CUT = `
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))
`;

/** A small ext4 of its own, on a loop device: a disk that can fill, and whose power can go. */
export class LoopDisk {
  readonly at: string;
  readonly #file: string;

  /** Made in `dir`, and mounted. */
  constructor(dir: string, sizeMiB: number) {
    this.at = join(dir, 'disk');
    this.#file = join(dir, 'disk.ext4');
    mkdirSync(this.at);
    writeFileSync(this.#file, '');
    truncateSync(this.#file, sizeMiB * 2 ** 20);
    execFileSync('mkfs.ext4', ['-q', '-m', '0', this.#file]);
    this.mount();
  }

  mount(): void {
    execFileSync('mount', ['-o', 'loop', this.#file, this.at]);
  }

  unmount(): void {
    execFileSync('umount', [this.at]);
  }

  /** The power goes: nothing more is written, not even what the journal has in memory. Whoever uses the disk gets EIO from now on. */
  cutPower(): void {
    execFileSync('python3', ['-c', CUT, this.at]);
  }

  /** The power comes again: the journal is replayed. Nobody may use the disk. */
  powerOn(): void {
    this.unmount();
    this.mount();
  }

  /** Bytes that are free. */
  get free(): number {
    const { bavail, bsize } = statfsSync(this.at);
    return bavail * bsize;
  }

  /** Writes zeros until no byte is free but about so many. */
  fill(but: number): void {
    const fd = openSync(join(this.at, 'filler'), 'w');
    closeSync(fd);
    // A fallocate(2) that fails for the last blocks keeps what it got.
    spawnSync('fallocate', ['-l', String(Math.max(4096, this.free - but)), join(this.at, 'filler')]);
  }
}
