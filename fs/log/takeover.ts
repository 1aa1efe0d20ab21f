import type { AppendBuffer, LastRequest } from './append-buffer.ts';
import { writeFully } from './disk.ts';
import { closeEntry, COMMIT_BYTES, Entry, sealEntries, timeNow, TYPE_COMMIT } from './entry.ts';
import { putCommit } from './header.ts';

/**
 * Writes to the log open as `fd` what a process that was killed had gathered in `buffer`: the entries, and a commit behind them, where that process would have written
 * them. What another of its threads was writing comes first: it may be written in part, and its checksums may be there in part. Done again after another kill it
 * writes the same. Returns the last request which that process did; undefined when the buffer is nobody's.
 * Throws as `node:fs` does; the space was reserved before the entries were accepted.
 */
export function takeOver(buffer: AppendBuffer, fd: number, salt: number): LastRequest | undefined {
  const left = buffer.takeOver(salt);
  if (left === undefined) return undefined;
  const { start, openAt, lastCommit, sequence, flight } = left;
  if (flight !== undefined) {
    const { bytes, view } = buffer.rooms[1 - left.room]!;
    sealEntries(bytes, view, flight.used, salt);
    writeFully(fd, bytes, 0, flight.used, flight.start);
  }
  const { bytes, view } = buffer.rooms[left.room]!;
  let { used } = left;
  if (openAt >= 0) closeEntry(bytes, view, openAt);
  sealEntries(bytes, view, used, salt);
  if (start + used > lastCommit) {
    const commit = Object.assign(new Entry(), { type: TYPE_COMMIT, sequence }, timeNow());
    const end = start + used + COMMIT_BYTES;
    putCommit(bytes, view, used, commit, lastCommit, end, 0, salt);
    used += COMMIT_BYTES;
  }
  writeFully(fd, bytes, 0, used, start);
  return { ...buffer.request };
}
