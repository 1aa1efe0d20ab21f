import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fdatasyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { bufferRoot, SECTOR_BYTES } from '../../mdm/merkle.ts';
import type { NamedCheckpoint } from './checkpoint-entry.ts';
import { CHECKPOINT, installCheckpoint, NEW_CHECKPOINT, OLDER_CHECKPOINT } from './checkpoints.ts';
import { replaceFile, syncDirectory, writeFully } from './disk.ts';
import { Hasher } from './hasher.ts';
import { parseHeader, readHeader } from './header.ts';
import { isMarkOf } from './recover.ts';
import { sectorOf } from './roots.ts';
import { CHECKPOINT_MAGIC, type Mark, readMark } from './sidecar.ts';

/** What is read at once (`readMark`), and more than any checkpoint is. */
const CHECKPOINT_BYTES_MAX = 2 ** 31 - 1;
/** Says of which size a checkpoint came that the log has not named yet. */
const UNVOUCHED = 'checkpoint.unvouched';

/**
 * The beginning of a cleaned log, as a replica takes it: its entries are not all there to be replayed, so a checkpoint comes along, the sectors that are there as they
 * are, and of the others the roots. It counts when it is whole; then entries follow. That the checkpoint is the right one the log says itself (CHECKPOINT), and the
 * replica compares.
 */
export class BaseCopy {
  /** Log bytes that the checkpoint is of. */
  readonly size: number;
  readonly #dir: string;
  readonly #fd: number;
  #hasher: Hasher | undefined;
  #at: number;
  /** -1: it is closed. */
  #part: number;
  #partBytes = 0;
  readonly #gone: { sector: number; root: Uint8Array }[] = [];

  /** Of the copy in `dir`, open as `fd`, which has the log up to `from`, hashed by `hasher` (undefined: it has nothing). */
  constructor(dir: string, fd: number, hasher: Hasher | undefined, from: number, size: number) {
    this.#dir = dir;
    this.#fd = fd;
    this.#hasher = hasher;
    this.#at = from;
    this.size = size;
    if (size <= from) throw this.#wrong(`it ends at byte ${size}`);
    hasher?.advance(from);
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC;
    this.#part = openSync(join(dir, NEW_CHECKPOINT), flags, 0o600);
  }

  /** Takes the next bytes of the checkpoint's file. PgError LOG_CORRUPT. */
  takeCheckpoint(bytes: Uint8Array): void {
    if (this.#part < 0) throw this.#wrong('it is over');
    if (this.#partBytes + bytes.length > CHECKPOINT_BYTES_MAX) throw this.#wrong('its checkpoint has no end');
    writeFully(this.#part, bytes, 0, bytes.length, this.#partBytes);
    this.#partBytes += bytes.length;
  }

  /** Takes the next bytes of the log. PgError LOG_CORRUPT, LOG_VERSION. */
  takeBytes(offset: number, bytes: Buffer): void {
    if (offset !== this.#at || offset + bytes.length > this.size) throw this.#wrong(`bytes at ${offset}`);
    this.#hasher ??= new Hasher(this.#dir, this.#fd, parseHeader(bytes, join(this.#dir, 'log')).salt);
    writeFully(this.#fd, bytes, 0, bytes.length, offset);
    this.#hasher.feed(bytes);
    this.#at += bytes.length;
  }

  /** The bytes up to the end of this sector are not there any more; the sector had this root. PgError LOG_CORRUPT. */
  takeGone(sector: number, root: Uint8Array): void {
    const end = (sector + 1) * SECTOR_BYTES;
    if (sector !== sectorOf(this.#at) || end > this.size || this.#hasher === undefined)
      throw this.#wrong(`sector ${sector}`);
    this.#hasher.passSector(root);
    this.#gone.push({ sector, root });
    this.#at = end;
  }

  /** All has come: makes the log begin with it. Durable on return. What the log's entries go on from. PgError LOG_CORRUPT. */
  finish(): { hasher: Hasher; mark: Mark } {
    const hasher = this.#hasher;
    if (this.#at !== this.size || hasher === undefined || this.#part < 0)
      throw this.#wrong(`it ends at byte ${this.#at}`);
    fdatasyncSync(this.#part);
    this.#closePart();
    ftruncateSync(this.#fd, this.size);
    fdatasyncSync(this.#fd);
    const { salt } = readHeader(this.#fd, join(this.#dir, 'log'));
    const mark = readMark(join(this.#dir, NEW_CHECKPOINT), CHECKPOINT_MAGIC, salt);
    if (mark?.size !== this.size || !isMarkOf(this.#fd, mark)) throw this.#wrong('the checkpoint is not one of it');
    hasher.keep(this.size);
    for (const { sector, root } of this.#gone) hasher.roots.put(sector, { root, isGone: true });
    hasher.roots.sync();
    replaceFile(join(this.#dir, UNVOUCHED), [Buffer.from(String(this.size))]);
    installCheckpoint(this.#dir, false);
    // Replay must not begin with an older one: what follows that is not here.
    copyFileSync(join(this.#dir, CHECKPOINT), join(this.#dir, OLDER_CHECKPOINT));
    syncDirectory(this.#dir);
    hasher.save(this.size, mark.sequence);
    return { hasher, mark };
  }

  /** The log here stays what it was; the caller cuts it. */
  abandon(): void {
    this.#closePart();
    rmSync(join(this.#dir, NEW_CHECKPOINT), { force: true });
  }

  #closePart(): void {
    if (this.#part >= 0) closeSync(this.#part);
    this.#part = -1;
  }

  #wrong(what: string): PgError {
    return new PgError(
      'LOG_CORRUPT',
      `${this.#dir}/log: what was received of a cleaned log does not fit together: ${what}`,
    );
  }
}

/** The size of the checkpoint in `dir` that came with a log and that the log has not named yet; undefined when there is none. */
export function unvouchedSize(dir: string): number | undefined {
  const path = join(dir, UNVOUCHED);
  return existsSync(path) ? Number(readFileSync(path, 'latin1')) : undefined;
}

/** The log names the checkpoint that came with it: it must be that one. PgError LOG_CORRUPT. */
export function vouch(dir: string, salt: number, named: NamedCheckpoint): void {
  const payload = [CHECKPOINT, OLDER_CHECKPOINT]
    .map((name) => readMark(join(dir, name), CHECKPOINT_MAGIC, salt))
    .find((mark) => mark?.size === named.size)?.payload;
  const isIt =
    payload !== undefined && payload.length === named.bytes && Buffer.compare(bufferRoot(payload), named.root) === 0;
  if (!isIt)
    throw new PgError('LOG_CORRUPT', `the checkpoint that came with ${dir}/log is not the one that the log names`);
  forgetUnvouched(dir);
}

/** The copy begins anew. */
export function forgetUnvouched(dir: string): void {
  rmSync(join(dir, UNVOUCHED), { force: true });
}
