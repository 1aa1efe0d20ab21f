import { statfsSync } from 'node:fs';
import type { OpenContent } from '../../store/content-reader.ts';
import type { Store } from '../../store/store.ts';
import type { Log } from '../log/log.ts';
import { applyWrite, withoutSuid } from './apply.ts';
import * as E from './entries.ts';
import { FsError } from './error.ts';
import { deltaOf, isLog, lowerIno, payloadBytesOf, ZEROS } from './run-source.ts';
import { type Journal, logError } from './journal.ts';
import { FIRST_NEW_INO, isDirectory, isRegular, Node } from './node.ts';
import type { State } from './state.ts';
import { FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE } from './view.ts';

/** Sizes are exact as numbers below this. */
const MAX_FILE_BYTES = Number.MAX_SAFE_INTEGER - 4095;
/** One entry's payload; FUSE writes at most 1 MiB. */
const MAX_WRITE = 8 << 20;
/** Contents of the image kept resolved. */
const MAX_OPEN_CONTENTS = 512;

/** The bytes of regular files: reading them from the log and the image, and the operations that change them. */
export class Files {
  readonly #state: State;
  readonly #journal: Journal;
  readonly #store: Store;
  readonly #contents = new Map<number, OpenContent>();
  /** The WRITE last appended, which may still be in memory and grow: its number, file, end, flags, payload bytes. */
  #lastSequence = -1;
  #lastIno = 0;
  #lastEnd = 0;
  #lastFlags = 0;
  #lastBytes = 0;

  constructor(state: State, journal: Journal, store: Store) {
    this.#state = state;
    this.#journal = journal;
    this.#store = store;
  }

  /** See View.read. */
  read(ino: number, offset: number, into: Uint8Array): number {
    const found = this.#state.peek(ino);
    if (isDirectory(found.mode)) throw new FsError('EISDIR');
    if (!isRegular(found.mode)) throw new FsError('EINVAL');
    const length = Math.min(into.length, found.size - offset);
    if (length <= 0) return 0;
    try {
      if (found instanceof Node && (found.extents !== undefined || ino >= FIRST_NEW_INO))
        this.#readRuns(found, offset, into, length);
      else this.#readLower(ino, offset, into, 0, length);
    } catch (error) {
      throw logError(error);
    }
    return length;
  }

