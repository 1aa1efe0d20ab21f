/** The wall clock to the nanosecond's digits: Date's milliseconds, refined by the steady clock within each. Never runs backwards within a millisecond. */
export class Clock {
  sec = 0;
  nsec = 0;
  #millisecond = 0;
  #steady = 0;

  /** Brings `sec` and `nsec` to now. */
  tick(): void {
    const now = Date.now();
    const steady = performance.now();
    if (now !== this.#millisecond) {
      this.#millisecond = now;
      this.#steady = steady;
    }
    const within = Math.min(999_999, Math.floor((steady - this.#steady) * 1e6));
    this.sec = Math.floor(now / 1000);
    this.nsec = (now % 1000) * 1_000_000 + within;
  }
}
