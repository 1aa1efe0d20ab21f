import assert from 'node:assert/strict';
import type { Extent } from './content.ts';
import { BLOCK_BYTES, LEAF_BYTES, SECTOR_BYTES } from '../mdm/merkle.ts';

const ZEROS = Buffer.alloc(SECTOR_BYTES);

/**
 * 4 MiB of shared memory in which a sector is put together; what an earlier one left is in it. `Buffer.copy` is used
 * because it copies to shared memory at twice the speed of `set` and `fill`.
 */
export class Slot {
  readonly buffer = new SharedArrayBuffer(SECTOR_BYTES);
  readonly bytes = Buffer.from(this.buffer);

  /** Copies `chunk`, from its byte `from` on, `length` bytes, to `at`. */
  put(chunk: Uint8Array, from: number, length: number, at: number): void {
    const source = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    source.copy(this.bytes, at, from, from + length);
  }

  /** Makes `length` bytes from `at` on zero. */
  clear(at: number, length: number): void {
    ZEROS.copy(this.bytes, at, 0, length);
  }

  /** Makes the bytes from `at` to the end of its block zero, as the files of sectors have them. */
  clearBlock(at: number): void {
    this.clear(at, roundUp(at, BLOCK_BYTES) - at);
  }
}

/** A content, or the piece of a large one, that lies in a pack. */
export interface Item {
  readonly size: number;
  /** Where it lies in its pack; a multiple of 64, of 4,096 if `size` is at least that. */
  offset: number;
  /** Bytes of it that have been written. */
  filled: number;
  /** Known once it has been hashed. */
  root?: Uint8Array;
  /** It shares no pack with others. */
  readonly apart?: boolean;
  /** Where it is in the store, once that is decided. */
  extents?: readonly Extent[];
  /** What the content may be recognised by (anchors.ts), once it has been hashed. */
  anchors?: Uint32Array;
  /** The item is stored in these parts, one after another: some are in the store already, others are items of their own. */
  parts?: readonly (Extent | Item)[];
  /** The item with the same bytes that came before it in this import and is stored in its place. */
  twin?: Item;
  readonly owner: ItemOwner;
}

/** Whom an item's fate is told to. */
export interface ItemOwner {
  itemHashed(item: Item): void;
}

/** Contents of a pack: each takes a kilobyte of memory until its sector is written. More of them in 4 MiB would be smaller than two themselves. */
const ITEMS_MAX = 2048;

const roundUp = (n: number, unit: number): number => Math.ceil(n / unit) * unit;

/**
 * The layout of a sector being filled. Contents of a block or more start at a block, so that a read of theirs is a read
 * of whole blocks and their hashing is shared with the sector's; smaller ones start at a leaf and fill the gaps between
 * them.
 */
export class Pack {
  readonly slot: Slot;
  readonly items: Item[] = [];
  /** Where `items` lie here: an item that moved on to another pack has its new place in `offset`. */
  readonly offsets: number[] = [];
  /** Items that have room here but not all of their bytes yet. */
  pending = 0;
  closed = false;
  private end = 0;
  private gaps: { offset: number; length: number }[] = [];

  constructor(slot: Slot) {
    this.slot = slot;
  }

  /** Bytes up to the end of the last item. */
  get used(): number {
    return this.end;
  }

  /** Gives `item` its place; false if there is none. */
  place(item: Item): boolean {
    assert.ok(item.size > 0 && item.size <= SECTOR_BYTES);
    if (this.items.length === ITEMS_MAX) return false;
    const offset = this.find(item.size);
    if (offset === undefined) return false;
    item.offset = offset;
    this.items.push(item);
    this.offsets.push(offset);
    return true;
  }

  /** Gives up all items but these, which lie where they were placed, and makes the rest zero. Answers with the bytes up to the end of the last. */
  keepOnly(items: readonly Item[]): number {
    this.items.splice(0, Infinity, ...items);
    this.offsets.splice(0, Infinity, ...items.map(({ offset }) => offset));
    this.clearSlack();
    return Math.max(...items.map(({ offset, size }) => offset + size));
  }

  /** Makes all bytes zero that are in no item, up to the end of the last block. */
  clearSlack(): void {
    const spans = this.items.map(({ size }, i) => ({ at: this.offsets[i]!, size }));
    spans.sort((a, b) => a.at - b.at);
    let end = 0;
    for (const { at, size } of spans) {
      if (at > end) this.slot.clear(end, at - end);
      end = at + size;
    }
    this.slot.clearBlock(end);
  }

  private find(size: number): number | undefined {
    const aligned = size >= BLOCK_BYTES ? BLOCK_BYTES : LEAF_BYTES;
    if (aligned === LEAF_BYTES) {
      const taken = roundUp(size, LEAF_BYTES);
      const index = this.gaps.findIndex((gap) => gap.length >= taken);
      const gap = this.gaps[index];
      if (gap) {
        const { offset } = gap;
        gap.offset += taken;
        gap.length -= taken;
        if (gap.length === 0) this.gaps.splice(index, 1);
        return offset;
      }
    }
    const last = roundUp(this.end, LEAF_BYTES);
    const offset = roundUp(last, aligned);
    if (offset + size > SECTOR_BYTES) return undefined;
    if (offset > last) this.gaps.push({ offset: last, length: offset - last });
    this.end = offset + size;
    return offset;
  }
}
