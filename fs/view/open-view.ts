import { statfsSync } from 'node:fs';
import type { Tree } from '../../layers/tree.ts';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import type { Store } from '../../store/store.ts';
import { removeRoom } from '../log/checkpoint-room.ts';
import type { NamedCheckpoint } from '../log/checkpoint-entry.ts';
import type { LastRequest } from '../log/append-buffer.ts';
import type { Log, Position } from '../log/log.ts';
import { getxattr, listxattr, readlink, removexattr, setattr, setxattr, touchAtime } from './attributes.ts';
import { changesOf } from './changes.ts';
import { restoreState } from './checkpoint.ts';
import { Cleaner } from './cleaner.ts';
import { FsError, isFsError } from './error.ts';
import { Files } from './files.ts';
import { Journal, logError } from './journal.ts';
import { mergeClone, type Stale } from './merge.ts';
import { create, link, list, rename, resolve, unlink } from './namespace.ts';
import { attrOfLower, attrOfNode, isRegular, Node, PERMISSIONS, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from './node.ts';
import { pathOf } from './path-of.ts';
import { State } from './state.ts';
import { serializeState, StateWalk } from './state-walk.ts';
import type {
  Attr,
  Caller,
  Change,
  CleaningReport,
  OnlineCheckpoint,
  SetAttr,
  StatFs,
  View,
  ViewStats,
} from './view.ts';

/** A checkpoint pays once this much log lies behind the last one, and some times what the checkpoint itself takes. */
const CHECKPOINT_BYTES = 64 << 20;
const CHECKPOINT_RATIO = 4;
/** Small entries take longer to replay than their bytes say: one pays also after so many, or as many as there are inodes, which restoring it takes as long for. */
const CHECKPOINT_WORK = 1 << 16;
/** What an entry adds to one, generously, and what an empty one takes. */
const BYTES_OF_WORK = 160;
const LEAST_CHECKPOINT_BYTES = 16 << 10;
/** After one that came to nothing another is not tried before so much more was written. */
const RETRY_BYTES = 16 << 20;
/** At the end one pays for less: it is what the next mount need not replay. */
const LAST_CHECKPOINT_BYTES = 1 << 20;

/**
 * The files of a container: `tree` (its image) under `log`, or read-only without one. Restores the log's checkpoint and replays what follows it; unlinked
 * inodes are gone afterwards unless they may be in use still (`keepOrphans`). PgError LOG_CORRUPT.
 */
export function openView(tree: Tree, store: Store, log: Log | null, keepOrphans = false): View {
  const state = new State(tree);
  const journal = new Journal(state, log);
  const checkpointBytes = log?.checkpoint?.payload.length ?? 0;
  if (log?.checkpoint !== undefined) restoreState(state, log.checkpoint.payload);
  journal.replay();
  if (log !== null) log.checkpoint = undefined;
  if (!keepOrphans) for (const ino of state.orphans) state.drop(ino);
  return new LogView(state, journal, store, checkpointBytes);
}

class LogView implements View {
  readonly #state: State;
  readonly #journal: Journal;
  readonly #store: Store;
  readonly #files: Files;
  /** How often inodes are open; those that are not are not in it. */
  readonly #opens = new Map<number, number>();
  readonly cleaner: Cleaner | undefined;
  #closed = false;
  /** What the last checkpoint took. */
  #checkpointBytes: number;
  /** None is due before the log has this size: the last one failed. */
  #retryAt = 0;
  /** `State.work` when the last checkpoint was begun. */
  #workThen = 0;

  constructor(state: State, journal: Journal, store: Store, checkpointBytes: number) {
    this.#checkpointBytes = checkpointBytes;
    this.#state = state;
    this.#journal = journal;
    this.#store = store;
    this.#files = new Files(state, journal, store);
    const { log } = journal;
    this.cleaner = log === null || log.readOnly ? undefined : new Cleaner(state, journal, log);
  }

  get request(): { low: number; high: number } {
    return this.#journal.request;
  }

  get inherited(): LastRequest | undefined {
    return this.#journal.log?.inherited;
  }

  lookup(parent: number, name: string): Attr {
    return this.getattr(resolve(this.#state, parent, name));
  }

  getattr(ino: number): Attr {
    const found = this.#state.peek(ino);
    return found instanceof Node ? attrOfNode(found) : attrOfLower(found);
  }

  setattr(ino: number, changes: SetAttr, _caller: Caller): Attr {
    setattr(this.#state, this.#journal, ino, changes);
    return this.getattr(ino);
  }

  readlink(ino: number): Uint8Array {
    return readlink(this.#state, ino);
  }

  mknod(parent: number, name: string, mode: number, rdev: number, caller: Caller): Attr {
    const type = mode & S_IFMT;
    if (type === S_IFDIR || type === S_IFLNK) throw new FsError('EPERM', 'mknod of a directory or symlink');
    const full = type === 0 ? mode | S_IFREG : mode;
    return this.getattr(create(this.#state, this.#journal, parent, name, full, rdev, caller));
  }

  mkdir(parent: number, name: string, mode: number, caller: Caller): Attr {
    const full = S_IFDIR | (mode & PERMISSIONS);
    return this.getattr(create(this.#state, this.#journal, parent, name, full, 0, caller));
  }

  symlink(parent: number, name: string, target: Uint8Array, caller: Caller): Attr {
    if (target.length === 0) throw new FsError('ENOENT', 'empty target');
    if (target.length > 4095) throw new FsError('ENAMETOOLONG');
    return this.getattr(create(this.#state, this.#journal, parent, name, S_IFLNK | 0o777, 0, caller, target));
  }

  link(ino: number, parent: number, name: string): Attr {
    link(this.#state, this.#journal, ino, parent, name);
    return this.getattr(ino);
  }

  unlink(parent: number, name: string): void {
    unlink(this.#state, this.#journal, parent, name, false);
  }

  rmdir(parent: number, name: string): void {
    unlink(this.#state, this.#journal, parent, name, true);
  }

  rename(parent: number, name: string, newParent: number, newName: string, flags: number, _caller: Caller): void {
    rename(this.#state, this.#journal, parent, name, newParent, newName, flags);
  }

  tmpfile(parent: number, mode: number, caller: Caller): Attr {
    const full = S_IFREG | (mode & PERMISSIONS);
    return this.getattr(create(this.#state, this.#journal, parent, '', full, 0, caller));
  }

  open(ino: number, truncate: boolean, killSuid = false): void {
    const { mode } = this.#state.peek(ino);
    if (truncate && isRegular(mode)) setattr(this.#state, this.#journal, ino, { size: 0, killSuid });
    this.#opens.set(ino, (this.#opens.get(ino) ?? 0) + 1);
  }

  release(ino: number): void {
    const left = (this.#opens.get(ino) ?? 0) - 1;
    if (left > 0) this.#opens.set(ino, left);
    else this.#opens.delete(ino);
  }

  forget(ino: number): void {
    if (this.#state.orphans.has(ino) && !this.#opens.has(ino)) this.#state.drop(ino);
  }

  read(ino: number, offset: number, into: Uint8Array): number {
    const length = this.#files.read(ino, offset, into);
    if (length > 0) this.#touchAtime(ino);
    return length;
  }

  write(ino: number, offset: number, bytes: Uint8Array, killSuid: boolean): number {
    return this.#files.write(ino, offset, bytes, killSuid);
  }

  fallocate(ino: number, mode: number, offset: number, length: number): void {
    this.#files.fallocate(ino, mode, offset, length);
  }

  lseek(ino: number, offset: number, whence: 'data' | 'hole'): number {
    return this.#files.lseek(ino, offset, whence);
  }

  copyFileRange(src: number, srcOffset: number, dst: number, dstOffset: number, length: number): number {
    return this.#files.copyFileRange(src, srcOffset, dst, dstOffset, length);
  }

  readdir(
    ino: number,
    cookie: number,
    emit: (name: string, ino: number, mode: number, nextCookie: number) => boolean,
  ): void {
    list(this.#state, ino, cookie, emit);
    if (cookie === 0) this.#touchAtime(ino);
  }

  getxattr(ino: number, name: string): Uint8Array {
    return getxattr(this.#state, ino, name);
  }

  setxattr(ino: number, name: string, value: Uint8Array, flags: number, killSgid = false): void {
    setxattr(this.#state, this.#journal, ino, name, value, flags, killSgid);
  }

  listxattr(ino: number): string[] {
    return listxattr(this.#state, ino);
  }

  removexattr(ino: number, name: string): void {
    removexattr(this.#state, this.#journal, ino, name);
  }

  statfs(): StatFs {
    const log = this.#journal.log;
    const found = log === null ? statfsSync(this.#store.roots.data) : statfsSync(log.dir);
    const { blocks, bfree, bavail, files, ffree, bsize } = found;
    return { blocks, bfree, bavail, files, ffree, bsize, namelen: 255, frsize: bsize };
  }

  dirty(): boolean {
    return this.#journal.log?.dirty ?? false;
  }

  flush(): number {
    return this.#withLog((log) => log.flush(), 0);
  }

  logFd(): number {
    const log = this.#journal.log;
    return log === null || log.readOnly ? -1 : log.fd;
  }

  synced(size: number): void {
    this.#journal.log?.synced(size);
  }

  failed(error: unknown): void {
    this.#journal.log?.fail(error);
  }

  hashSome(bytes: number): boolean {
    const log = this.#journal.log;
    return log === null || log.hasher.advance(log.written, bytes);
  }

  position(): Position {
    return this.#withLog((log) => log.position(), { epoch: 0, size: 0, root: new Uint8Array(32) });
  }

  checkpoint(): void {
    this.#withLog((log) => {
      if (log.readOnly) return;
      log.flush();
      this.#workThen = this.#state.work;
      const pieces = serializeState(this.#state);
      removeRoom(log.dir);
      log.writeCheckpoint(pieces);
      this.#checkpointBytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    }, undefined);
  }

  beginCheckpoint(): OnlineCheckpoint | undefined {
    return this.#withLog((log) => {
      if (log.readOnly) return undefined;
      const { mark, rotates } = log.beginCheckpoint();
      this.#workThen = this.#state.work;
      const walk = new StateWalk(this.#state);
      return {
        mark,
        rotates,
        step: (budgetMs: number) => walk.step(budgetMs),
        take: () => walk.take(),
        stop: () => walk.stop(),
      };
    }, undefined);
  }

  checkpointEnded(named: NamedCheckpoint | null): void {
    this.#withLog((log) => {
      if (named === null) {
        this.#retryAt = log.size + RETRY_BYTES;
        return;
      }
      this.#checkpointBytes = named.bytes;
      log.checkpointInstalled(named);
    }, undefined);
  }

  checkpointDue(): boolean {
    const log = this.#journal.log;
    if (log === null || log.readOnly || log.failure !== undefined || log.size < this.#retryAt) return false;
    if (this.#state.work - this.#workThen > Math.max(CHECKPOINT_WORK, this.#state.nodeCount)) return true;
    return log.sinceCheckpoint > Math.max(CHECKPOINT_BYTES, CHECKPOINT_RATIO * this.#checkpointBytes);
  }

  get checkpointBytes(): number {
    return this.#checkpointBytes;
  }

  get nextCheckpointBytes(): number {
    return this.#checkpointBytes + (this.#state.work - this.#workThen) * BYTES_OF_WORK + LEAST_CHECKPOINT_BYTES;
  }

  whenFull(make: () => boolean): void {
    this.#journal.makeSpace = make;
  }

  freeBytes(): number {
    const { bavail, bsize } = this.statfs();
    return bavail * bsize;
  }

  clean(): CleaningReport {
    const { cleaner } = this;
    if (cleaner === undefined) throw new FsError('EROFS');
    return this.#withLog(
      (log) => {
        cleaner.begin(this.freeBytes());
        cleaner.step(Infinity);
        this.checkpoint();
        this.checkpoint();
        log.hasher.advance(log.durable);
        log.hasher.keep(log.durable);
        const sectors = cleaner.candidates();
        log.reclaimer.giveBack(sectors);
        return { ...cleaner.finish(sectors.length), givenBackBytes: sectors.length * SECTOR_BYTES };
      },
      { movedBytes: 0, damaged: 0, givenBackBytes: 0 },
    );
  }

  pathOf(ino: number): string | undefined {
    return pathOf(this.#state, ino);
  }

  stats(): ViewStats {
    const log = this.#journal.log;
    return {
      inodes: this.#state.nodeCount,
      orphans: this.#state.orphans.size,
      logBytes: log?.size ?? 0,
      bytesSinceCheckpoint: log?.sinceCheckpoint ?? 0,
    };
  }

  orphans(): number[] {
    return [...this.#state.orphans];
  }

  changes(): Iterable<Change> {
    return changesOf(this.#state);
  }

  merge(dir: string, from: number, firstIno: number): Stale {
    const log = this.#journal.writable();
    try {
      return mergeClone(this.#state, log, dir, from, firstIno);
    } catch (error) {
      throw logError(error);
    }
  }

  close(mayCheckpoint = true): void {
    const log = this.#journal.log;
    if (log === null || this.#closed) return;
    this.#closed = true;
    try {
      const pays = mayCheckpoint && log.sinceCheckpoint > LAST_CHECKPOINT_BYTES;
      if (pays && !log.readOnly && log.failure === undefined) this.checkpoint();
    } finally {
      if (!log.readOnly) removeRoom(log.dir);
      log.close();
    }
  }

  /** Reading must not fail because the access time cannot be kept. */
  #touchAtime(ino: number): void {
    try {
      touchAtime(this.#state, this.#journal, ino);
    } catch (error) {
      if (!isFsError(error)) throw error;
    }
  }

  #withLog<T>(action: (log: Log) => T, without: T): T {
    const log = this.#journal.log;
    if (log === null) return without;
    try {
      return action(log);
    } catch (error) {
      throw logError(error);
    }
  }
}
