/** Slots at the start, and what the table may fill of its slots before it doubles. */
const INITIAL_SLOTS = 1024;
const FULL = 0.7;

/**
 * How many references the kernel holds on each inode: it adds one with every entry that it is given, and takes them back by FORGET.
 * Only when the last is gone may an unlinked inode go. An open-addressing table in typed arrays: 12 bytes a slot, so a million
 * inodes in the kernel's cache cost 24 MiB, and nothing for the garbage collector to walk.
 */
export class Lookups {
  private inos = new Float64Array(INITIAL_SLOTS);
  private counts = new Uint32Array(INITIAL_SLOTS);
  private mask = INITIAL_SLOTS - 1;
  /** Slots in use, those of inodes forgotten since the last rebuild included (their count is 0). */
  private used = 0;
  private live = 0;
  private readonly inherited: boolean;

  /** `inherited`: another process served this connection before, and took its counts with it. */
  constructor(inherited = false) {
    this.inherited = inherited;
  }

  /** Inodes that the kernel refers to. */
  get size(): number {
    return this.live;
  }

  /** The kernel was given an entry that leads to `ino`. */
  add(ino: number): void {
    const slot = this.slotOf(ino);
    if (this.inos[slot] === 0) {
      this.inos[slot] = ino;
      this.used++;
    }
    if (this.counts[slot]!++ === 0) this.live++;
    if (this.used > FULL * (this.mask + 1)) this.rebuild();
  }

  /**
   * The kernel gave `count` references back; true when none is left. Of counts that went with an earlier process nothing is known, and nothing need be: the kernel gives
   * an inode's references back all at once, when it lets go of it.
   */
  forget(ino: number, count: number): boolean {
    const slot = this.slotOf(ino);
    const held = this.counts[slot]!;
    if (held === 0) return this.inherited;
    const left = Math.max(0, held - count);
    this.counts[slot] = left;
    if (left === 0) this.live--;
    return left === 0;
  }

  /** References held on `ino`. */
  count(ino: number): number {
    return this.counts[this.slotOf(ino)]!;
  }

  /** The slot of `ino`, or the free one where it belongs. */
  private slotOf(ino: number): number {
    const { inos, mask } = this;
    let slot = Math.imul((ino >>> 0) ^ ((ino / 0x100000000) & 0xffff), 0x9e3779b1) >>> 7;
    for (slot &= mask; inos[slot] !== 0 && inos[slot] !== ino; slot = (slot + 1) & mask);
    return slot;
  }

  /** Copies the live slots to a table that they fill by less than half: larger when needed, smaller when most were forgotten. */
  private rebuild(): void {
    const { inos, counts } = this;
    let slots = INITIAL_SLOTS;
    while (this.live * 2 > slots) slots *= 2;
    this.inos = new Float64Array(slots);
    this.counts = new Uint32Array(slots);
    this.mask = slots - 1;
    this.used = this.live;
    for (let i = 0; i < inos.length; i++) {
      if (counts[i] === 0) continue;
      const slot = this.slotOf(inos[i]!);
      this.inos[slot] = inos[i]!;
      this.counts[slot] = counts[i]!;
    }
  }
}
