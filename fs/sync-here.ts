/**
 * An fdatasync in the serving thread may take this long; two in a row that took longer send that many to the syncer, twice as many the next time. A single one had zeros to write
 * that are ahead of the log, or another program's bytes.
 */
const HERE_MS = 2;
const FIRST_BANISHED = 64;
const MOST_BANISHED = 4096;

/** Whether the serving thread does an fdatasync itself: while the disk answers within the time that handing over and waking another thread costs. */
export class SyncHere {
  private banished = 0;
  private nextBanished = FIRST_BANISHED;
  private wasSlow = false;

  /** Counts as asked for one fdatasync. */
  pays(): boolean {
    if (this.banished === 0) return true;
    this.banished--;
    return false;
  }

  measure(sync: () => void): void {
    const start = performance.now();
    sync();
    const isSlow = performance.now() - start >= HERE_MS;
    const isSlowAgain = isSlow && this.wasSlow;
    this.wasSlow = isSlow;
    if (!isSlow) this.nextBanished = FIRST_BANISHED;
    if (!isSlowAgain) return;
    this.banished = this.nextBanished;
    this.nextBanished = Math.min(MOST_BANISHED, 2 * this.nextBanished);
  }
}
