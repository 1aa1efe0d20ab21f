import { PgError } from '../mdm/error.ts';
import { DEPTH_MAX, type MergedTree, type Metadata } from './merge.ts';
import type { TarEntry } from './tar.ts';
import { NAME_MAX, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from './trie.ts';

/**
 * One layer over those below it (OCI image-spec, layer.md). What the specification leaves open is done as docker load does it with
 * overlay2, where a layer is first unpacked into a directory of its own; docs/decisions/layers.md has the list and how it was found out.
 */
const WHITEOUT = '.wh.';
const OPAQUE = '.wh..wh..opq';
/** Names that aufs kept for itself; no file of an image. */
const AUFS = '.wh..wh.';
/** Linux: PATH_MAX, and how many symlinks one path may go through. */
const PATH_MAX = 4096;
const SYMLINKS_MAX = 40;
/** Bytes of a name as it stands in the tar, before dots and double slashes are taken out of it. */
const RAW_NAME_MAX = 4 * PATH_MAX;
const ROOT = 0;

/** Lays one layer's entries over the tree. Nothing is followed out of the tree: it is our own, and `..` ends at its root. */
export class LayerApplier {
  readonly #tree: MergedTree;
  readonly #layer: number;

  /** `layer` is the layer's place in the image, 0 = lowest. */
  constructor(tree: MergedTree, layer: number) {
    this.#tree = tree;
    this.#layer = layer;
  }

  /**
   * Applies the next entry of the layer; gives the row of a regular file that has data, for its content's root to be put there.
   * PgError `HOSTILE_PATH`, `TAR_BAD_PATH`, `HARDLINK_TARGET`, `IMAGE_TOO_LARGE`, each naming the entry.
   */
  apply(entry: TarEntry): number | undefined {
    const path = cleanPath(entry.name, entry, false);
    if (path.length === 0) {
      if (entry.type === 'directory') this.#tree.setMetadata(ROOT, metadataOf(entry));
      return undefined;
    }
    const name = path.pop()!;
    if (name === OPAQUE) {
      this.#tree.clearLower(this.#parent(path, entry), this.#layer);
      return undefined;
    }
    if (name.startsWith(AUFS)) return undefined;
    const parent = this.#parent(path, entry);
    if (name.startsWith(WHITEOUT)) {
      const hidden = name.slice(WHITEOUT.length);
      if (hidden === '' || hidden === '.' || hidden === '..')
        throw hostile(entry, 'it removes a directory that it is not in');
      this.#tree.unlinkLower(parent, hidden, this.#layer);
      return undefined;
    }
    return this.#place(parent, name, entry);
  }

  #place(parent: number, name: string, entry: TarEntry): number | undefined {
    const tree = this.#tree;
    const before = tree.lookup(parent, name);
    if (entry.type === 'directory' && before !== undefined && tree.isDirectory(before.inode)) {
      tree.setMetadata(before.inode, metadataOf(entry));
      tree.touch(parent, name, this.#layer);
      return undefined;
    }
    if (entry.type === 'hardlink') {
      this.#link(parent, name, entry);
      return undefined;
    }
    if (before !== undefined) tree.unlink(parent, name);
    const inode = tree.add(metadataOf(entry));
    tree.link(parent, name, inode, this.#layer);
    switch (entry.type) {
      case 'symlink':
        tree.setSymlink(inode, symlinkTarget(entry));
        return undefined;
      case 'char':
      case 'block':
        tree.setDevice(inode, deviceNumber(entry.devMajor, entry.devMinor));
        return undefined;
      case 'file':
        tree.setSize(inode, entry.size);
        return entry.size > 0 ? inode : undefined;
      default:
        return undefined;
    }
  }

  #link(parent: number, name: string, entry: TarEntry): void {
    const tree = this.#tree;
    const path = cleanPath(entry.linkName, entry, true);
    const last = path.pop();
    const directory = last === undefined ? undefined : this.#find(path, entry);
    const target = directory === undefined ? undefined : tree.lookup(directory, last!)?.inode;
    if (target === undefined || tree.isDirectory(target)) {
      const why = target === undefined ? 'is not there' : 'is a directory';
      throw new PgError(
        'HARDLINK_TARGET',
        `${place(entry)}: it is a hard link to '${shown(entry.linkName)}', which ${why}`,
        {
          hint: 'docker and podman refuse such a layer too; make the image again',
        },
      );
    }
    const before = tree.lookup(parent, name);
    if (before?.inode !== target) {
      if (before !== undefined) tree.unlink(parent, name);
      tree.link(parent, name, target, this.#layer);
    }
    // Unpackers set owner, mode and times again through the new name; attributes are added to those that are there.
    const old = tree.metadata(target);
    const type = old.mode & S_IFMT;
    const mode = type === S_IFLNK ? old.mode : type | entry.mode;
    const xattrs = entry.xattrs === undefined ? old.xattrs : new Map([...(old.xattrs ?? []), ...entry.xattrs]);
    tree.setMetadata(target, { ...metadataOf(entry), mode, xattrs });
  }

  /** The directory an entry goes into, made (0755 root) where it is missing. */
  #parent(path: readonly string[], entry: TarEntry): number {
    return this.#walk(path, entry, true)!;
  }

  /** The directory of a hard link's target, or undefined when there is none. */
  #find(path: readonly string[], entry: TarEntry): number | undefined {
    return this.#walk(path, entry, false);
  }

  /**
   * Walks to a directory. A symlink of this layer is followed, as when unpacking into one directory. One of a layer below is not:
   * unpacked for itself, this layer has a directory of its own there, which then covers the symlink. (When it is a followed symlink
   * that leads there, or a hard link's target, it is followed: nothing is to be made there.)
   */
  #walk(path: readonly string[], entry: TarEntry, create: boolean): number | undefined {
    const tree = this.#tree;
    const above: number[] = [ROOT];
    const todo = path.map((name) => ({ name, named: true })).toReversed();
    let followed = 0;
    for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
      const { name, named } = next;
      if (name === '' || name === '.') continue;
      if (name === '..') {
        if (above.length > 1) above.pop();
        continue;
      }
      const here = above.at(-1)!;
      if (above.length >= DEPTH_MAX) throw badPath(entry, `it is more than ${DEPTH_MAX} directories deep`);
      const dirent = tree.lookup(here, name);
      const target = dirent === undefined ? undefined : tree.symlink(dirent.inode);
      if (dirent !== undefined && tree.isDirectory(dirent.inode)) above.push(dirent.inode);
      else if (target !== undefined && (dirent!.layer === this.#layer || !named || !create)) {
        if (++followed > SYMLINKS_MAX) throw badPath(entry, 'it goes through too many symlinks');
        const text = Buffer.from(target).toString('latin1');
        if (text.startsWith('/')) above.length = 1;
        todo.push(
          ...text
            .split('/')
            .map((part) => ({ name: part, named: false }))
            .toReversed(),
        );
      } else if (!create) return undefined;
      else above.push(this.#makeDirectory(here, name, dirent, entry));
    }
    return above.at(-1)!;
  }

  #makeDirectory(parent: number, name: string, before: { layer: number } | undefined, entry: TarEntry): number {
    if (name.length > NAME_MAX) throw badPath(entry, 'a symlink on its way has a name longer than 255 bytes');
    if (before?.layer === this.#layer) throw badPath(entry, `'${shown(name)}' on its way is not a directory`);
    if (before !== undefined) this.#tree.unlink(parent, name);
    const inode = this.#tree.add({ mode: S_IFDIR | 0o755, uid: 0, gid: 0, mtimeSec: 0, mtimeNsec: 0 });
    this.#tree.link(parent, detached(name), inode, this.#layer);
    return inode;
  }
}

