import { BLOCK_BYTES, SECTOR_BYTES } from './merkle.ts';
import { floorLog2, leafCount } from './subtrees.ts';

/**
 * What executing costs, in SIP1's four resources. It follows from an instruction's inputs and the file's size alone.
 */
export interface Cost {
  /** Disk accesses. */
  accesses: number;
  /** Bytes read from disk. */
  read: number;
  /** Bytes written to disk. */
  written: number;
  /** Compressions of 65 bytes. */
  compute: number;
}

/** Every batch pays this, and a batch that is refused pays nothing else. */
export const INIT_COST: Cost = { accesses: 0, read: 0, written: 0, compute: 1 };
/** What an instruction costs that changes nothing and reads nothing. */
export const NOOP_COST: Cost = { accesses: 0, read: 0, written: 0, compute: 1 };

/** The sum of two costs. */
export function addCost(a: Cost, b: Cost): Cost {
  return {
    accesses: a.accesses + b.accesses,
    read: a.read + b.read,
    written: a.written + b.written,
    compute: a.compute + b.compute,
  };
}

/** Whether `cost` is within `budget` in all four resources. */
export function withinBudget(cost: Cost, budget: Cost): boolean {
  return (
    cost.accesses <= budget.accesses &&
    cost.read <= budget.read &&
    cost.written <= budget.written &&
    cost.compute <= budget.compute
  );
}

/** acc(l) = 1 + floor(l / S): the accesses that `length` bytes take. */
export function accesses(length: number): number {
  return 1 + Math.floor(length / SECTOR_BYTES);
}

/** b(o, l): how many 4 KiB blocks [offset, offset + length) touches. */
export function blocksTouched(offset: number, length: number): number {
  return length === 0 ? 0 : Math.floor((offset + length - 1) / BLOCK_BYTES) - Math.floor(offset / BLOCK_BYTES) + 1;
}

/** h(N) = ceil(log2(max(1, leaves))): the height of the tree of a file of `size` bytes. */
export function treeHeight(size: number): number {
  const leaves = Math.max(1, leafCount(size));
  return leaves === 1 ? 0 : floorLog2(leaves - 1) + 1;
}
