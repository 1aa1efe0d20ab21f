import type { LayerFile } from '../../layers/layer-tar.ts';
import type { LowerInode, Tree } from '../../layers/tree.ts';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG } from '../../layers/trie.ts';
import { PgError } from '../../mdm/error.ts';
import { WHITEOUT as GONE } from '../view/directory.ts';
import { FIRST_NEW_INO, isDirectory } from '../view/node.ts';
import { touchedDirectories } from '../view/state-tree.ts';
import type { StateAt } from './state-at.ts';

const PIECE_BYTES = 1 << 20;
const TYPES = new Map<number, LayerFile['type']>([
  [S_IFREG, 'file'],
  [S_IFDIR, 'directory'],
  [S_IFLNK, 'symlink'],
  [S_IFCHR, 'char'],
  [S_IFBLK, 'block'],
  [S_IFIFO, 'fifo'],
]);

/**
 * What has to be laid over the image to get the files of a state, as the entries of a layer (OCI image-spec, layer.md): what is new or changed, directories
 * before what is in them, and whiteouts for what is gone. `leaveOut` are paths (absolute) that are not taken if they are new. What differs in its access or
 * change time alone is not in it; neither are sockets, which no tar can hold. A file with several names is there once, and then as hard links.
 */
export function* layerOf(at: StateAt, leaveOut: ReadonlySet<string>): Generator<LayerFile> {
  yield* new LayerWalk(at, leaveOut).files();
}

class LayerWalk {
  readonly #at: StateAt;
  readonly #leaveOut: ReadonlySet<string>;
  readonly #tree: Tree;
  readonly #lower: Tree;
  readonly #touched: Set<number>;
  /** Files with several names, any of which has to be in the layer: all of them are. */
  readonly #linked: ReadonlySet<number>;
  /** Where the first name of such a file is in the tar. */
  readonly #first = new Map<number, string>();

  constructor(at: StateAt, leaveOut: ReadonlySet<string>) {
    this.#at = at;
    this.#leaveOut = leaveOut;
    this.#tree = at.tree;
    this.#lower = at.state.tree;
    this.#touched = touchedDirectories(at.state);
    this.#linked = this.#findLinked();
  }