/**
 * The components of a name, cleaned as Go's path.Clean does: `.` and empty ones go, `..` takes the one before it away. A name that
 * leaves the root that way is PgError `HOSTILE_PATH`.
 */
function cleanPath(name: string, entry: TarEntry, isLink: boolean): string[] {
  const path: string[] = [];
  if (name.includes('\0')) throw badPath(entry, 'it has a NUL in its name');
  if (name.length > RAW_NAME_MAX) throw badPath(entry, `its path is longer than ${PATH_MAX - 1} bytes`);
  for (const component of name.split('/')) {
    if (component === '' || component === '.') continue;
    if (component !== '..') path.push(component);
    else if (path.pop() === undefined && !name.startsWith('/')) {
      throw hostile(
        entry,
        isLink ? `it is a hard link to '${shown(name)}', outside the image's root` : "its name leaves the image's root",
      );
    }
    if (component.length > NAME_MAX) throw badPath(entry, 'a part of its name is longer than 255 bytes');
  }
  const last = path.at(-1);
  // A part of a long string keeps all of that in memory; the tree keeps the part.
  if (last !== undefined && name.length > 4 * last.length + 64) path[path.length - 1] = detached(last);
  if (path.reduce((sum, component) => sum + component.length + 1, 0) >= PATH_MAX)
    throw badPath(entry, `its path is longer than ${PATH_MAX - 1} bytes`);
  return path;
}

const detached = (text: string): string => Buffer.from(text, 'latin1').toString('latin1');

function metadataOf(entry: TarEntry): Metadata {
  const { uid, gid, mtimeSec, mtimeNsec, xattrs } = entry;
  return { mode: modeOf(entry), uid, gid, mtimeSec, mtimeNsec, xattrs };
}

function modeOf(entry: TarEntry): number {
  switch (entry.type) {
    case 'directory':
      return S_IFDIR | entry.mode;
    case 'symlink':
      return S_IFLNK | 0o777;
    case 'char':
      return S_IFCHR | entry.mode;
    case 'block':
      return S_IFBLK | entry.mode;
    case 'fifo':
      return S_IFIFO | entry.mode;
    case 'file':
    case 'hardlink':
      return S_IFREG | entry.mode;
  }
}

function symlinkTarget(entry: TarEntry): Buffer {
  const { linkName } = entry;
  if (linkName === '' || linkName.includes('\0') || linkName.length >= PATH_MAX)
    throw badPath(entry, 'it is a symlink to a name that cannot be');
  return Buffer.from(linkName, 'latin1');
}

/** include/linux/kdev_t.h, new_encode_dev. */
function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0;
}

function place(entry: TarEntry): string {
  return `tar entry '${shown(entry.name)}' at byte ${entry.offset}`;
}

/** A name for messages: at most 200 bytes, UTF-8 read as such. */
const shown = (name: string): string => Buffer.from(name.slice(0, 200), 'latin1').toString('utf8');

function hostile(entry: TarEntry, why: string): PgError {
  return new PgError('HOSTILE_PATH', `${place(entry)}: ${why}`, {
    hint: 'nothing was imported; do not trust where this image comes from',
  });
}

function badPath(entry: TarEntry, why: string): PgError {
  return new PgError('TAR_BAD_PATH', `${place(entry)}: ${why}`, {
    hint: 'no Linux filesystem can hold it; make the image again',
  });
}
