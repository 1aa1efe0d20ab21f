import type { AppendBuffer, LastRequest } from './append-buffer.ts';
import { writeFully } from './disk.ts';
import { COMMIT_BYTES, Entry, peekHead, peekLength, peekPayload, sealEntry, timeNow, TYPE_COMMIT } from './entry.ts';
import { putCommit } from './header.ts';

/**
 * Writes to the log open as `fd` what a process that was killed had gathered in `buffer`: the entries, and a commit behind them, where that process would have written
 * them. Done again after another kill it writes the same. Returns the last request which that process did; undefined when the buffer is nobody's.
 * Throws as `node:fs` does; the space was reserved before the entries were accepted.
 */
export function takeOver(buffer: AppendBuffer, fd: number, salt: number): LastRequest | undefined {
  const left = buffer.takeOver(salt);
  if (left === undefined) return undefined;
  const { bytes, view } = buffer;
  const { start, openAt, lastCommit, sequence } = left;
  let { used } = left;
  if (openAt >= 0) {
    bytes.fill(0, openAt + peekHead(view, openAt) + peekPayload(view, openAt), openAt + peekLength(view, openAt));
    sealEntry(bytes, view, openAt, salt);
  }
  if (start + used > lastCommit) {
    const commit = Object.assign(new Entry(), { type: TYPE_COMMIT, sequence }, timeNow());
    const end = start + used + COMMIT_BYTES;
    putCommit(bytes, view, used, commit, lastCommit, end, 0, salt);
    used += COMMIT_BYTES;
  }
  writeFully(fd, bytes, 0, used, start);
  return { ...buffer.request };
}