  *files(): Generator<LayerFile> {
    const [root, before] = [this.#tree.get(1)!, this.#lower.get(1)!];
    if (!haveSameOwner(root, before)) yield this.#entry('.', root);
    yield* this.#directory(1, 1, '');
  }

  /** `lowerIno` is the image's directory of this path, 0 when it has none. */
  *#directory(ino: number, lowerIno: number, path: string): Generator<LayerFile> {
    if (lowerIno !== 0) yield* this.#whiteouts(ino, lowerIno, path);
    for (let i = 0, entry; (entry = this.#tree.entryAt(ino, i)) !== undefined; i++) {
      const here = path === '' ? entry.name : `${path}/${entry.name}`;
      const below = lowerIno === 0 ? undefined : this.#lower.lookup(lowerIno, entry.name);
      if (below === undefined && this.#leaveOut.has(`/${here}`)) continue;
      yield* this.#file(entry.ino, below, here);
    }
  }

  *#whiteouts(ino: number, lowerIno: number, path: string): Generator<LayerFile> {
    if (this.#at.state.node(ino) === undefined && ino === lowerIno) return;
    for (let i = 0, entry; (entry = this.#lower.entryAt(lowerIno, i)) !== undefined; i++) {
      if (this.#tree.lookup(ino, entry.name) !== undefined) continue;
      yield whiteoutOf(path === '' ? entry.name : `${path}/${entry.name}`);
    }
  }

  *#file(ino: number, lowerIno: number | undefined, path: string): Generator<LayerFile> {
    const inode = this.#tree.get(ino)!;
    const before = lowerIno === undefined ? undefined : this.#lower.get(lowerIno);
    if (!isDirectory(inode.mode)) {
      const isThere = before !== undefined && ino === lowerIno && isUnchanged(inode, before);
      if (isThere && !this.#linked.has(ino)) return;
      const first = this.#first.get(ino);
      if (first !== undefined) yield { ...this.#entry(path, inode), type: 'hardlink', size: 0, linkName: first };
      else if (TYPES.has(inode.mode & S_IFMT)) {
        if (inode.nlink > 1) this.#first.set(ino, path);
        yield this.#entry(path, inode);
      } else if (before !== undefined) yield whiteoutOf(path);
      return;
    }
    const lowerDir = before !== undefined && isDirectory(before.mode) ? lowerIno! : 0;
    // Nothing in it or below it differs, and it stands where it stood.
    if (ino === lowerDir && !this.#touched.has(ino)) return;
    const isSame = lowerDir !== 0 && haveSameOwner(inode, before!) && haveSameTime(inode, before!);
    if (!isSame) yield this.#entry(path, inode);
    yield* this.#directory(ino, lowerDir, path);
  }

  #entry(path: string, inode: LowerInode): LayerFile {
    if (path.slice(path.lastIndexOf('/') + 1).startsWith('.wh.')) {
      throw new PgError(
        'BAD_LAYER_NAME',
        `/${path} cannot be in an image: a name that begins with .wh. removes another there`,
        {
          hint: 'give the file another name, or remove it, in the container',
        },
      );
    }
    const { mode, uid, gid, mtimeSec, mtimeNsec, size, rdev, symlink, xattrs } = inode;
    const type = TYPES.get(mode & S_IFMT)!;
    return {
      type,
      path,
      mode: mode & 0o7777,
      uid,
      gid,
      mtimeSec,
      mtimeNsec,
      size: type === 'file' ? size : 0,
      linkName: symlink === undefined ? '' : Buffer.from(symlink).toString('latin1'),
      rdev,
      xattrs,
      data: () => this.#bytesOf(inode),
    };
  }

  *#bytesOf({ ino, size }: LowerInode): Generator<Uint8Array> {
    for (let offset = 0; offset < size; offset += PIECE_BYTES) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, size - offset));
      this.#at.read(ino, offset, piece);
      yield piece;
    }
  }

  /** Files with several names, of which one is new or the inode has changed. It takes a walk over all names, if there may be such a one at all. */
  #findLinked(): Set<number> {
    const changed = new Set<number>();
    let hasMoved = false;
    for (const { ino, nlink, mode, dir } of this.#at.state.nodes()) {
      if (nlink > 1 && !isDirectory(mode)) changed.add(ino);
      for (const { ino: now } of dir?.changed?.entries() ?? []) hasMoved ||= now !== GONE && now < FIRST_NEW_INO;
      for (const { ino: now } of dir?.addedNames() ?? []) hasMoved ||= now < FIRST_NEW_INO;
    }
    const found = new Set<number>();
    for (const ino of changed)
      if (ino < FIRST_NEW_INO && !isUnchanged(this.#tree.get(ino)!, this.#lower.get(ino)!)) found.add(ino);
    if (changed.size === 0 && !hasMoved) return found;
    const names = new Map<number, number[]>();
    this.#collectNames(1, 1, changed, names, found);
    // The walk comes by all names of what is found.
    for (const ino of found)
      for (const holder of names.get(ino) ?? [])
        for (let dir = holder; !this.#touched.has(dir); dir = this.#at.state.parentOf(dir)) this.#touched.add(dir);
    return found;
  }

  /** The directories in which files with several names have one; those with a name that the image has not are found. */
  #collectNames(
    ino: number,
    lowerIno: number,
    changed: ReadonlySet<number>,
    names: Map<number, number[]>,
    found: Set<number>,
  ): void {
    for (let i = 0, entry; (entry = this.#tree.entryAt(ino, i)) !== undefined; i++) {
      const below = lowerIno === 0 ? undefined : this.#lower.lookup(lowerIno, entry.name);
      if (isDirectory(entry.mode)) {
        const isDir = below !== undefined && isDirectory(this.#lower.get(below)!.mode);
        this.#collectNames(entry.ino, isDir ? below : 0, changed, names, found);
      } else if (changed.has(entry.ino) || this.#tree.get(entry.ino)!.nlink > 1) {
        const holders = names.get(entry.ino);
        if (holders === undefined) names.set(entry.ino, [ino]);
        else holders.push(ino);
        if (below !== entry.ino) found.add(entry.ino);
      }
    }
  }
}

const WHITEOUT: Omit<LayerFile, 'path'> = {
  type: 'file',
  mode: 0o600,
  uid: 0,
  gid: 0,
  mtimeSec: 0,
  mtimeNsec: 0,
  size: 0,
  linkName: '',
  rdev: 0,
  xattrs: undefined,
  data: () => [],
};

function whiteoutOf(path: string): LayerFile {
  const slash = path.lastIndexOf('/') + 1;
  return { ...WHITEOUT, path: `${path.slice(0, slash)}.wh.${path.slice(slash)}` };
}

const haveSameTime = (a: LowerInode, b: LowerInode): boolean =>
  a.mtimeSec === b.mtimeSec && a.mtimeNsec === b.mtimeNsec;

function haveSameOwner(a: LowerInode, b: LowerInode): boolean {
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || (a.xattrs?.size ?? 0) !== (b.xattrs?.size ?? 0))
    return false;
  for (const [name, value] of a.xattrs ?? []) {
    const other = b.xattrs!.get(name);
    if (other === undefined || Buffer.compare(value, other) !== 0) return false;
  }
  return true;
}

/** Whether an inode of the image is what it was there. Its content's name is known exactly when all of it is the image's. */
function isUnchanged(now: LowerInode, before: LowerInode): boolean {
  if (now.ino !== before.ino || !haveSameOwner(now, before) || !haveSameTime(now, before)) return false;
  if (now.size !== before.size || (now.content === undefined) !== (before.content === undefined)) return false;
  return now.content === undefined || Buffer.compare(now.content.root, before.content!.root) === 0;
}
