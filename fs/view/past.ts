import type { Tree } from '../../layers/tree.ts';
import { PgError } from '../../mdm/error.ts';
import type { Entry } from '../log/entry.ts';
import { type Log, openLog } from '../log/log.ts';
import { apply } from './apply.ts';
import { restoreState } from './checkpoint.ts';
import { FieldReader, ROLLBACK } from './entries.ts';
import { State } from './state.ts';
import { serializeState } from './state-walk.ts';

/**
 * The states that a log's ROLLBACK entries go back to, found when the first of them is met in a replay: one pass finds which, one keeps each as it comes by.
 * So replay takes time in proportion to the log however often it was rolled back.
 */
export class PastStates {
  readonly #tree: Tree;
  readonly #dir: string;
  /** Of a log that is replayed up to this size. */
  readonly #limit: number;
  #kept: Map<number, Buffer> | undefined;

  constructor(tree: Tree, dir: string, limit: number) {
    this.#tree = tree;
    this.#dir = dir;
    this.#limit = limit;
  }

  /** The state that the log's first `size` bytes made; the caller's to change. PgError LOG_CORRUPT when nothing goes back there, or it is not there any more. */
  at(size: number): State {
    this.#kept ??= this.#keepAll();
    // Whoever replays from before the checkpoint meets entries that the pass from there does not.
    const payload = this.#kept.get(size) ?? this.#before(size);
    this.#kept.set(size, payload);
    return restored(this.#tree, payload);
  }

  #keepAll(): Map<number, Buffer> {
    const wanted = this.#wanted();
    const kept = new Map<number, Buffer>();
    this.#withLog(this.#limit, (log) => {
      const from = log.checkpoint?.size ?? 0;
      for (const size of wanted.filter((size) => size < from)) kept.set(size, this.#before(size));
      const later = wanted.filter((size) => size >= from);
      const state = log.checkpoint === undefined ? new State(this.#tree) : restored(this.#tree, log.checkpoint.payload);
      state.past = (size) => restored(this.#tree, kept.get(size)!);
      const keepUpTo = (at: number): void => {
        while (later.length > 0 && later[0]! <= at) kept.set(later.shift()!, Buffer.concat(serializeState(state)));
      };
      const fields = new FieldReader();
      log.replay((entry) => {
        keepUpTo(entry.at);
        apply(state, entry, fields);
      });
      keepUpTo(this.#limit);
    });
    return kept;
  }

  /** Sizes that are gone back to, in order. */
  #wanted(): number[] {
    const sizes = new Set<number>();
    const fields = new FieldReader();
    this.#withLog(this.#limit, (log) =>
      log.replay((entry) => {
        if (entry.type === ROLLBACK) sizes.add(rollbackSize(entry, fields));
      }),
    );
    return [...sizes].toSorted((a, b) => a - b);
  }

  /** A state from before the checkpoint that this replay starts from. */
  #before(size: number): Buffer {
    return this.#withLog(size, (log) => {
      if (log.written !== size)
        throw new PgError('LOG_CORRUPT', `${this.#dir}/log goes back to byte ${size}, which is no place in it`);
      const state = log.checkpoint === undefined ? new State(this.#tree) : restored(this.#tree, log.checkpoint.payload);
      const past = new PastStates(this.#tree, this.#dir, size);
      state.past = (earlier) => past.at(earlier);
      const fields = new FieldReader();
      log.replay((entry) => apply(state, entry, fields));
      return Buffer.concat(serializeState(state));
    });
  }

  #withLog<T>(limit: number, use: (log: Log) => T): T {
    const log = openLog(this.#dir, { readOnly: true, limit });
    try {
      return use(log);
    } finally {
      log.close();
    }
  }
}

function restored(tree: Tree, payload: Buffer): State {
  const state = new State(tree);
  restoreState(state, payload);
  return state;
}

function rollbackSize(entry: Entry, fields: FieldReader): number {
  fields.start(entry.bytes, entry.view, entry.fieldsStart, entry.fieldsEnd);
  return fields.u64();
}
