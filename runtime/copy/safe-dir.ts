import * as fs from 'node:fs';
import { closeFd, makeNode, openInRoot } from '../native.ts';

const { O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NONBLOCK } = fs.constants;
/** open(2): names a file without opening it. */
const O_PATH = 0o10000000;
const CHUNK_BYTES = 1 << 20;

/**
 * An open directory of a tree that somebody else may be changing, also with ill will: every operation names one entry of it, and none follows a
 * symlink, so that nothing outside the tree can be reached. Names are latin1 strings.
 */
export class SafeDir {
  readonly fd: number;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** Opens a directory of a tree, its path (UTF-8) looked up as one with the tree for its root would. ENOENT, ENOTDIR. */
  static async open(rootPath: string, path: string): Promise<SafeDir> {
    const root = fs.openSync(rootPath, O_RDONLY | O_DIRECTORY);
    try {
      return new SafeDir(await openInRoot(root, path, O_RDONLY | O_DIRECTORY));
    } finally {
      fs.closeSync(root);
    }
  }

  close(): void {
    closeFd(this.fd);
  }

  /** A path for Node's functions: the kernel leads it straight to this directory (proc(5), /proc/PID/fd). */
  private at(name: string): Buffer {
    return Buffer.concat([Buffer.from(`/proc/self/fd/${this.fd}/`), Buffer.from(name, 'latin1')]);
  }

  lstat(name: string): fs.Stats | undefined {
    return fs.lstatSync(this.at(name), { throwIfNoEntry: false });
  }

  stat(): fs.Stats {
    return fs.fstatSync(this.fd);
  }

  names(): string[] {
    return fs.readdirSync(`/proc/self/fd/${this.fd}`, { encoding: 'buffer' }).map((name) => name.toString('latin1'));
  }

  readlink(name: string): string {
    return fs.readlinkSync(this.at(name), { encoding: 'buffer' }).toString('latin1');
  }

  /** ENOTDIR or ELOOP when `name` is no directory. */
  directory(name: string): SafeDir {
    return new SafeDir(fs.openSync(this.at(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  }

  /** The bytes of a regular file, at most `size`: it may grow meanwhile. When it shrinks, zeros follow, as tar does it. */
  *read(name: string, size: number): Iterable<Uint8Array> {
    const fd = this.openFile(name);
    try {
      const buffer = Buffer.alloc(Math.min(CHUNK_BYTES, Math.max(1, size)));
      for (let offset = 0; offset < size;) {
        const want = Math.min(buffer.length, size - offset);
        const got = fs.readSync(fd, buffer, 0, want, offset);
        if (got === 0) buffer.fill(0, 0, want);
        yield buffer.subarray(0, got || want);
        offset += got || want;
      }
    } finally {
      fs.closeSync(fd);
    }
  }

  /** What read(2) gives of a file, at most `mostBytes`; nothing of one that cannot be read, or not now. */
  readToEnd(name: string, mostBytes: number): Buffer {
    const pieces: Buffer[] = [];
    let fd: number;
    try {
      fd = this.openFile(name);
    } catch {
      return Buffer.alloc(0);
    }
    try {
      for (let length = 0; length < mostBytes;) {
        const piece = Buffer.allocUnsafe(64 << 10);
        const got = fs.readSync(fd, piece, 0, Math.min(piece.length, mostBytes - length), null);
        if (got === 0) break;
        pieces.push(piece.subarray(0, got));
        length += got;
      }
    } catch {
      // What came before the error is what there is.
    } finally {
      fs.closeSync(fd);
    }
    return Buffer.concat(pieces);
  }

  /**
   * Opens a regular file. What has taken its place meanwhile is not opened at all: to open a device of the host, which a container may make a node of, can be a deed
   * in itself. ELOOP for a symlink, EINVAL for what else is no file.
   */
  private openFile(name: string): number {
    const named = fs.openSync(this.at(name), O_PATH | O_NOFOLLOW);
    try {
      const stat = fs.fstatSync(named);
      if (!stat.isFile()) throw changed(name, stat.isSymbolicLink() ? 'ELOOP' : 'EINVAL');
      return fs.openSync(`/proc/self/fd/${named}`, O_RDONLY | O_NONBLOCK);
    } finally {
      fs.closeSync(named);
    }
  }

  /** Makes a directory unless it is there; one that is something else is replaced. */
  makeDirectory(name: string): SafeDir {
    const there = this.lstat(name);
    if (there !== undefined && !there.isDirectory()) this.remove(name);
    if (there?.isDirectory() !== true) fs.mkdirSync(this.at(name), 0o700);
    return this.directory(name);
  }

  /** A new file in place of what is there; its descriptor. EISDIR when that is a directory. */
  create(name: string): number {
    this.remove(name);
    return fs.openSync(this.at(name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  }

  symlink(name: string, target: string): void {
    this.remove(name);
    fs.symlinkSync(Buffer.from(target, 'latin1'), this.at(name));
  }

  link(name: string, from: SafeDir, fromName: string): void {
    this.remove(name);
    fs.linkSync(from.at(fromName), this.at(name));
  }

  /** mknod(2): a FIFO or a device. */
  node(name: string, mode: number, rdev: number): void {
    this.remove(name);
    makeNode(this.at(name), mode, rdev);
  }

  setOwner(name: string, uid: number, gid: number): void {
    fs.lchownSync(this.at(name), uid, gid);
  }

  setTime(name: string, mtimeMs: number): void {
    fs.lutimesSync(this.at(name), mtimeMs / 1000, mtimeMs / 1000);
  }

  /** Removes what is no directory; nothing when there is nothing. EISDIR. */
  private remove(name: string): void {
    if (this.lstat(name) !== undefined) fs.unlinkSync(this.at(name));
  }
}

const changed = (name: string, code: string): Error =>
  Object.assign(new Error(`${JSON.stringify(name)} became something else while it was copied`), { code });
