import {
  closeSync,
  copyFileSync,
  existsSync,
  fdatasyncSync,
  ftruncateSync,
  linkSync,
  mkdirSync,
  openSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import type { Store } from '../../store/store.ts';
import { basesOf, closeLog, openToRead } from '../log/bases.ts';
import { CHECKPOINT, OLDER_CHECKPOINT } from '../log/checkpoints.ts';
import { readFully, syncDirectory, writeFully } from '../log/disk.ts';
import { readHeader } from '../log/header.ts';
import { RootsFile } from '../log/roots.ts';
import { noteShared } from '../log/sharing.ts';
import { CHECKPOINT_MAGIC, HASH_MAGIC, readMark, writeMark } from '../log/sidecar.ts';
import { serializeState } from '../view/state-walk.ts';
import { needsWhatIsGone, notRetained } from './retained.ts';
import { markAt } from './snapshots.ts';
import { openStateAt } from './state-at.ts';

const COPY_BYTES = 1 << 20;

/**
 * Makes in `to`, a directory that is not there, a log that goes on where the log in `from` had `size` bytes (a commit's end). It shares the full sectors of these
 * bytes, by hard links to the files that they are in (fs/log/bases.ts); what is behind the last full sector, less than 4 MiB, is copied. The log in `from` may be
 * written meanwhile. Durable on return: the number of the next inode that is made. PgError CLONE_LINK where the filesystem makes no more links; as `openLog` has them.
 */
export function cloneLog(store: Store, treeRoot: Uint8Array | null, from: string, to: string, size: number): number {
  const shared = Math.floor(size / SECTOR_BYTES) * SECTOR_BYTES;
  mkdirSync(to, { mode: 0o700 });
  // First the links: the cleaner gives nothing back of what a file shares that has several.
  linkBases(from, to, shared);
  if (shared > 0) noteShared(from, shared);
  copyTail(from, to, shared, size);
  const at = openStateAt(store, treeRoot, from, size);
  const { nextIno } = at.state;
  try {
    copyRoots(from, to, shared / SECTOR_BYTES);
    // Of what is noted by now, not of what will be: the cleaner sees the links then.
    if (needsWhatIsGone(to, at.state)) throw notRetained(size);
    const pieces = serializeState(at.state);
    for (const name of [OLDER_CHECKPOINT, CHECKPOINT])
      writeMark(join(to, name), CHECKPOINT_MAGIC, markAt(to, size), pieces);
  } finally {
    at.close();
  }
  copyHashes(from, to, size);
  syncDirectory(to);
  return nextIno;
}

function linkBases(from: string, to: string, shared: number): void {
  let covered = 0;
  for (const { name, end } of [...basesOf(from), { name: 'log', end: Infinity }]) {
    if (covered >= shared) return;
    covered = Math.min(end, shared);
    try {
      linkSync(join(from, name), join(to, `base-${covered}`));
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      if (code !== 'EMLINK' && code !== 'EXDEV' && code !== 'EPERM') throw cause;
      throw new PgError('CLONE_LINK', `${join(from, name)} cannot be shared by one more container: ${message}`, {
        hint: 'remove clones that are not needed any more; or make an image (pg commit) and containers of that',
        cause,
      });
    }
  }
}

function copyTail(from: string, to: string, shared: number, size: number): void {
  const source = openToRead(from);
  const target = openSync(join(to, 'log'), 'wx', 0o600);
  try {
    const chunk = Buffer.allocUnsafe(COPY_BYTES);
    for (let at = shared; at < size; at += chunk.length) {
      const length = Math.min(chunk.length, size - at);
      if (readFully(source, chunk, 0, length, at) < length)
        throw new PgError('LOG_CORRUPT', `${from}/log ends before byte ${size}`);
      writeFully(target, chunk, 0, length, at);
    }
    ftruncateSync(target, size);
    fdatasyncSync(target);
    // What is shared must be as durable as what is copied: else the parent, after a power cut, may be cut before it.
    fdatasyncSync(source);
  } finally {
    closeSync(target);
    closeLog(source);
  }
}

/** What is hashed already need not be hashed again, if it is not of a later state. */
function copyHashes(from: string, to: string, size: number): void {
  if (!existsSync(join(from, 'hash'))) return;
  copyFileSync(join(from, 'hash'), join(to, 'hash'));
  const mark = readMark(join(to, 'hash'), HASH_MAGIC, saltOf(to));
  if (mark === undefined || mark.size > size) rmSync(join(to, 'hash'));
}

/** The roots of the sectors that are shared. */
function copyRoots(from: string, to: string, sectors: number): void {
  const theirs = new RootsFile(from, saltOf(from));
  const ours = new RootsFile(to, saltOf(to));
  try {
    for (const [sector, record] of theirs.all().slice(0, sectors).entries()) ours.put(sector, record);
    ours.sync();
  } finally {
    theirs.close();
    ours.close();
  }
}

function saltOf(dir: string): number {
  const fd = openToRead(dir);
  try {
    return readHeader(fd, join(dir, 'log')).salt;
  } finally {
    closeLog(fd);
  }
}
