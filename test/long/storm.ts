import { closeSync, mkdirSync, openSync, renameSync, rmSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';

/** A program that makes, changes, renames and removes files below argv[2] as fast as it can, and syncs nothing. It says `begun`, and ends with its filesystem. */
const base = process.argv[2]!;
const bytes = Buffer.alloc(1 << 20, 'storm');
try {
  rmSync(base, { recursive: true, force: true });
  mkdirSync(base, { recursive: true });
  writeSync(1, 'begun\n');
  for (let i = 0; ; i++) {
    const path = join(base, `name${i}`);
    const fd = openSync(path, 'w');
    if (i % 4 === 0) writeSync(fd, bytes, 0, (i * 7919) % 20_000);
    if (i % 256 === 0) for (let at = 0; at < 16; at++) writeSync(fd, bytes);
    closeSync(fd);
    renameSync(path, join(base, `other${i}`));
    if (i > 500) unlinkSync(join(base, `other${i - 500}`));
  }
} catch {
  // The filesystem is gone: that is its end.
}
