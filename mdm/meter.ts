import { addCost, type Cost, INIT_COST } from './cost.ts';
import { readCost } from './instructions/read.ts';
import { truncateCost } from './instructions/truncate.ts';
import { writeCost } from './instructions/write.ts';
import { BLOCK_BYTES, SECTOR_BYTES } from './merkle.ts';

/** What one unit of each resource costs, in money. */
export type Prices = Cost;

/** The most that may be spent of each resource, and of money at these prices; what is left out is not limited. */
export interface Budget extends Partial<Cost> {
  amount?: { total: number; prices: Prices };
}

/** What `cost` comes to. */
export function amountOf(cost: Cost, prices: Prices): number {
  return (
    cost.accesses * prices.accesses +
    cost.read * prices.read +
    cost.written * prices.written +
    cost.compute * prices.compute
  );
}

/** What the batch [Truncate, Write] costs that appends `length` >= 1 bytes to a file of `size` bytes (`appendBatch`). */
export function appendCost(size: number, length: number): Cost {
  const truncate = addCost(INIT_COST, truncateCost(size, size + length));
  return addCost(truncate, writeCost(size, length, size + length));
}

/** More than the heights of all trees in a batch: a file of 2^53 bytes has 2^47 leaves. */
const HEIGHTS = 6 * 48;
const NOTHING: Cost = { accesses: 0, read: 0, written: 0, compute: 0 };

/**
 * Counts what is done with one append-only file, and with contents read by root beside it, in SIP1's four resources; and says when a budget is
 * exhausted. Every append and every read is a batch of its own.
 */
export class Meter {
  /** Up to here the file may grow in its next batch; Infinity without a budget. */
  limit = Infinity;
  #spent = NOTHING;
  #budget: Budget | null = null;
  #size = 0;

  get spent(): Readonly<Cost> {
    return this.#spent;
  }

  get budget(): Budget | null {
    return this.#budget;
  }

  /** Goes on from here: `spent` so far, the file has `size` bytes. */
  restore(spent: Cost, size: number): void {
    this.#spent = spent;
    this.#size = size;
    this.#setLimit();
  }

  setBudget(budget: Budget | null): void {
    this.#budget = budget;
    this.#setLimit();
  }

  /** Charges the batch that appended `length` bytes at `size`. What was accepted (`limit`) is always charged. */
  append(size: number, length: number): void {
    this.#spent = addCost(this.#spent, appendCost(size, length));
    this.#size = size + length;
    this.#setLimit();
  }

  /** Charges a Read of `length` bytes of the file; false, and nothing charged, when the budget does not allow it. */
  read(length: number): boolean {
    return this.#charge(length, this.#size);
  }

  /** Charges a ReadRoot of `length` bytes of a sector of the store; as `read`. */
  readRoot(length: number): boolean {
    return this.#charge(length, SECTOR_BYTES);
  }

  #charge(length: number, size: number): boolean {
    const spent = addCost(this.#spent, readCost(length, size));
    spent.compute += INIT_COST.compute;
    if (this.#budget !== null && !allowsRead(spent, this.#budget)) return false;
    this.#spent = spent;
    if (this.#budget !== null) this.#setLimit();
    return true;
  }

  /** As many whole blocks as the costs of a batch leave, whatever it is: a little less than the budget would allow. */
  #setLimit(): void {
    const budget = this.#budget;
    if (budget === null) {
      this.limit = Infinity;
      return;
    }
    const { accesses = Infinity, read = Infinity, written = Infinity, compute = Infinity, amount } = budget;
    const spent = this.#spent;
    let blocks = Infinity;
    if (accesses !== Infinity) {
      const sectors = Math.floor((accesses - spent.accesses - 2) / 2) - 1;
      blocks = (sectors * SECTOR_BYTES) / BLOCK_BYTES;
      // Less than a sector takes one access.
      if (sectors === 0) blocks = SECTOR_BYTES / BLOCK_BYTES - 1;
    }
    if (read - spent.read < 3 * BLOCK_BYTES) blocks = 0;
    blocks = Math.min(blocks, Math.floor((written - spent.written) / BLOCK_BYTES) - 1);
    blocks = Math.min(blocks, Math.floor((compute - spent.compute - 129 - HEIGHTS) / 128));
    if (amount !== undefined) blocks = Math.min(blocks, affordable(amount, spent));
    const first = Math.floor(this.#size / BLOCK_BYTES);
    this.limit = blocks > 0 ? (first + blocks) * BLOCK_BYTES : this.#size;
  }
}

/** Whether a read after which this much is spent is within the budget; it writes nothing, so it does not matter how much was written. */
function allowsRead(spent: Cost, budget: Budget): boolean {
  const { accesses = Infinity, read = Infinity, compute = Infinity, amount } = budget;
  if (spent.accesses > accesses || spent.read > read || spent.compute > compute) return false;
  return amount === undefined || amountOf(spent, amount.prices) <= amount.total;
}

/** How many blocks one batch may write with the money that is left. */
function affordable({ total, prices }: { total: number; prices: Prices }, spent: Cost): number {
  const fixed = { accesses: 4, read: 3 * BLOCK_BYTES, written: BLOCK_BYTES, compute: 129 + HEIGHTS };
  const eachBlock = { accesses: (2 * BLOCK_BYTES) / SECTOR_BYTES, read: 0, written: BLOCK_BYTES, compute: 128 };
  const left = total - amountOf(spent, prices) - amountOf(fixed, prices);
  const price = amountOf(eachBlock, prices);
  if (left < 0) return 0;
  return price === 0 ? Infinity : Math.floor(left / price);
}
