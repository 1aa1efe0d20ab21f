import { entriesAfter } from '../log/entries-after.ts';
import { Entry } from '../log/entry.ts';
import { type Log, openLog } from '../log/log.ts';
import { apply } from './apply.ts';
import { effectsOf } from './effects.ts';
import * as E from './entries.ts';
import type { State } from './state.ts';

/** What the kernel may remember of files that were changed without it. */
export interface Stale {
  inodes: number[];
  names: { dir: number; name: string }[];
}

/** Offsets of the inode numbers in the fields of each type (docs/formats/log.md). */
const INODES_AT: Readonly<Record<number, readonly number[]>> = {
  [E.WRITE]: [0],
  [E.SETATTR]: [0],
  [E.CREATE]: [0, 8],
  [E.LINK]: [0, 8],
  [E.UNLINK]: [0],
  [E.RENAME]: [0, 8, 16],
  [E.FALLOCATE]: [0],
  [E.COPY]: [0, 8],
  [E.SETXATTR]: [0],
  [E.REMOVEXATTR]: [0],
};

/**
 * Does to the files of `state`, over `log`, what the log in `dir` - a clone of it, which began at `from` bytes, where the next inode was to have the number `firstIno` -
 * has done since: as one batch, of which after a crash all is there or nothing. The caller has made sure that the two have not changed the same things. Inodes that the clone has made get numbers of their own here.
 * PgError LOG_FULL, LOG_BUDGET: nothing was done. LOG_FAILED.
 */
export function mergeClone(state: State, log: Log, dir: string, from: number, firstIno: number): Stale {
  const source = openLog(dir, { readOnly: true });
  try {
    const shift = state.nextIno - firstIno;
    const stale: Stale = { inodes: [], names: [] };
    const fields = new E.FieldReader();
    const ours = new Entry();
    ours.bytes = Buffer.alloc(1064);
    const bytes = ours.bytes;
    const entries = entriesAfter(source, from);
    log.beginBatch(source.written - from);
    try {
      for (const entry of entries) {
        if (entry.type === E.MOVE) continue;
        ours.bytes = bytes;
        const payload = translate(entry, ours, source, firstIno, shift);
        const { inodes, names } = effectsOf(state, ours, fields);
        stale.inodes.push(...inodes);
        stale.names.push(...names);
        log.append(ours, payload, false);
        apply(state, ours, fields);
      }
      log.endBatch();
    } catch (error) {
      // Half of it is in the state: nothing more is to be done on that. What is on the disk is cut at the next opening.
      throw log.fail(error);
    }
    for (const ino of state.orphans) if (ino >= firstIno + shift) state.drop(ino);
    return { inodes: [...new Set(stale.inodes)], names: stale.names };
  } finally {
    source.close();
  }
}

/** Makes `ours` the entry with this log's inode numbers; its payload. */
function translate(entry: Entry, ours: Entry, source: Log, firstIno: number, shift: number): Uint8Array | undefined {
  const length = entry.fieldsEnd - entry.fieldsStart;
  entry.bytes.copy(ours.bytes, 0, entry.fieldsStart, entry.fieldsEnd);
  ours.view = new DataView(ours.bytes.buffer, ours.bytes.byteOffset, ours.bytes.length);
  for (const at of INODES_AT[entry.type]!) {
    const ino = Number(ours.bytes.readBigUInt64LE(at));
    if (ino >= firstIno) ours.bytes.writeBigUInt64LE(BigInt(ino + shift), at);
  }
  const { type, flags, sec, nsec, payloadBytes } = entry;
  Object.assign(ours, { type, flags, sec, nsec, fieldsStart: 0, fieldsEnd: length, requestLow: 0, requestHigh: 0 });
  if (payloadBytes === 0) return undefined;
  if (entry.payloadStart >= 0) return entry.bytes.subarray(entry.payloadStart, entry.payloadStart + payloadBytes);
  const payload = Buffer.allocUnsafe(payloadBytes);
  source.readPayload(entry.payloadAt, payloadBytes, 0, payload, 0, payloadBytes);
  return payload;
}
