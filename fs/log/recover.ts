import assert from 'node:assert';
import { PgError } from '../../mdm/error.ts';
import {
  COMMIT_BYTES,
  Entry,
  FLAG_DATA,
  getU64,
  headIsWhole,
  peekLength,
  peekType,
  peekSequence,
  TYPE_COMMIT,
} from './entry.ts';
import { readFully } from './disk.ts';
import { behind, type Place, Scanner, SCAN_START, viewOf } from './scanner.ts';
import type { Mark } from './sidecar.ts';

/** Where a log ends: with its last whole commit. */
export interface End {
  size: number;
  /** Sequence number of the next entry. */
  sequence: number;
  /** Payloads that were durable once and are damaged now: where their entries start. Reading them will fail. */
  damaged: number[];
}

/**
 * Finds the end of the log open as `fd`, from a trusted place (`from` ends with a commit, entry `sequence` follows) to `fileBytes`.
 *
 * What is damaged behind the last fdatasync is a torn tail, and the log ends before it. A commit entry tells how much of the log was durable when it was
 * written: damage before that is rot. A rotten payload only makes its reads fail; a rotten head is PgError LOG_CORRUPT, for what follows depends on it.
 */
export function findEnd(
  fd: number,
  salt: number,
  from: number,
  sequence: number,
  fileBytes: number,
  path: string,
): End {
  const scanner = new Scanner(fd, salt, from, sequence, fileBytes, 'report');
  const entry = new Entry();
  const end: End = { size: from, sequence, damaged: [] };
  let suspects: number[] = [];
  let suspectEnd = 0;
  for (;;) {
    const step = scanner.next(entry);
    const torn = step === 'entry' && !scanner.payloadWhole && (entry.flags & FLAG_DATA) === 0;
    if (step === 'damage' || torn) {
      const at = torn ? entry.at : scanner.at;
      if (durableCommitAfter(fd, salt, at, fileBytes)) {
        throw new PgError('LOG_CORRUPT', `${path} is damaged at byte ${at}, which had been safe on disk`, {
          hint: 'take the log from a replica, or the container from an earlier snapshot',
        });
      }
      return end;
    }
    if (step === 'end') return end;
    if (!scanner.payloadWhole) {
      suspects.push(entry.at);
      suspectEnd = scanner.at;
    }
    if (entry.type !== TYPE_COMMIT) continue;
    if (suspects.length > 0 && commitDurable(entry) >= suspectEnd) {
      end.damaged.push(...suspects);
      suspects = [];
    }
    if (suspects.length === 0) {
      end.size = scanner.at;
      end.sequence = scanner.sequence;
    }
  }
}

/** Fields of a commit entry: where its batch starts, where it ends (and the entry with it), how much was durable when it was written. */
export function commitDurable(commit: Entry): number {
  return getU64(commit.view, commit.fieldsStart + 16);
}

/** Whether some commit entry behind `at` tells that `at` was durable. */
function durableCommitAfter(fd: number, salt: number, at: number, fileBytes: number): boolean {
  const window = Buffer.allocUnsafe(1 << 20);
  const view = viewOf(window);
  for (let from = at; from < fileBytes; from += window.length) {
    const got = readFully(fd, window, 0, window.length, from);
    for (let i = 0; i + COMMIT_BYTES <= got; i += 64) {
      if (view.getUint32(i + 4, true) !== 1 || peekType(view, i) !== TYPE_COMMIT || peekLength(view, i) !== 64)
        continue;
      if (headIsWhole(window, view, i, salt) && getU64(view, i + 40 + 16) > at) return true;
    }
  }
  return false;
}

/** Whether the commit entry that the mark names ends at its size: then it was made of this log, and not of one that took another turn. */
export function isMarkOf(fd: number, mark: Omit<Mark, 'payload'>): boolean {
  const commit = commitBefore(fd, mark.salt, mark.size);
  return commit !== undefined && commit.sequence === mark.sequence && commit.check === mark.check;
}

/** Where to scan from: everything before the later of the two marks was checked and durable. `hashed` counts up to `limit`. */
export function laterMark(checkpoint: Place | undefined, hashed: Place, limit: number): Place {
  const isOfUse = hashed.size > 0 && hashed.size <= limit;
  if (checkpoint !== undefined && (checkpoint.size >= hashed.size || !isOfUse)) return behind(checkpoint);
  return isOfUse ? behind(hashed) : SCAN_START;
}

/** The mark for `size`, where the commit entry of this sequence number ends. */
export function makeMark(fd: number, salt: number, size: number, sequence: number): Omit<Mark, 'payload'> {
  const commit = commitBefore(fd, salt, size);
  assert(commit !== undefined && commit.sequence === sequence, 'a mark stands behind a commit entry');
  return { size, salt, ...commit };
}

/** The commit entry that ends at `size`; undefined when none does. */
export function commitBefore(fd: number, salt: number, size: number): { sequence: number; check: number } | undefined {
  const bytes = Buffer.alloc(COMMIT_BYTES);
  if (size < COMMIT_BYTES || readFully(fd, bytes, 0, COMMIT_BYTES, size - COMMIT_BYTES) < COMMIT_BYTES)
    return undefined;
  const view = viewOf(bytes);
  const isCommit =
    peekLength(view, 0) === COMMIT_BYTES && peekType(view, 0) === TYPE_COMMIT && headIsWhole(bytes, view, 0, salt);
  return isCommit ? { sequence: peekSequence(view, 0), check: view.getUint32(0, true) } : undefined;
}
