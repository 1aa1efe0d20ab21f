import { type Batch, type BatchOptions, type BatchResult, BatchRun } from './batch.ts';
import type { CommittedFile } from './file.ts';

/** What an instruction is given besides its inputs: at once, or in pieces of any length as they arrive. */
export type Payload = Uint8Array | AsyncIterable<Uint8Array> | undefined;

/**
 * Executes a batch while its payloads arrive, one for each instruction, giving way to the event loop between slices, so
 * that a signal can come in from outside; it is heard also while nothing arrives. A batch that is refused has not
 * looked at the payloads; of one that is too long no more is taken than shows it. A source that throws makes the batch
 * fail (`MDM_PAYLOAD_BROKEN`).
 */
export async function executeBatchArriving(
  file: CommittedFile,
  batch: Batch,
  payloads: AsyncIterable<Payload> | Iterable<Payload>,
  options: BatchOptions = {},
): Promise<BatchResult> {
  const run = new BatchRun(file, batch, options);
  if (run.next === undefined) return run.finish();
  const giveWay = async (slices: Generator<void, void>): Promise<void> => {
    for (const _ of slices) await new Promise((resume) => setImmediate(resume));
  };
  try {
    for await (const payload of untilAborted(payloads, options.signal)) {
      run.begin();
      for await (const chunk of untilAborted(chunksOf(payload), options.signal)) {
        await giveWay(run.take(chunk));
        if (!run.isRunning) break;
      }
      await giveWay(run.complete());
      if (run.next === undefined) break;
    }
  } catch (error) {
    run.breakOff(error);
  }
  return run.finish();
}

function chunksOf(payload: Payload): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  if (payload === undefined) return [];
  return payload instanceof Uint8Array ? [payload] : payload;
}

/** What `source` gives, until it ends or the signal comes, whichever is first. */
async function* untilAborted<T>(
  source: AsyncIterable<T> | Iterable<T>,
  signal: AbortSignal | undefined,
): AsyncGenerator<T> {
  if (signal === undefined) return yield* source;
  const iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  let stop = (): void => {};
  const aborted = new Promise<undefined>((resolve) => (stop = () => resolve(undefined)));
  signal.addEventListener('abort', stop, { once: true });
  let ended = false;
  try {
    while (!signal.aborted) {
      const next = Promise.resolve(iterator.next());
      next.catch(() => {}); // when nobody waits for it any more
      const result = await Promise.race([next, aborted]);
      ended = result?.done === true;
      if (result === undefined || result.done === true) break;
      yield result.value;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    // Not waited for: a source that gives nothing may never answer this either.
    if (!ended) void Promise.resolve(iterator.return?.()).catch(() => {});
  }
}