  #readRuns(node: Node, offset: number, into: Uint8Array, length: number): void {
    let done = 0;
    node.extents?.visit(offset, offset + length, (start, bytes, place, source) => {
      const at = start - offset;
      if (at > done) into.fill(0, done, at);
      done = at + bytes;
      if (isLog(source)) {
        const delta = deltaOf(source);
        const log = this.#journal.log as Log;
        // What is in memory still costs nothing.
        if (place < log.written && !log.meter.read(bytes)) throw new FsError('EDQUOT');
        log.readPayload(place - delta, payloadBytesOf(source), delta, into, at, bytes);
      } else if (source === ZEROS) {
        into.fill(0, at, at + bytes);
      } else {
        this.#readLower(lowerIno(source), place, into, at, bytes);
      }
    });
    if (done < length) into.fill(0, done, length);
  }

  /** Copies bytes of a file of the image. */
  #readLower(ino: number, offset: number, into: Uint8Array, at: number, length: number): void {
    let content = this.#contents.get(ino);
    if (content === undefined) {
      const ref = this.#state.tree.get(ino)?.content;
      if (ref === undefined) throw new FsError('EIO', `the image's inode ${ino} has no content`);
      content = this.#store.openContent(ref);
      if (this.#contents.size >= MAX_OPEN_CONTENTS) this.#contents.delete(this.#contents.keys().next().value!);
      this.#contents.set(ino, content);
    }
    if (this.#journal.log?.meter.readRoot(length) === false) throw new FsError('EDQUOT');
    const target = at === 0 && length === into.length ? into : into.subarray(at, at + length);
    const got = content.readAt(target, offset);
    if (got < length) throw new FsError('EIO', `the image's inode ${ino} ends at ${offset + got}`);
  }

  /** See View.write. The hot path: nothing is allocated but what the runs need. */
  write(ino: number, offset: number, bytes: Uint8Array, killSuid: boolean): number {
    const length = bytes.length;
    if (length === 0) return 0;
    if (length > MAX_WRITE) return this.#writePieces(ino, offset, bytes, killSuid);
    const found = this.#state.peek(ino);
    if (!isRegular(found.mode)) throw new FsError(isDirectory(found.mode) ? 'EISDIR' : 'EINVAL');
    if (offset + length > MAX_FILE_BYTES) throw new FsError('EFBIG');
    const journal = this.#journal;
    const log = journal.writable();
    const kills = killSuid && withoutSuid(found.mode) !== found.mode;
    const flags = kills ? E.WRITE_FLAGS | E.FLAG_KILL : E.WRITE_FLAGS;
    const continues = ino === this.#lastIno && offset === this.#lastEnd && flags === this.#lastFlags;
    if (continues && log.canGrow(this.#lastSequence, length)) {
      journal.tick();
      const place = log.grow(bytes, journal.entry);
      const delta = this.#lastBytes;
      this.#lastBytes += length;
      this.#lastEnd += length;
      applyWrite(
        this.#state,
        this.#state.materialize(ino),
        offset,
        length,
        place,
        delta,
        this.#lastBytes,
        journal.entry,
      );
      return length;
    }
    const fields = journal.begin(E.WRITE, flags);
    fields.u64(ino);
    fields.u64(offset);
    journal.append(bytes);
    this.#lastSequence = journal.entry.sequence;
    this.#lastIno = ino;
    this.#lastEnd = offset + length;
    this.#lastFlags = flags;
    this.#lastBytes = length;
    return length;
  }

  #writePieces(ino: number, offset: number, bytes: Uint8Array, killSuid: boolean): number {
    for (let done = 0; done < bytes.length; done += MAX_WRITE) {
      this.write(ino, offset + done, bytes.subarray(done, done + MAX_WRITE), killSuid);
    }
    return bytes.length;
  }

  /** See View.fallocate. */
  fallocate(ino: number, mode: number, offset: number, length: number): void {
    const found = this.#state.peek(ino);
    if (isDirectory(found.mode)) throw new FsError('EISDIR');
    if (!isRegular(found.mode)) throw new FsError('ENXIO');
    const known = FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE;
    const punches = (mode & FALLOC_PUNCH_HOLE) !== 0;
    if ((mode & ~known) !== 0 || (punches && mode !== (FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE)))
      throw new FsError('EOPNOTSUPP');
    if (offset < 0 || length <= 0) throw new FsError('EINVAL');
    if (offset + length > MAX_FILE_BYTES) throw new FsError('EFBIG');
    const log = this.#journal.writable();
    if (!punches) {
      const { bavail, bsize } = statfsSync(log.dir);
      if (length > bavail * bsize) throw new FsError('ENOSPC');
    }
    const fields = this.#journal.begin(E.FALLOCATE);
    fields.u64(ino);
    fields.u32(mode);
    fields.u64(offset);
    fields.u64(length);
    this.#journal.append(undefined, punches);
  }

  /** See View.lseek. */
  lseek(ino: number, offset: number, whence: 'data' | 'hole'): number {
    const found = this.#state.peek(ino);
    if (offset < 0 || offset >= found.size) throw new FsError('ENXIO');
    const isLowerFile = !(found instanceof Node) || (found.extents === undefined && ino < FIRST_NEW_INO);
    if (isLowerFile) return whence === 'data' ? offset : found.size;
    let end = offset;
    let answer = -1;
    found.extents?.visit(offset, found.size, (start, bytes, _place, source) => {
      if (source === ZEROS) return true;
      if (whence === 'data') {
        answer = start;
        return false;
      }
      if (start > end) return false;
      end = start + bytes;
      return true;
    });
    if (whence === 'hole') return end;
    if (answer < 0) throw new FsError('ENXIO');
    return answer;
  }

  /** See View.copyFileRange. */
  copyFileRange(src: number, srcOffset: number, dst: number, dstOffset: number, length: number): number {
    const from = this.#state.peek(src);
    const to = this.#state.peek(dst);
    if (isDirectory(from.mode) || isDirectory(to.mode)) throw new FsError('EISDIR');
    if (!isRegular(from.mode) || !isRegular(to.mode)) throw new FsError('EINVAL');
    const bytes = Math.min(length, from.size - srcOffset);
    if (bytes <= 0) return 0;
    if (dstOffset + bytes > MAX_FILE_BYTES) throw new FsError('EFBIG');
    if (src === dst && srcOffset < dstOffset + bytes && dstOffset < srcOffset + bytes)
      throw new FsError('EINVAL', 'ranges overlap');
    const fields = this.#journal.begin(E.COPY);
    fields.u64(src);
    fields.u64(dst);
    fields.u64(srcOffset);
    fields.u64(dstOffset);
    fields.u64(bytes);
    this.#journal.entry.result = bytes;
    this.#journal.append();
    return bytes;
  }
}
