import type { Tree } from '../../layers/tree.ts';
import { NameList } from './name-list.ts';

/** Cookies of readdir: '.' and '..', then the image's entries by index, then names that the image does not have, in the order they came. */
const COOKIE_DOT = 1;
const COOKIE_DOTDOT = 2;
const COOKIE_LOWER = 3;
const COOKIE_ADDED = 2 ** 32;

/** Number in `changed` of a name that is hidden. */
export const WHITEOUT = 0;

/**
 * What a directory's names are now, against its directory in the image if it has one: names of the image that are gone or mean another inode,
 * and names that the image does not have. A name keeps its place, and so its readdir cookie, as long as it is there.
 */
export class Directory {
  /** The image's directory below, 0 for none. */
  readonly lower: number;
  /** Names of the image: the inode that they mean now, or WHITEOUT. */
  changed: NameList | undefined;
  /** Number of names there are now. */
  count: number;
  /** Names that the image does not have; a place is a cookie less COOKIE_ADDED. */
  #added = new NameList();

  constructor(lower: number, lowerCount: number) {
    this.lower = lower;
    this.count = lowerCount;
  }

  /** The inode that a name means, undefined when there is no such name. */
  get(tree: Tree, name: string): number | undefined {
    const added = this.#added.get(name);
    if (added !== undefined || this.lower === 0) return added;
    const changed = this.changed?.get(name);
    if (changed !== undefined) return changed === WHITEOUT ? undefined : changed;
    return tree.lookup(this.lower, name);
  }

  /** Makes `name` mean `ino`, be it new or not. */
  set(tree: Tree, name: string, ino: number): void {
    if (this.#added.has(name)) return this.#added.set(name, ino);
    const below = this.lower === 0 ? undefined : tree.lookup(this.lower, name);
    if (below === undefined) return this.restoreAdded(name, ino, this.nextSeq);
    const before = this.changed?.get(name);
    if (before === WHITEOUT) this.count++;
    if (below === ino) this.changed?.delete(name);
    else (this.changed ??= new NameList()).set(name, ino);
  }

  /** Removes a name that is there. */
  remove(name: string): void {
    this.count--;
    if (!this.#added.delete(name)) (this.changed ??= new NameList()).set(name, WHITEOUT);
  }

  /** Gives an added name another one that is not there and not the image's: it keeps its place, so that a scan that renames what it meets ends. */
  renameAdded(tree: Tree, name: string, newName: string): boolean {
    if (!this.#added.has(name) || this.#added.has(newName)) return false;
    if (this.lower !== 0 && tree.lookup(this.lower, newName) !== undefined) return false;
    this.#added.rename(name, newName);
    return true;
  }

  /** Adds a name that is neither there nor the image's, with its old cookie: from a checkpoint, in order. */
  restoreAdded(name: string, ino: number, seq: number): void {
    this.#added.add(name, ino, seq);
    this.count++;
  }

  /** Number of added names. */
  get added(): number {
    return this.#added.size;
  }

  /** Cookie of the next name added, less COOKIE_ADDED. */
  get nextSeq(): number {
    return this.#added.nextSeq;
  }

  set nextSeq(seq: number) {
    this.#added.nextSeq = seq;
  }

  /** The added names in order of their cookies. One object, used again. */
  addedNames(): Generator<{ name: string; ino: number; seq: number }> {
    return this.#added.entries();
  }

  /** The same names, to be gone through: nothing can be looked up in it. */
  frozen(): Directory {
    const copy = new Directory(this.lower, this.count);
    copy.changed = this.changed?.frozen();
    copy.#added = this.#added.frozen();
    return copy;
  }

  /** Entries behind `cookie` as `View.readdir` gives them; a mode of 0 is to be asked for. */
  list(
    tree: Tree,
    ino: number,
    parent: number,
    cookie: number,
    emit: (name: string, ino: number, mode: number, cookie: number) => boolean,
  ): void {
    if (cookie < COOKIE_DOT && !emit('.', ino, S_IFDIR, COOKIE_DOT)) return;
    if (cookie < COOKIE_DOTDOT && !emit('..', parent, S_IFDIR, COOKIE_DOTDOT)) return;
    if (this.lower !== 0 && cookie < COOKIE_ADDED && !this.#listLower(tree, cookie, emit)) return;
    for (const { name, ino: child, seq } of this.#added.entries(Math.max(-1, cookie - COOKIE_ADDED)))
      if (!emit(name, child, 0, COOKIE_ADDED + seq)) return;
  }

  #listLower(
    tree: Tree,
    cookie: number,
    emit: (name: string, ino: number, mode: number, cookie: number) => boolean,
  ): boolean {
    for (let index = Math.max(0, cookie - COOKIE_LOWER + 1); ; index++) {
      const entry = tree.entryAt(this.lower, index);
      if (entry === undefined) return true;
      const changed = this.changed?.get(entry.name);
      if (changed === WHITEOUT) continue;
      const more =
        changed === undefined
          ? emit(entry.name, entry.ino, entry.mode, COOKIE_LOWER + index)
          : emit(entry.name, changed, 0, COOKIE_LOWER + index);
      if (!more) return false;
    }
  }
}

const S_IFDIR = 0o040000;
