import koffi from 'koffi';

const clockGettime = koffi.load('libc.so.6').func('int clock_gettime(int, void *)');
const CLOCK_REALTIME_COARSE = 5;

/**
 * The clock that the kernel itself stamps files with: its write-back cache gives a file's times from it, so a finer one here would make a
 * file that is written after another look older. It moves with the kernel's tick (1 to 10 ms).
 */
export class Clock {
  readonly #now = new BigInt64Array(2);

  get sec(): number {
    return Number(this.#now[0]);
  }

  get nsec(): number {
    return Number(this.#now[1]);
  }

  /** Brings `sec` and `nsec` to now. */
  tick(): void {
    clockGettime(CLOCK_REALTIME_COARSE, this.#now);
  }
}
