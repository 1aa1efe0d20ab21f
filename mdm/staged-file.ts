import { type Change, type CommittedFile, GROUP_HASHES, HASH_LEVELS, type HashLevel } from './file.ts';
import type { State } from './instruction.ts';
import { LEAF_BYTES, ROOT_BYTES } from './kernel/kernel.ts';
import { BLOCK_BYTES, bufferRoot, foldRoots, SECTOR_BYTES } from './merkle.ts';
import type { ProofSource } from './opening.ts';
import { type Subtree, zeroRoot } from './subtrees.ts';

const GROUP_BYTES = GROUP_HASHES * ROOT_BYTES;
const BLOCKS_PER_SECTOR = SECTOR_BYTES / BLOCK_BYTES;
/** Blocks hashed between two looks at the interrupt: 1 MiB. */
const BLOCKS_PER_SLICE = 256;

/** File bytes under one entry of a level. */
const span = (level: HashLevel): number => LEAF_BYTES * 2 ** level;
/** Entries a file of `size` bytes has on a level. */
const entries = (level: HashLevel, size: number): number => Math.ceil(size / span(level));

const hexOf = (root: Uint8Array): string => Buffer.from(root).toString('hex');

/**
 * The file of a running batch: the committed one under what the batch wrote, none of which the committed file sees
 * before `commit`. Blocks and groups of hashes are replaced, never changed, so that whoever got one keeps it.
 */
export class StagedFile implements ProofSource, Change {
  readonly #committed: CommittedFile;
  #state: State;
  #kept: number;
  readonly blocks = new Map<number, Uint8Array>();
  readonly #groups = new Map<HashLevel, Map<number, Uint8Array>>(HASH_LEVELS.map((level) => [level, new Map()]));
  /** Blocks whose root is not known since the last `rehash`. */
  readonly #dirty = new Set<number>();
  readonly #changedSectors = new Set<number>();
  /** Sectors the batch gained that a later ReadRoot names, by root in hex; undefined until they are there. */
  readonly #wanted: Map<string, ProofSource | undefined>;

  /** `wanted`: the roots of sectors that the batch may read after gaining and losing them. */
  constructor(committed: CommittedFile, wanted: readonly Uint8Array[] = []) {
    this.#committed = committed;
    this.#state = committed.state;
    this.#kept = committed.state.size;
    this.#wanted = new Map(wanted.map((root) => [hexOf(root), undefined]));
  }

  /** Root and size; the root is that of the last `rehash`. */
  get final(): State {
    return this.#state;
  }

  get size(): number {
    return this.#state.size;
  }

  get keptBytes(): number {
    return this.#kept;
  }

  changedGroups(level: HashLevel): ReadonlyMap<number, Uint8Array> {
    return this.#groups.get(level)!;
  }

  changedSectors(): number[] {
    const count = Math.ceil(this.size / SECTOR_BYTES);
    return [...this.#changedSectors].filter((sector) => sector < count).toSorted((a, b) => a - b);
  }

  sectorRoot(sector: number): Uint8Array {
    const at = (sector % GROUP_HASHES) * ROOT_BYTES;
    return this.#group(16, Math.floor(sector / GROUP_HASHES))?.slice(at, at + ROOT_BYTES) ?? zeroRoot(16);
  }

  /** The sector with this root: one the batch gained, or a committed one of this host. */
  sector(root: Uint8Array): ProofSource | undefined {
    return this.#wanted.get(hexOf(root)) ?? this.#committed.sector(root);
  }

  readAt(into: Uint8Array, offset: number): void {
    for (let at = 0; at < into.length;) {
      const position = offset + at;
      const block = this.blocks.get(Math.floor(position / BLOCK_BYTES));
      const inBlock = position % BLOCK_BYTES;
      let length = Math.min(BLOCK_BYTES - inBlock, into.length - at);
      if (block !== undefined) into.set(block.subarray(inBlock, inBlock + length), at);
      else {
        // Take all blocks up to the next staged one in a single read.
        while (at + length < into.length && !this.blocks.has(Math.floor((position + length) / BLOCK_BYTES))) {
          length = Math.min(length + BLOCK_BYTES, into.length - at);
        }
        this.#readCommitted(into.subarray(at, at + length), position);
      }
      at += length;
    }
  }

  #readCommitted(into: Uint8Array, offset: number): void {
    const kept = Math.min(Math.max(this.#kept - offset, 0), into.length);
    if (kept > 0) this.#committed.readAt(into.subarray(0, kept), offset);
    into.fill(0, kept);
  }

  /** Puts `bytes` at `offset`; they lie within the file. Roots follow at the next `rehash`. */
  write(offset: number, bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const index = Math.floor((offset + at) / BLOCK_BYTES);
      const inBlock = (offset + at) % BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES - inBlock, bytes.length - at);
      const block = length === BLOCK_BYTES ? new Uint8Array(BLOCK_BYTES) : this.#copyBlock(index);
      block.set(bytes.subarray(at, at + length), inBlock);
      this.blocks.set(index, block);
      this.#dirty.add(index);
      at += length;
    }
  }

