import {
  accessSync,
  chmodSync,
  chownSync,
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { type Change, type CommittedFile, GROUP_HASHES, type HashLevel } from '../../mdm/file.ts';
import type { State } from '../../mdm/instruction.ts';
import { BLOCK_BYTES, bufferRoot, foldRoots, ROOT_BYTES, SECTOR_BYTES, sectorRoot } from '../../mdm/merkle.ts';
import type { ProofSource } from '../../mdm/opening.ts';
import { zeroRoot } from '../../mdm/subtrees.ts';
import { diskError } from '../sector.ts';
import { sectorSource } from './sectors.ts';

/** Groups of block hashes kept in memory: at most 2 MiB. */
const CACHED_GROUPS = 64;
const GROUP_BYTES = GROUP_HASHES * ROOT_BYTES;

/** What of a file tells that it is still the one that was read. */
interface Identity {
  dev: bigint;
  ino: bigint;
  size: bigint;
  mtimeNs: bigint;
  ctimeNs: bigint;
}

export interface OpenPlainOptions {
  /** Where ReadRoot looks after the file's own sectors. */
  elsewhere?: ((root: Uint8Array) => ProofSource | undefined) | undefined;
  /** Is told the bytes that were read. */
  onProgress?: (bytes: number) => void;
  signal?: AbortSignal;
}

/**
 * An ordinary file under the machine. It is read once when it is opened, and the roots of its sectors are kept in
 * memory, 32 bytes for each 4 MiB; those of blocks are computed when they are needed. A commit makes a copy beside it
 * (sharing blocks where the file system can), writes the batch's blocks to that, syncs it and renames it into place:
 * whoever opens the file, also after a crash at any point, finds all of the batch or nothing. Owner, mode and symbolic
 * links to it stay; hard links and extended attributes would not: a file of several names is refused. After a commit, open it anew.
 */
export class PlainFile implements CommittedFile {
  readonly path: string;
  readonly #elsewhere: OpenPlainOptions['elsewhere'];
  readonly #fd: number;
  readonly #identity: Identity;
  /** Roots of all sectors, also the last short one. */
  #roots: Uint8Array;
  #state: State;
  #places: Map<string, number> | undefined;
  readonly #groups = new Map<number, Uint8Array>();

  private constructor(path: string, fd: number, roots: Uint8Array, elsewhere: OpenPlainOptions['elsewhere']) {
    this.path = path;
    this.#fd = fd;
    this.#identity = identityOf(fd);
    this.#elsewhere = elsewhere;
    this.#roots = roots;
    this.#state = { root: foldRoots(roots), size: Number(this.#identity.size) };
  }

  /**
   * Opens and reads a file. `MDM_NO_SUCH_FILE`, `MDM_NOT_A_FILE`, `MDM_FILE_CHANGED` when somebody writes to it
   * meanwhile; the signal's reason when that came.
   */
  static async open(name: string, options: OpenPlainOptions = {}): Promise<PlainFile> {
    const { path, fd } = openRegular(name);
    try {
      const before = identityOf(fd);
      const roots = await sectorRoots(fd, Number(before.size), options);
      if (!isSame(before, identityOf(fd))) throw changed(path);
      return new PlainFile(path, fd, roots, options.elsewhere);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  get state(): State {
    return this.#state;
  }

  readAt(into: Uint8Array, offset: number): void {
    readFully(this.#fd, into, offset, this.path);
  }

  hashes(level: HashLevel, group: number): Uint8Array | undefined {
    if (level === 6) return this.#blockRoots(group);
    let entries = this.#roots;
    for (let above: HashLevel = 16; above < level; above = above === 16 ? 26 : 36) entries = foldGroups(entries);
    return entries.subarray(group * GROUP_BYTES, (group + 1) * GROUP_BYTES);
  }

  #blockRoots(sector: number): Uint8Array {
    const cached = this.#groups.get(sector);
    if (cached !== undefined) return cached;
    const bytes = new Uint8Array(Math.min(SECTOR_BYTES, this.#state.size - sector * SECTOR_BYTES));
    this.readAt(bytes, sector * SECTOR_BYTES);
    const hashes = new Uint8Array(Math.ceil(bytes.length / BLOCK_BYTES) * ROOT_BYTES);
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      hashes.set(bufferRoot(bytes.subarray(at, at + BLOCK_BYTES)), (at / BLOCK_BYTES) * ROOT_BYTES);
    }
    const root = this.#roots.subarray(sector * ROOT_BYTES, (sector + 1) * ROOT_BYTES);
    if (Buffer.compare(foldRoots(hashes), root) !== 0) throw changed(this.path);
    if (this.#groups.size >= CACHED_GROUPS) this.#groups.delete(this.#groups.keys().next().value!);
    this.#groups.set(sector, hashes);
    return hashes;
  }

  sector(root: Uint8Array): ProofSource | undefined {
    if (this.#places === undefined) {
      this.#places = new Map();
      for (let i = Math.floor(this.#state.size / SECTOR_BYTES) - 1; i >= 0; i--) {
        this.#places.set(Buffer.from(this.#roots.subarray(i * ROOT_BYTES, (i + 1) * ROOT_BYTES)).toString('hex'), i);
      }
    }
    const place = this.#places.get(Buffer.from(root).toString('hex'));
    if (place === undefined) return this.#elsewhere?.(root);
    return sectorSource(
      (into, offset) => this.readAt(into, place * SECTOR_BYTES + offset),
      () => this.#blockRoots(place),
    );
  }

  /** The roots of all sectors, one after another; that of a short last one is of the bytes it has. */
  get sectorRoots(): Uint8Array {
    return this.#roots;
  }

  /** `MDM_FILE_CHANGED`, `MDM_FILE_LINKED`, DISK_FULL, DISK_ERROR: the file is as it was. */
  commit(change: Change): void {
    const temporary = join(dirname(this.path), `${temporaryPrefix(this.path)}${process.pid}`);
    try {
      removeLeftovers(this.path);
      accessSync(this.path, constants.W_OK);
      this.#writeAside(temporary, change);
      renameSync(temporary, this.path);
      syncDirectory(dirname(this.path));
    } catch (cause) {
      rmSync(temporary, { force: true });
      throw diskError(cause, `cannot change ${this.path}`);
    }
  }

  #writeAside(temporary: string, change: Change): void {
    copyFileSync(this.path, temporary, constants.COPYFILE_FICLONE);
    const fd = openSync(temporary, 'r+');
    try {
      ftruncateSync(fd, change.keptBytes);
      ftruncateSync(fd, change.final.size);
      const blocks = [...change.blocks.keys()].toSorted((a, b) => a - b);
      for (const block of blocks) {
        const offset = block * BLOCK_BYTES;
        const bytes = change.blocks.get(block)!.subarray(0, change.final.size - offset);
        for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, offset + at);
      }
      const { uid, gid, mode, nlink } = statSync(this.path);
      if (nlink > 1) {
        throw new PgError('MDM_FILE_LINKED', `${this.path} has ${nlink} names; only one of them would be changed`);
      }
      chownSync(temporary, uid, gid);
      chmodSync(temporary, mode & 0o7777);
      fsyncSync(fd);
      if (!isSame(this.#identity, identityOf(this.path))) throw changed(this.path);
    } finally {
      closeSync(fd);
    }
  }
}

/**
 * The roots of the sectors of an open file of `size` bytes, one after another, with 4 MiB of memory and 32 bytes for
 * each; gives way between them.
 */
async function sectorRoots(fd: number, size: number, { onProgress, signal }: OpenPlainOptions): Promise<Uint8Array> {
  const roots = new Uint8Array(Math.ceil(size / SECTOR_BYTES) * ROOT_BYTES);
  const sector = Buffer.alloc(SECTOR_BYTES);
  const zeros = Buffer.alloc(SECTOR_BYTES);
  for (let at = 0; at < size; at += SECTOR_BYTES) {
    signal?.throwIfAborted();
    const bytes = sector.subarray(0, Math.min(SECTOR_BYTES, size - at));
    readFully(fd, bytes, at, 'the file');
    const isShort = bytes.length < SECTOR_BYTES;
    const root = isShort ? bufferRoot(bytes) : zeros.equals(bytes) ? zeroRoot(16) : sectorRoot(bytes);
    roots.set(root, (at / SECTOR_BYTES) * ROOT_BYTES);
    onProgress?.(bytes.length);
    await new Promise((resume) => setImmediate(resume));
  }
  return roots;
}

function openRegular(name: string): { path: string; fd: number } {
  try {
    const path = realpathSync(name);
    if (!statSync(path).isFile()) throw new PgError('MDM_NOT_A_FILE', `${name} is not a regular file`);
    return { path, fd: openSync(path, 'r') };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw diskError(cause, `cannot open ${name}`);
    throw new PgError('MDM_NO_SUCH_FILE', `there is no file ${name}`, { cause });
  }
}

function readFully(fd: number, into: Uint8Array, offset: number, path: string): void {
  for (let at = 0; at < into.length;) {
    let got: number;
    try {
      got = readSync(fd, into, at, into.length - at, offset + at);
    } catch (cause) {
      throw diskError(cause, `cannot read ${path}`);
    }
    if (got === 0) throw changed(path);
    at += got;
  }
}

/** `entries` of one level, folded to those of the next. */
function foldGroups(entries: Uint8Array): Uint8Array {
  const above = new Uint8Array(Math.ceil(entries.length / GROUP_BYTES) * ROOT_BYTES);
  for (let i = 0; i * GROUP_BYTES < entries.length; i++) {
    above.set(foldRoots(entries.subarray(i * GROUP_BYTES, (i + 1) * GROUP_BYTES)), i * ROOT_BYTES);
  }
  return above;
}

function identityOf(file: number | string): Identity {
  const stat = typeof file === 'number' ? fstatSync(file, { bigint: true }) : statSync(file, { bigint: true });
  const { dev, ino, size, mtimeNs, ctimeNs } = stat;
  return { dev, ino, size, mtimeNs, ctimeNs };
}

function isSame(a: Identity, b: Identity): boolean {
  return a.dev === b.dev && a.ino === b.ino && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}

function changed(path: string): PgError {
  return new PgError('MDM_FILE_CHANGED', `${path} is being changed by someone else`);
}

const temporaryPrefix = (path: string): string => `.${basename(path).slice(0, 200)}.pg-mdm-`;

/** Removes what a killed process has left beside the file. */
function removeLeftovers(path: string): void {
  const prefix = temporaryPrefix(path);
  for (const name of readdirSync(dirname(path))) {
    const pid = name.startsWith(prefix) ? name.slice(prefix.length) : '';
    if (!/^\d+$/.test(pid) || statSync(`/proc/${pid}`, { throwIfNoEntry: false }) !== undefined) continue;
    rmSync(join(dirname(path), name), { force: true });
  }
}

function syncDirectory(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
