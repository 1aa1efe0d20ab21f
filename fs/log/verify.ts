import { closeSync, constants, existsSync, fstatSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { SECTOR_BYTES, sectorRoot } from '../../mdm/merkle.ts';
import { closeLog, openWithBases } from './bases.ts';
import { Entry, MAX_PAYLOAD } from './entry.ts';
import { readFully } from './disk.ts';
import { readHeader } from './header.ts';
import { oldestMark, placeOf } from './oldest.ts';
import { ROOTS_HEADER_BYTES, ROOTS_RECORD_BYTES, RootsFile, type SectorRoot, sectorOf } from './roots.ts';
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

/** What reading a whole log has found. */
export interface LogReading extends LogDamage {
  bytes: number;
  /** Where the damaged payloads lie in the log; the first thousand. */
  places: { at: number; length: number }[];
  /** Sectors, from the first on, that have been compared with the roots that are kept of them. */
  rootsChecked: number;
}

const PLACES_MAX = 1000;

/** The damage in words; undefined when there is none. */
export function describeDamage({ payloads, sectors, missingBytes }: LogDamage): string | undefined {
  const words = [
    payloads === 0 ? [] : [`${payloads} of its payloads are damaged: reading what they hold fails`],
    sectors === 0 ? [] : [`${sectors} of its sectors are not what was written: reading what they hold may fail`],
    missingBytes === 0 ? [] : [`${missingBytes} bytes that had been safe on disk are missing from its end`],
  ].flat();
  return words.length === 0 ? undefined : words.join('; ');
}

/**
 * What of the log's first `size` bytes has rotted so that only reading it fails, in words: why their root may be another than it was. Undefined when checksums tell
 * of nothing, or of something worse. Reads the whole log.
 */
export function rotOf(dir: string, size: number): string | undefined {
  try {
    const { payloads, sectors } = verifyLog(dir, size, true);
    return describeDamage({ payloads, sectors, missingBytes: 0 });
  } catch (error) {
    if (error instanceof PgError) return undefined;
    throw error;
  }
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
export function verifyLog(dir: string, size: number, isWritten: boolean): LogReading {
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
    const places: LogReading['places'] = [];
    while (scanner.at < end) {
      const step = scanner.next(entry);
      if (step === 'entry') {
        if (scanner.payloadWhole) continue;
        payloads++;
        if (places.length < PLACES_MAX) places.push({ at: entry.payloadAt, length: entry.payloadBytes });
      } else if (end === known || scanner.at + MAX_ENTRY_BYTES < end)
        throw new PgError('LOG_CORRUPT', `${path} is damaged at byte ${scanner.at}`);
      else break;
    }
    const rootsChecked = mark === undefined ? 0 : sectorOf(mark.size);
    const sectors = damagedSectors(fd, kept.slice(0, rootsChecked));
    const missingBytes = known - Math.min(known, scanner.at);
    return { bytes: scanner.at, payloads, places, sectors, rootsChecked, missingBytes };
  } finally {
    closeLog(fd);
  }
}

/**
 * The side files of a log that are there and cannot be used, in words: damaged, or of another log. What they say is made anew from the log when it is
 * opened next. One that `isNeeded` must not be removed for that. PgError LOG_CORRUPT, LOG_VERSION.
 */
export function damagedSidecars(dir: string): { path: string; message: string; isNeeded: boolean }[] {
  const salt = logSalt(dir);
  return [
    ['checkpoint', CHECKPOINT_MAGIC, 'the next start replays the log from its beginning, or an older checkpoint'],
    ['checkpoint.1', CHECKPOINT_MAGIC, 'the newer checkpoint stands alone'],
    ['hash', HASH_MAGIC, 'the log is hashed anew from its beginning'],
  ]
    .flatMap(([name, magic, then]) => {
      const file = join(dir, name!);
      if (!existsSync(file) || readMark(file, magic!, salt) !== undefined) return [];
      return [{ path: file, message: `its ${name} is damaged: ${then}`, isNeeded: false }];
    })
    .concat(damagedRoots(dir, salt));
}

/** Of a cleaned log the other records alone say what was given back, and have the roots of that; the damaged ones are put again when their sectors are hashed. */
function damagedRoots(dir: string, salt: number): ReturnType<typeof damagedSidecars> {
  const path = join(dir, 'roots');
  const bytes = (statSync(path, { throwIfNoEntry: false })?.size ?? 0) - ROOTS_HEADER_BYTES;
  const written = Math.floor(bytes / ROOTS_RECORD_BYTES);
  const roots = new RootsFile(dir, salt);
  try {
    const kept = roots.all().length;
    if (kept >= written) return [];
    const records = Array.from({ length: written }, (_, sector) => roots.get(sector));
    const isNeeded = records.some((record) => record?.isGone === true);
    return [{ path, message: `its roots are damaged from sector ${kept} on: they are computed anew`, isNeeded }];
  } finally {
    roots.close();
  }
}

/** The number that a log is told from others by. LOG_CORRUPT, LOG_VERSION. */
export function logSalt(dir: string): number {
  const path = join(dir, 'log');
  const fd = openSync(path, 'r');
  try {
    return readHeader(fd, path).salt;
  } finally {
    closeSync(fd);
  }
}
