/** Bodies that come, but hardly: a byte a second is no download. */
import { PassingError } from './retry.ts';

/** Over this long a wait ... */
const SPAN_MS = 60_000;
/** ... so many bytes must have come: 1 KiB a second. */
const BYTES_MIN = 60 * 1024;

/**
 * Passes `chunks` on; a PassingError when, of the time spent waiting for them, a minute brought less than 60 KiB. Time that the reader takes does not count.
 * `nowMs` is the clock.
 */
export async function* steady(
  chunks: AsyncIterable<Uint8Array>,
  what: string,
  nowMs: () => number = () => performance.now(),
): AsyncGenerator<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  let waitedMs = 0;
  let bytes = 0;
  try {
    for (;;) {
      const asked = nowMs();
      const next = await iterator.next();
      if (next.done === true) return;
      waitedMs += nowMs() - asked;
      bytes += next.value.length;
      if (waitedMs >= SPAN_MS) {
        if (bytes < BYTES_MIN) throw new PassingError(`${what} comes slower than 1 KiB a second`);
        waitedMs = bytes = 0;
      }
      yield next.value;
    }
  } finally {
    await iterator.return?.();
  }
}
