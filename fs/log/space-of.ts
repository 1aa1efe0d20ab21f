import { existsSync, fstatSync } from 'node:fs';
import { join } from 'node:path';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { closeLog, openToRead } from './bases.ts';
import { CHECKPOINT } from './checkpoints.ts';
import { readHeader } from './header.ts';
import { neededSectors } from './needed.ts';
import { CHECKPOINT_MAGIC, readMarkHeader } from './sidecar.ts';

/**
 * How much of the log in `dir` its files need: what they needed at the last checkpoint, and everything written since. Undefined when there is no log. It may be written
 * meanwhile.
 */
export function logSpace(dir: string): { liveBytes: number } | undefined {
  if (!existsSync(join(dir, 'log'))) return undefined;
  const fd = openToRead(dir);
  try {
    const { salt } = readHeader(fd, join(dir, 'log'));
    const path = join(dir, CHECKPOINT);
    const mark = readMarkHeader(path, CHECKPOINT_MAGIC, salt);
    const { size } = fstatSync(fd);
    const sectors = mark === undefined ? undefined : neededSectors(path, salt);
    if (mark === undefined || sectors === undefined) return { liveBytes: size };
    const needed = sectors.reduce((sum, { bytes }) => sum + Math.min(bytes, SECTOR_BYTES), 0);
    return { liveBytes: needed + Math.max(0, size - mark.size) };
  } finally {
    closeLog(fd);
  }
}
