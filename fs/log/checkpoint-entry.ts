import { PgError } from '../../mdm/error.ts';
import { Entry, getU64, putU64, timeNow, TYPE_CHECKPOINT } from './entry.ts';

/** A checkpoint as a CHECKPOINT entry names it (docs/formats/log.md), so that the log's root vouches for it. */
export interface NamedCheckpoint {
  /** Log bytes whose state it holds. */
  size: number;
  /** Bytes of its payload, and their Merkle root (32 bytes). */
  bytes: number;
  root: Uint8Array;
}

const FIELD_BYTES = 48;

/** The entry that names it, with the time of now. */
export function checkpointEntry({ size, bytes: payloadBytes, root }: NamedCheckpoint): Entry {
  const bytes = Buffer.alloc(FIELD_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  putU64(view, 0, size);
  putU64(view, 8, payloadBytes);
  bytes.set(root, 16);
  const fields = { type: TYPE_CHECKPOINT, bytes, view, fieldsStart: 0, fieldsEnd: bytes.length };
  return Object.assign(new Entry(), fields, timeNow());
}

/** What the CHECKPOINT entry in hand names. PgError LOG_CORRUPT. */
export function namedCheckpoint(entry: Entry, path: string): NamedCheckpoint {
  const { bytes, view, fieldsStart, fieldsEnd, at } = entry;
  const size = fieldsEnd - fieldsStart === FIELD_BYTES ? getU64(view, fieldsStart) : Infinity;
  if (size > at) throw new PgError('LOG_CORRUPT', `${path}: the checkpoint named at byte ${at} is of no size`);
  const root = Uint8Array.from(bytes.subarray(fieldsStart + 16, fieldsEnd));
  return { size, bytes: getU64(view, fieldsStart + 8), root };
}
