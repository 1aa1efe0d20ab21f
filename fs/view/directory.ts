import type { Tree } from '../../layers/tree.ts';

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
  changed: Map<string, number> | undefined;
  /** Number of names there are now. */
  count: number;
  /** Cookie of the next name added, less COOKIE_ADDED. */
  nextSeq = 0;
  /** Added names: their slot in the arrays, which are in the order of `seqs`; a removed one leaves its slot (`names` undefined). */
  readonly #slots = new Map<string, number>();
  #names: (string | undefined)[] = [];
  #inos: number[] = [];
  #seqs: number[] = [];
  /** Of a frozen one. */
  #added: number | undefined;

  constructor(lower: number, lowerCount: number) {
    this.lower = lower;
    this.count = lowerCount;
  }

  /** The inode that a name means, undefined when there is no such name. */
  get(tree: Tree, name: string): number | undefined {
    const slot = this.#slots.get(name);
    if (slot !== undefined) return this.#inos[slot];
    if (this.lower === 0) return undefined;
    const changed = this.changed?.get(name);
    if (changed !== undefined) return changed === WHITEOUT ? undefined : changed;
    return tree.lookup(this.lower, name);
  }

  /** Makes `name` mean `ino`, be it new or not. */
  set(tree: Tree, name: string, ino: number): void {
    const slot = this.#slots.get(name);
    if (slot !== undefined) {
      this.#inos[slot] = ino;
      return;
    }
    const below = this.lower === 0 ? undefined : tree.lookup(this.lower, name);
    if (below === undefined) return this.restoreAdded(name, ino, this.nextSeq);
    const before = this.changed?.get(name);
    if (before === WHITEOUT) this.count++;
    if (below === ino) this.changed?.delete(name);
    else (this.changed ??= new Map()).set(name, ino);
  }

  /** Removes a name that is there. */
  remove(name: string): void {
    this.count--;
    const slot = this.#slots.get(name);
    if (slot === undefined) {
      (this.changed ??= new Map()).set(name, WHITEOUT);
      return;
    }
    this.#slots.delete(name);
    this.#names[slot] = undefined;
    if (this.#names.length > 32 && this.#slots.size < this.#names.length / 2) this.#compact();
  }

  /** Gives an added name another one that is not there and not the image's: it keeps its place, so that a scan that renames what it meets ends. */
  renameAdded(tree: Tree, name: string, newName: string): boolean {
    const slot = this.#slots.get(name);
    if (slot === undefined || this.#slots.has(newName)) return false;
    if (this.lower !== 0 && tree.lookup(this.lower, newName) !== undefined) return false;
    this.#slots.delete(name);
    this.#slots.set(newName, slot);
    this.#names[slot] = newName;
    return true;
  }

  /** Adds a name that is neither there nor the image's, with its old cookie: from a checkpoint, in order. */
  restoreAdded(name: string, ino: number, seq: number): void {
    this.#slots.set(name, this.#names.length);
    this.#names.push(name);
    this.#inos.push(ino);
    this.#seqs.push(seq);
    this.nextSeq = Math.max(this.nextSeq, seq + 1);
    this.count++;
  }

  /** Number of added names. */
  get added(): number {
    return this.#added ?? this.#slots.size;
  }

  /** The added names in order of their cookies. One object, used again. */
  *addedNames(): Generator<{ name: string; ino: number; seq: number }> {
    const found = { name: '', ino: 0, seq: 0 };
    for (let slot = 0; slot < this.#names.length; slot++) {
      const name = this.#names[slot];
      if (name === undefined) continue;
      found.name = name;
      found.ino = this.#inos[slot]!;
      found.seq = this.#seqs[slot]!;
      yield found;
    }
  }

  /** The same names, to be gone through: nothing can be looked up in it. */
  frozen(): Directory {
    const copy = new Directory(this.lower, this.count);
    copy.nextSeq = this.nextSeq;
    if (this.changed !== undefined) copy.changed = new Map(this.changed);
    copy.#names = this.#names.slice();
    copy.#inos = this.#inos.slice();
    copy.#seqs = this.#seqs.slice();
    copy.#added = this.added;
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
    const after = cookie - COOKIE_ADDED;
    for (let slot = cookie < COOKIE_ADDED ? 0 : this.#slotAfter(after); slot < this.#names.length; slot++) {
      const name = this.#names[slot];
      if (name === undefined) continue;
      if (!emit(name, this.#inos[slot]!, 0, COOKIE_ADDED + this.#seqs[slot]!)) return;
    }
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

  /** The first slot whose number is above `seq`. */
  #slotAfter(seq: number): number {
    let low = 0;
    let high = this.#seqs.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#seqs[middle]! > seq) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #compact(): void {
    const [names, inos, seqs] = [this.#names, this.#inos, this.#seqs];
    this.#names = [];
    this.#inos = [];
    this.#seqs = [];
    for (let slot = 0; slot < names.length; slot++) {
      const name = names[slot];
      if (name === undefined) continue;
      this.#slots.set(name, this.#names.length);
      this.#names.push(name);
      this.#inos.push(inos[slot]!);
      this.#seqs.push(seqs[slot]!);
    }
  }
}

const S_IFDIR = 0o040000;
