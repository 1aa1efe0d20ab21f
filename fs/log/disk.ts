import {
  closeSync,
  constants,
  fdatasyncSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import koffi from 'koffi';
import { PgError } from '../../mdm/error.ts';
import { closeLog, fileAt, openWithBases } from './bases.ts';

/** The few calls of the C library that Node lacks, and disk habits of the log. */
const libc = koffi.load('libc.so.6');
const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
const syncFileRange = libc.func('int sync_file_range(int fd, int64_t offset, int64_t bytes, unsigned int flags)');
const flock = libc.func('int flock(int fd, int operation)');
const LOCK_EX_NB = 2 | 4;

/** Whether an error of `node:fs` or of ours means that the disk, or a quota on it, is full. */
export function isDiskFull(error: unknown): boolean {
  const code = (error as { code?: string } | null)?.code;
  return code === 'ENOSPC' || code === 'EDQUOT' || code === 'LOG_FULL';
}

/** Does what can be done without when the disk is full. */
export function unlessFull(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!isDiskFull(error)) throw error;
  }
}

/** An errno of a libc call as `node:fs` would throw it. */
function callError(name: string, number: number): Error {
  const code = Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `errno ${number}`;
  return Object.assign(new Error(`${code}: ${name}`), { code, syscall: name });
}

/**
 * Gives the file blocks for [offset, offset + length), and at least that size; what was there stays, the rest reads as zeros (fallocate(2)).
 * Where the filesystem cannot, zeros are written: the blocks are just as good. Throws as `node:fs` does (ENOSPC).
 */
export function reserveBlocks(fd: number, offset: number, length: number): void {
  for (;;) {
    if (fallocate(fd, 0, offset, length) === 0) return;
    const number = koffi.errno();
    if (number === koffi.os.errno['EINTR']) continue;
    if (number !== koffi.os.errno['EOPNOTSUPP'] && number !== koffi.os.errno['ENOSYS'])
      throw callError('fallocate', number);
    return writeZeros(fd, offset, length);
  }
}

const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/**
 * Gives [offset, offset + length) of a file back to the disk; it reads as zeros then, and the file keeps its size (fallocate(2)). Where the filesystem cannot, zeros
 * are written, and nothing is gained. Throws as `node:fs` does.
 */
export function punchHole(fd: number, offset: number, length: number): void {
  while (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) !== 0) {
    const number = koffi.errno();
    if (number === koffi.os.errno['EINTR']) continue;
    if (number !== koffi.os.errno['EOPNOTSUPP'] && number !== koffi.os.errno['ENOSYS'])
      throw callError('fallocate', number);
    return writeZeros(fd, offset, length);
  }
}

/** Zeros to write or to compare with; never to be changed. */
export const ZEROS = Buffer.alloc(256 * 1024);

/** Overwrites [offset, offset + length) with zeros. */
export function writeZeros(fd: number, offset: number, length: number): void {
  for (let done = 0; done < length; done += ZEROS.length) {
    writeFully(fd, ZEROS, 0, Math.min(ZEROS.length, length - done), offset + done);
  }
}

/**
 * What one pwrite(2) takes. ext4 takes pages for a longer one in one piece of 2 MiB, which is rarely to be had: on a virtual machine that gives free memory back to
 * its host such a piece has to be fetched first, and writing it takes eight times as long (docs/decisions/0091-large-writes.md).
 */
const WRITE_BYTES = 256 << 10;

/** pwrite(2) of all of it. */
export function writeFully(fd: number, bytes: Uint8Array, from: number, length: number, offset: number): void {
  let done = 0;
  while (done < length) done += writeSync(fd, bytes, from + done, Math.min(WRITE_BYTES, length - done), offset + done);
}

const SYNC_FILE_RANGE_WRITE = 2;

/**
 * Has the kernel begin to write the pages of [offset, offset + length) to the disk (sync_file_range(2)). It says nothing of what is durable, waits for nothing that it has
 * begun, and takes no error from the next fdatasync.
 */
export function beginWriteBack(fd: number, offset: number, length: number): void {
  syncFileRange(fd, offset, length, SYNC_FILE_RANGE_WRITE);
}

/** pread(2) of all of it; returns less only at the end of the file. Of a clone's log the bytes may be in other files (bases.ts). */
export function readFully(fd: number, into: Uint8Array, start: number, length: number, offset: number): number {
  let done = 0;
  while (done < length) {
    const file = fileAt(fd, offset + done);
    const got = readSync(file.fd, into, start + done, Math.min(length - done, file.end - offset - done), offset + done);
    if (got === 0) break;
    done += got;
  }
  return done;
}

/** Takes the one writer's lock of the file; false when another process (or another open) has it. It goes with the descriptor. */
export function lockFile(fd: number): boolean {
  return flock(fd, LOCK_EX_NB) === 0;
}

/** Opens a log's file, for its one writer with the lock. PgError LOG_MISSING, LOG_BUSY. */
export function openLogFile(path: string, readOnly: boolean): number {
  let fd: number;
  try {
    fd = openWithBases(path, readOnly ? constants.O_RDONLY : constants.O_RDWR);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new PgError('LOG_MISSING', `there is no log at ${path}`);
  }
  if (!readOnly && !lockFile(fd)) {
    closeLog(fd);
    throw new PgError('LOG_BUSY', `${path} is open for writing in another process`, {
      hint: 'a running container has its log, and a writable mount has its: pg ps, grep fuse.pg /proc/mounts',
    });
  }
  return fd;
}

/** Replaces a file so that after a crash there is the old one or the whole new one; durable on return. */
export function replaceFile(path: string, pieces: Iterable<Uint8Array>): void {
  const temporary = `${path}.new`;
  const fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC, 0o600);
  try {
    let offset = 0;
    for (const piece of pieces) {
      writeFully(fd, piece, 0, piece.length, offset);
      offset += piece.length;
    }
    fdatasyncSync(fd);
  } catch (error) {
    closeSync(fd);
    unlinkSync(temporary);
    throw error;
  }
  closeSync(fd);
  renameSync(temporary, path);
  syncDirectory(dirname(path));
}

/** Makes names made or removed in a directory durable. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