  #copyBlock(index: number): Uint8Array {
    const block = new Uint8Array(BLOCK_BYTES);
    this.readAt(block.subarray(0, Math.min(BLOCK_BYTES, this.size - index * BLOCK_BYTES)), index * BLOCK_BYTES);
    return block;
  }

  /** Cuts the file to `size` bytes or fills it up with zeros. Roots follow at the next `rehash`. */
  truncate(size: number): void {
    const before = this.size;
    if (size < before) this.#cut(size);
    this.#state = { root: this.#state.root, size };
    // The subtrees at the old and the new end are other than they were on every level, and these blocks lie under them.
    for (const end of [before, size]) if (end > 0 && end <= size) this.#dirty.add(Math.ceil(end / BLOCK_BYTES) - 1);
    const newSector = Math.ceil(before / SECTOR_BYTES);
    if ((newSector + 1) * SECTOR_BYTES <= size) this.#gain(zeroRoot(16), ZERO_SECTOR);
  }

  #cut(size: number): void {
    const last = Math.floor(size / BLOCK_BYTES);
    if (size % BLOCK_BYTES > 0) this.blocks.set(last, this.#copyBlock(last).fill(0, size % BLOCK_BYTES));
    const firstGone = Math.ceil(size / BLOCK_BYTES);
    for (const index of this.blocks.keys()) if (index >= firstGone) this.blocks.delete(index);
    for (const index of this.#dirty) if (index >= firstGone) this.#dirty.delete(index);
    for (const level of HASH_LEVELS) {
      const left = entries(level, size);
      const edge = Math.floor(left / GROUP_HASHES);
      const edgeGroup = left % GROUP_HASHES === 0 ? undefined : this.#group(level, edge);
      const groups = this.#groups.get(level)!;
      for (const group of groups.keys()) if (group >= edge) groups.delete(group);
      if (edgeGroup !== undefined) groups.set(edge, zeroFrom(level, edgeGroup.slice(), left % GROUP_HASHES));
    }
    this.#kept = Math.min(this.#kept, size);
  }

  /** A group's 1,024 entries as they are now; undefined when all are roots of zeros. */
  #group(level: HashLevel, group: number): Uint8Array | undefined {
    const staged = this.#groups.get(level)!.get(group);
    if (staged !== undefined) return staged;
    if (group * GROUP_HASHES * span(level) >= this.#kept) return undefined;
    const hashes = this.#committed.hashes(level, group);
    if (hashes === undefined || hashes.length === GROUP_BYTES) return hashes;
    const whole = new Uint8Array(GROUP_BYTES);
    whole.set(hashes);
    return zeroFrom(level, whole, hashes.length / ROOT_BYTES);
  }

  /** Brings all hashes up to date; gives way now and then so that an interrupt can be noticed. */
  *rehash(): Generator<void, void> {
    let changed = [...this.#dirty].toSorted((a, b) => a - b);
    const hashes: Uint8Array[] = [];
    for (const [i, index] of changed.entries()) {
      const length = Math.min(BLOCK_BYTES, this.size - index * BLOCK_BYTES);
      hashes.push(bufferRoot((this.blocks.get(index) ?? this.#copyBlock(index)).subarray(0, length)));
      if (i % BLOCKS_PER_SLICE === BLOCKS_PER_SLICE - 1) yield;
    }
    this.#setEntries(6, changed, hashes);
    for (const [below, level] of [[6, 16] as const, [16, 26] as const, [26, 36] as const]) {
      changed = [...new Set(changed.map((index) => Math.floor(index / GROUP_HASHES)))];
      this.#setEntries(
        level,
        changed,
        changed.map((index) => this.#groupRoot(below, index)),
      );
      if (level === 16) for (const sector of changed) this.#changedSectors.add(sector);
      if (level === 16) this.#gainSectors(changed);
    }
    this.#dirty.clear();
    this.#state = { root: this.#groupRoot(36, 0), size: this.size };
  }

  /** The root over the entries of a group that the file has. */
  #groupRoot(level: HashLevel, group: number): Uint8Array {
    const count = Math.min(entries(level, this.size) - group * GROUP_HASHES, GROUP_HASHES);
    return foldRoots((this.#group(level, group) ?? zeroGroup(level)).subarray(0, count * ROOT_BYTES));
  }

  #setEntries(level: HashLevel, indexes: readonly number[], hashes: readonly Uint8Array[]): void {
    const copied = new Set<number>();
    const groups = this.#groups.get(level)!;
    for (const [i, index] of indexes.entries()) {
      const group = Math.floor(index / GROUP_HASHES);
      if (!copied.has(group)) groups.set(group, (this.#group(level, group) ?? zeroGroup(level)).slice());
      copied.add(group);
      groups.get(group)!.set(hashes[i]!, (index % GROUP_HASHES) * ROOT_BYTES);
    }
  }

  #gainSectors(changed: readonly number[]): void {
    if (this.#wanted.size === 0) return;
    for (const sector of changed) {
      if ((sector + 1) * SECTOR_BYTES <= this.size) this.#gain(this.sectorRoot(sector), this.#snapshot(sector));
    }
  }

  #gain(root: Uint8Array, sector: ProofSource): void {
    if (this.#wanted.has(hexOf(root))) this.#wanted.set(hexOf(root), sector);
  }

  /** A full sector as it is now, whatever is written later. */
  #snapshot(sector: number): ProofSource {
    const copy = new StagedFile(this.#committed);
    copy.#state = { root: this.sectorRoot(sector), size: (sector + 1) * SECTOR_BYTES };
    copy.#kept = this.#kept;
    const first = sector * BLOCKS_PER_SECTOR;
    for (let index = first; index < first + BLOCKS_PER_SECTOR; index++) {
      const block = this.blocks.get(index);
      if (block !== undefined) copy.blocks.set(index, block);
    }
    const group = this.#group(6, sector);
    if (group !== undefined) copy.#groups.get(6)!.set(sector, group);
    const page = Math.floor(sector / GROUP_HASHES);
    copy.#groups.get(16)!.set(page, this.#groups.get(16)!.get(page)!);
    return sectorOf(copy, sector);
  }

  subtreeRoot({ leaf, height }: Subtree): Uint8Array {
    if (height < 6) {
      const bytes = new Uint8Array(Math.min(2 ** height * LEAF_BYTES, this.size - leaf * LEAF_BYTES));
      this.readAt(bytes, leaf * LEAF_BYTES);
      return bufferRoot(bytes);
    }
    const level = HASH_LEVELS[Math.floor((height - 6) / 10)]!;
    const first = leaf / 2 ** level;
    const hashes = this.#group(level, Math.floor(first / GROUP_HASHES));
    const at = (first % GROUP_HASHES) * ROOT_BYTES;
    return hashes === undefined
      ? zeroRoot(height)
      : foldRoots(hashes.subarray(at, at + 2 ** (height - level) * ROOT_BYTES));
  }
}

/** The full sector with this number of a tree, as a tree of its own. */
export function sectorOf(file: ProofSource, sector: number): ProofSource {
  return {
    readAt: (into, offset) => file.readAt(into, sector * SECTOR_BYTES + offset),
    subtreeRoot: ({ leaf, height }) => file.subtreeRoot({ leaf: leaf + (sector * SECTOR_BYTES) / LEAF_BYTES, height }),
  };
}

const ZERO_SECTOR: ProofSource = {
  readAt: (into) => void into.fill(0),
  subtreeRoot: ({ height }) => zeroRoot(height),
};

function zeroFrom(level: HashLevel, group: Uint8Array, entry: number): Uint8Array {
  group.set(zeroGroup(level).subarray(entry * ROOT_BYTES), entry * ROOT_BYTES);
  return group;
}

const zeroGroups = new Map<HashLevel, Uint8Array>();

/** 1,024 roots of zeros of a level. Not to be changed. */
function zeroGroup(level: HashLevel): Uint8Array {
  let group = zeroGroups.get(level);
  if (group === undefined) {
    group = new Uint8Array(GROUP_BYTES);
    for (let i = 0; i < GROUP_HASHES; i++) group.set(zeroRoot(level), i * ROOT_BYTES);
    zeroGroups.set(level, group);
  }
  return group;
}
