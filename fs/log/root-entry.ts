import { PgError } from '../../mdm/error.ts';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { Entry, getU64, putU64, timeNow, TYPE_ROOT } from './entry.ts';
import { entriesBetween, type Place } from './scanner.ts';

/** What a ROOT entry says (docs/formats/log.md): the root of the log's first `size` bytes, a whole number of sectors, which were durable then. */
export interface RecordedRoot {
  size: number;
  /** 32 bytes. */
  root: Uint8Array;
}

const FIELD_BYTES = 40;

/** The entry that says it, ready for `Log.append` but for its time. */
export function rootEntry({ size, root }: RecordedRoot): Entry {
  const bytes = Buffer.alloc(FIELD_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  putU64(view, 0, size);
  bytes.set(root, 8);
  return Object.assign(new Entry(), { type: TYPE_ROOT, bytes, view, fieldsStart: 0, fieldsEnd: bytes.length });
}

/** What the fields [start, end) of a ROOT entry at byte `at` say; undefined when it can be none. */
export function readRootEntry(
  bytes: Buffer,
  view: DataView,
  start: number,
  end: number,
  at: number,
): RecordedRoot | undefined {
  if (end - start !== FIELD_BYTES) return undefined;
  const size = getU64(view, start);
  if (size > at || size === 0 || size % SECTOR_BYTES !== 0) return undefined;
  return { size, root: Uint8Array.from(bytes.subarray(start + 8, start + FIELD_BYTES)) };
}

/** What the ROOT entry in hand says. PgError LOG_CORRUPT. */
export function recordedRoot(entry: Entry, path: string): RecordedRoot {
  const { bytes, view, fieldsStart, fieldsEnd, at } = entry;
  const recorded = readRootEntry(bytes, view, fieldsStart, fieldsEnd, at);
  if (recorded === undefined)
    throw new PgError('LOG_CORRUPT', `${path}: the root recorded at byte ${at} is of no size`);
  return recorded;
}

/** A root is recorded when so much is hashed more than was when the one before it was. */
const INTERVAL = 16 << 20;

/** Which roots a log's writer records, and when. */
export class RootRecorder {
  #hashed: RecordedRoot | undefined;
  #recordedSize = 0;

  /** What was hashed, and was durable then. */
  note(hashed: RecordedRoot): void {
    if (hashed.size > (this.#hashed?.size ?? 0)) this.#hashed = hashed;
  }

  /** A ROOT entry that is in the log already. PgError LOG_CORRUPT. */
  passed(entry: Entry, path: string): void {
    this.#recordedSize = Math.max(this.#recordedSize, recordedRoot(entry, path).size);
  }

  /** The entry to append now, if it is time for one. */
  due(): Entry | undefined {
    const hashed = this.#hashed;
    if (hashed === undefined || hashed.size < this.#recordedSize + INTERVAL) return undefined;
    this.#hashed = undefined;
    this.#recordedSize = hashed.size;
    return Object.assign(rootEntry(hashed), timeNow());
  }
}

/** So many entries are looked at in one go. */
const GO = 256;

/**
 * Every root recorded in [from, to) of the log open as `fd`; `from` and `to` are commits' ends. Undefined comes now and then between them, so that the
 * caller may do something else meanwhile. PgError LOG_CORRUPT.
 */
export function* recordedRoots(
  fd: number,
  salt: number,
  from: Place,
  to: number,
  path: string,
): Generator<RecordedRoot | undefined> {
  let count = 0;
  for (const entry of entriesBetween(fd, salt, from, to, path)) {
    if (entry.type === TYPE_ROOT) yield recordedRoot(entry, path);
    else if (++count % GO === 0) yield undefined;
  }
}
