import * as fs from 'node:fs';
import { PgError } from '../../mdm/error.ts';
import type { CopyEntry, EntryKind } from './entry.ts';
import { SafeDir } from './safe-dir.ts';

function kindOf(stat: fs.Stats): EntryKind | undefined {
  if (stat.isFile()) return 'file';
  if (stat.isDirectory()) return 'directory';
  if (stat.isSymbolicLink()) return 'symlink';
  if (stat.isFIFO()) return 'fifo';
  if (stat.isCharacterDevice()) return 'char';
  if (stat.isBlockDevice()) return 'block';
  return undefined;
}

/** Files of /proc and /sys without a size of their own are taken up to here: some (pagemap) go on for ever. */
const NO_SIZE_MAX_BYTES = 16 << 20;

/** Whether stat(2) does not tell how much read(2) gives: proc(5) says 0 of all its files, sysfs one page. */
const hasNoSize = (stat: fs.Stats): boolean => stat.size === 0 || (stat.size === 4096 && stat.blocks === 0);

/**
 * The entry `name` of a directory, and everything below it, as entries whose paths begin with `as` (empty: what is in the directory `name` goes
 * straight into the destination). Directories come before what is in them; sockets are left out.
 */
export function* walk(dir: SafeDir, name: string, as: string, seen = new Map<string, string>()): Iterable<CopyEntry> {
  const stat = dir.lstat(name);
  const kind = stat && kindOf(stat);
  if (stat === undefined || kind === undefined) return;
  const bytes = kind === 'file' && hasNoSize(stat) ? dir.readToEnd(name, NO_SIZE_MAX_BYTES) : undefined;
  const size = bytes?.length ?? stat.size;
  const entry: CopyEntry = {
    path: as,
    kind,
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    mtimeMs: stat.mtimeMs,
    size: kind === 'file' ? size : 0,
    linkName: kind === 'symlink' ? dir.readlink(name) : '',
    rdev: stat.rdev,
    read: () => (bytes !== undefined ? [bytes] : kind === 'file' ? dir.read(name, size) : []),
  };
  if (kind !== 'directory' && stat.nlink > 1) {
    const identity = `${stat.dev}:${stat.ino}`;
    const first = seen.get(identity);
    if (first !== undefined) {
      yield { ...entry, kind: 'hardlink', size: 0, linkName: first, read: () => [] };
      return;
    }
    seen.set(identity, as);
  }
  yield entry;
  if (kind !== 'directory') return;
  const below = dir.directory(name);
  try {
    for (const child of below.names()) yield* walk(below, child, as === '' ? child : `${as}/${child}`, seen);
  } finally {
    below.close();
  }
}

/** Whose the copies are: as they were, or one owner's. */
export type Ownership = 'keep' | { uid: number; gid: number };

/** Writes entries below a directory. Existing files are replaced, directories merged; symlinks on the way are never followed. */
export class Extractor {
  private readonly base: SafeDir;
  private readonly ownership: Ownership;
  /** Directories get their times when everything is in them. */
  private readonly directoryTimes: { path: string; mtimeMs: number }[] = [];

  constructor(base: SafeDir, ownership: Ownership) {
    this.base = base;
    this.ownership = ownership;
  }

  async extract(entry: CopyEntry): Promise<void> {
    const parts = entry.path.split('/').filter((part) => part !== '' && part !== '.');
    if (parts.includes('..'))
      throw new PgError('BAD_ARCHIVE', `the archive names ${JSON.stringify(entry.path)}, which has '..' in it`);
    const name = parts.pop();
    // The destination directory itself keeps what it is.
    if (name === undefined) return;
    await this.inParent(parts, async (dir) => {
      if (entry.kind === 'directory' && dir.lstat(name)?.isDirectory() === true && this.ownership !== 'keep') return;
      await this.make(dir, name, entry);
      if (entry.kind === 'hardlink') return;
      // A file has it all from when it was made: its name may stand for another by now.
      if (entry.kind === 'file') return;
      const { uid, gid } = this.ownerOf(entry);
      dir.setOwner(name, uid, gid);
      if (entry.kind === 'directory') this.setMode(dir, name, entry);
      dir.setTime(name, entry.mtimeMs);
      if (entry.kind === 'directory') this.directoryTimes.push({ path: entry.path, mtimeMs: entry.mtimeMs });
    });
  }

  async finish(): Promise<void> {
    for (const { path, mtimeMs } of this.directoryTimes.toReversed()) {
      const parts = path.split('/').filter(Boolean);
      const name = parts.pop()!;
      await this.inParent(parts, async (dir) => dir.setTime(name, mtimeMs));
    }
  }

  private async make(dir: SafeDir, name: string, entry: CopyEntry): Promise<void> {
    try {
      switch (entry.kind) {
        case 'directory':
          return dir.makeDirectory(name).close();
        case 'symlink':
          return dir.symlink(name, entry.linkName);
        case 'hardlink':
          return await this.hardLink(dir, name, entry.linkName);
        case 'file':
          return await writeFile(dir, name, entry, this.ownerOf(entry));
        case 'fifo':
          return dir.node(name, fs.constants.S_IFIFO | entry.mode, 0);
        case 'char':
          return dir.node(name, fs.constants.S_IFCHR | entry.mode, entry.rdev);
        case 'block':
          return dir.node(name, fs.constants.S_IFBLK | entry.mode, entry.rdev);
      }
    } catch (cause) {
      if (!['EISDIR', 'EPERM'].includes((cause as NodeJS.ErrnoException).code ?? '')) throw cause;
      if (dir.lstat(name)?.isDirectory() !== true) throw cause;
      throw new PgError('BAD_USAGE', `cannot overwrite directory ${JSON.stringify(entry.path)} with non-directory`, {
        cause,
      });
    }
  }

  private async hardLink(dir: SafeDir, name: string, target: string): Promise<void> {
    const parts = target.split('/').filter((part) => part !== '' && part !== '.');
    const targetName = parts.pop();
    if (targetName === undefined || parts.includes('..') || targetName === '..') {
      throw new PgError('BAD_ARCHIVE', `a hard link to ${JSON.stringify(target)}`);
    }
    await this.inParent(parts, async (from) => dir.link(name, from, targetName));
  }

  private ownerOf(entry: CopyEntry): { uid: number; gid: number } {
    return this.ownership === 'keep' ? entry : this.ownership;
  }

  private setMode(dir: SafeDir, name: string, entry: CopyEntry): void {
    const made = dir.directory(name);
    fs.fchmodSync(made.fd, entry.mode);
    made.close();
  }

  /** Descends from the base; directories on the way that the archive did not name are made. */
  private async inParent(parts: string[], action: (dir: SafeDir) => Promise<void>): Promise<void> {
    const opened: SafeDir[] = [];
    let dir = this.base;
    try {
      for (const part of parts) {
        dir = dir.makeDirectory(part);
        opened.push(dir);
      }
      await action(dir);
    } finally {
      for (const made of opened) made.close();
    }
  }
}

async function writeFile(
  dir: SafeDir,
  name: string,
  entry: CopyEntry,
  owner: { uid: number; gid: number },
): Promise<void> {
  const fd = dir.create(name);
  try {
    for await (const chunk of entry.read()) {
      for (let at = 0; at < chunk.length;) at += fs.writeSync(fd, chunk, at);
    }
    fs.fchownSync(fd, owner.uid, owner.gid);
    fs.fchmodSync(fd, entry.mode);
    fs.futimesSync(fd, entry.mtimeMs / 1000, entry.mtimeMs / 1000);
  } finally {
    fs.closeSync(fd);
  }
}
