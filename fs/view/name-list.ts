/** Names of a full chunk. */
const CHUNK_NAMES = 512;

/** Some names in a row: their places, ascending, the names, and the inodes that they mean. */
interface Chunk {
  seqs: number[];
  names: string[];
  inos: number[];
  /** A frozen copy goes on to show it: it is copied before it changes. */
  isShared: boolean;
}

/**
 * Names with the inodes that they mean, in the order in which they came: a name keeps its place, a number, as long as it is there. In chunks, so that a copy of a
 * million names is had at once (what changes afterwards copies its chunk), and that none of them leaves a gap behind.
 */
export class NameList {
  /** Of a name its place. */
  readonly #seqs = new Map<string, number>();
  /** In order; none is empty. */
  #chunks: Chunk[] = [];
  #size = 0;
  /** The place of the next name. */
  nextSeq = 0;

  /** Number of names. */
  get size(): number {
    return this.#size;
  }

  /** The inode that a name means; undefined when it is not there. */
  get(name: string): number | undefined {
    const seq = this.#seqs.get(name);
    if (seq === undefined) return undefined;
    const chunk = this.#chunks[this.#chunkOf(seq)]!;
    return chunk.inos[indexOf(chunk, seq)];
  }

  has(name: string): boolean {
    return this.#seqs.has(name);
  }

  /** Makes a name mean `ino`: in its place, or behind all others. */
  set(name: string, ino: number): void {
    const seq = this.#seqs.get(name);
    if (seq === undefined) return this.add(name, ino, this.nextSeq);
    const chunk = this.#own(this.#chunkOf(seq));
    chunk.inos[indexOf(chunk, seq)] = ino;
  }

  /** Adds a name that is not there, at a place behind all others. */
  add(name: string, ino: number, seq: number): void {
    let last = this.#chunks.length - 1;
    if (last < 0 || this.#chunks[last]!.seqs.length >= CHUNK_NAMES)
      last = this.#chunks.push({ seqs: [], names: [], inos: [], isShared: false }) - 1;
    const chunk = this.#own(last);
    chunk.seqs.push(seq);
    chunk.names.push(name);
    chunk.inos.push(ino);
    this.#seqs.set(name, seq);
    this.nextSeq = Math.max(this.nextSeq, seq + 1);
    this.#size++;
  }

  /** Removes a name; false when it was not there. */
  delete(name: string): boolean {
    const seq = this.#seqs.get(name);
    if (seq === undefined) return false;
    this.#seqs.delete(name);
    this.#size--;
    const c = this.#chunkOf(seq);
    if (this.#chunks[c]!.seqs.length === 1) {
      this.#chunks.splice(c, 1);
      return true;
    }
    const chunk = this.#own(c);
    const i = indexOf(chunk, seq);
    for (const array of [chunk.seqs, chunk.names, chunk.inos]) array.splice(i, 1);
    this.#joinNext(c);
    return true;
  }

  /** Gives a name that is there another one, which is not: in the same place. */
  rename(name: string, newName: string): void {
    const seq = this.#seqs.get(name)!;
    const chunk = this.#own(this.#chunkOf(seq));
    chunk.names[indexOf(chunk, seq)] = newName;
    this.#seqs.delete(name);
    this.#seqs.set(newName, seq);
  }

  /** The names in order whose place is behind `seq`. One object, used again. */
  *entries(after = -1): Generator<{ name: string; ino: number; seq: number }> {
    const found = { name: '', ino: 0, seq: 0 };
    const from = Math.max(0, this.#chunkOf(after));
    for (let c = from; c < this.#chunks.length; c++) {
      const { seqs, names, inos } = this.#chunks[c]!;
      for (let i = c === from ? firstBehind(seqs, after) : 0; i < seqs.length; i++) {
        found.name = names[i]!;
        found.ino = inos[i]!;
        found.seq = seqs[i]!;
        yield found;
      }
    }
  }

  /** The same names, to be gone through: nothing can be looked up or changed in it. */
  frozen(): NameList {
    const copy = new NameList();
    for (const chunk of this.#chunks) chunk.isShared = true;
    copy.#chunks = this.#chunks.slice();
    copy.#size = this.#size;
    copy.nextSeq = this.nextSeq;
    return copy;
  }

  /** The last chunk that begins at or before `seq`; -1 when all begin behind it. */
  #chunkOf(seq: number): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#chunks[middle]!.seqs[0]! <= seq) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }

  /** A chunk that may be changed. */
  #own(c: number): Chunk {
    const chunk = this.#chunks[c]!;
    if (!chunk.isShared) return chunk;
    const { seqs, names, inos } = chunk;
    return (this.#chunks[c] = { seqs: seqs.slice(), names: names.slice(), inos: inos.slice(), isShared: false });
  }

  /** Two chunks in a row that have become small are made one: there are never many more than the names need. */
  #joinNext(c: number): void {
    const [chunk, next] = [this.#chunks[c]!, this.#chunks[c + 1]];
    if (next === undefined || chunk.seqs.length + next.seqs.length > CHUNK_NAMES / 2) return;
    chunk.seqs.push(...next.seqs);
    chunk.names.push(...next.names);
    chunk.inos.push(...next.inos);
    this.#chunks.splice(c + 1, 1);
  }
}

/** Where in its chunk the name of this place is. */
function indexOf({ seqs }: Chunk, seq: number): number {
  return firstBehind(seqs, seq) - 1;
}

/** The index of the first place behind `seq`. */
function firstBehind(seqs: readonly number[], seq: number): number {
  let low = 0;
  let high = seqs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (seqs[middle]! > seq) high = middle;
    else low = middle + 1;
  }
  return low;
}
