import { constants, fstatSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { SECTOR_BYTES, sectorRoot } from '../../mdm/merkle.ts';
import { closeLog, openWithBases } from './bases.ts';
import { Entry, MAX_PAYLOAD } from './entry.ts';
import { readFully } from './disk.ts';
import { readHeader } from './header.ts';
import { oldestMark, placeOf } from './oldest.ts';
import { RootsFile, type SectorRoot, sectorOf } from './roots.ts';
import { Scanner } from './scanner.ts';
import { CHECKPOINT_MAGIC, HASH_MAGIC, readMark } from './sidecar.ts';

/** No entry is longer: where less than this is left of a log that was cut, it was cut in an entry. */
const MAX_ENTRY_BYTES = MAX_PAYLOAD + (1 << 16);

/** What is not as it was written in a log. */
export interface LogDamage {
  /** Payloads whose checksums do not fit: reading these bytes of files fails. */
  payloads: number;
  /** Sectors from before what can be read entry by entry, whose bytes do not have the root that is kept of them. */
  sectors: number;
  /** Bytes that had been safe on disk and are missing from its end. */
  missingBytes: number;
}

/** The damage in words; undefined when there is none. */
export function describeDamage({ payloads, sectors, missingBytes }: LogDamage): string | undefined {
  const words = [
    payloads === 0 ? [] : [`${payloads} of its payloads are damaged: reading what they hold fails`],
    sectors === 0 ? [] : [`${sectors} of its sectors are not what was written: reading what they hold may fail`],
    missingBytes === 0 ? [] : [`${missingBytes} bytes that had been safe on disk are missing from its end`],
  ].flat();
  return words.length === 0 ? undefined : words.join('; ');
}

/** Of a cleaned log entries start somewhere in the middle; what is before that is compared sector by sector. */
function damagedSectors(fd: number, kept: readonly SectorRoot[]): number {
  const bytes = Buffer.allocUnsafe(SECTOR_BYTES);
  let damaged = 0;
  for (const [sector, { root, isGone }] of kept.entries()) {
    if (isGone) continue;
    const got = readFully(fd, bytes, 0, SECTOR_BYTES, sector * SECTOR_BYTES);
    if (got < SECTOR_BYTES || Buffer.compare(sectorRoot(bytes), root) !== 0) damaged++;
  }
  return damaged;
}

/** The largest size at which something was noted of this log in the files beside it: so much of it had been durable. */
export function markedSize(dir: string, salt: number): number {
  const marks = [
    readMark(join(dir, 'hash'), HASH_MAGIC, salt),
    readMark(join(dir, 'checkpoint'), CHECKPOINT_MAGIC, salt),
  ];
  return Math.max(0, ...marks.map((mark) => mark?.size ?? 0));
}

/**
 * Reads a log and checks every checksum. `size` is where it ended when it was last committed; only one that is not being written may be found to have
 * been longer. What follows is a torn tail, which the next mount cuts. PgError LOG_CORRUPT when a damaged head makes the rest unreadable, LOG_VERSION.
 */
export function verifyLog(dir: string, size: number, isWritten: boolean): LogDamage & { bytes: number } {
  const path = join(dir, 'log');
  const fd = openWithBases(path, constants.O_RDONLY);
  try {
    const { salt } = readHeader(fd, path);
    const known = isWritten ? size : Math.max(size, markedSize(dir, salt));
    const end = Math.min(known, fstatSync(fd).size);
    const roots = new RootsFile(dir, salt);
    const kept = roots.all();
    roots.close();
    const mark = oldestMark(dir, fd, salt, kept);
    const from = placeOf(mark);
    const scanner = new Scanner(fd, salt, from.size, from.sequence, end, 'report');
    const entry = new Entry();
    let payloads = 0;
    while (scanner.at < end) {
      const step = scanner.next(entry);
      if (step === 'entry') payloads += scanner.payloadWhole ? 0 : 1;
      else if (end === known || scanner.at + MAX_ENTRY_BYTES < end)
        throw new PgError('LOG_CORRUPT', `${path} is damaged at byte ${scanner.at}`);
      else break;
    }
    const sectors = mark === undefined ? 0 : damagedSectors(fd, kept.slice(0, sectorOf(mark.size)));
    return { bytes: scanner.at, payloads, sectors, missingBytes: known - Math.min(known, scanner.at) };
  } finally {
    closeLog(fd);
  }
}
