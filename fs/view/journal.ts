import { isPgError, PgError } from '../../mdm/error.ts';
import { Entry } from '../log/entry.ts';
import type { Log } from '../log/log.ts';
import { apply } from './apply.ts';
import { Clock } from './clock.ts';
import { FieldReader, FieldWriter } from './entries.ts';
import { FsError } from './error.ts';
import { PastStates } from './past.ts';
import type { State } from './state.ts';

/** How the view changes anything: `begin`, write the fields, then `append`, which puts the entry into the log and applies it. */
export class Journal {
  readonly fields = new FieldWriter();
  readonly log: Log | null;
  /** The entry in the making; its time is the operation's. */
  readonly entry = new Entry();
  /** Gives space of a full disk back, if it can, before an entry that removes something is refused; set by whoever has a cleaner. */
  makeSpace: (() => boolean) | undefined = undefined;
  /** The request in hand, as the kernel numbers it (two halves); 0 outside of one. */
  readonly request = { low: 0, high: 0 };
  readonly #state: State;
  readonly #reader = new FieldReader();
  readonly #clock = new Clock();

  constructor(state: State, log: Log | null) {
    this.#state = state;
    this.log = log;
  }

  /** FsError EROFS unless changes are possible. */
  writable(): Log {
    if (this.log === null || this.log.readOnly) throw new FsError('EROFS');
    return this.log;
  }

  /** Starts an entry: type, flags, the time. FsError EROFS. */
  begin(type: number, flags = 0): FieldWriter {
    this.writable();
    this.entry.type = type;
    this.entry.flags = flags;
    this.entry.result = 0;
    this.tick();
    this.fields.at = 0;
    return this.fields;
  }

  /** Sets the entry's time to now, and its request to the one in hand. */
  tick(): void {
    this.#clock.tick();
    this.entry.requestLow = this.request.low;
    this.entry.requestHigh = this.request.high;
    this.entry.sec = this.#clock.sec;
    this.entry.nsec = this.#clock.nsec;
  }

  /** Appends and applies. `freeing` entries may use the last reserve of space, and space is made for them. FsError ENOSPC, EIO: then nothing has changed. */
  append(payload?: Uint8Array, freeing = false): void {
    try {
      this.#append(payload, freeing);
    } catch (error) {
      if (!freeing || !isPgError(error, 'LOG_FULL') || !this.#spaceWasMade()) throw logError(error);
      this.appendNow(payload);
    }
  }

  /** As `append` of an entry that may use the last reserve; no space is made for it. */
  appendNow(payload: Uint8Array | undefined): void {
    try {
      this.#append(payload, true);
    } catch (error) {
      throw logError(error);
    }
  }

  #append(payload: Uint8Array | undefined, freeing: boolean): void {
    const { entry, fields } = this;
    entry.bytes = fields.bytes;
    entry.view = fields.view;
    entry.fieldsStart = 0;
    entry.fieldsEnd = fields.at;
    this.writable().append(entry, payload, freeing);
    apply(this.#state, entry, this.#reader);
  }

  /** The entry in the making stays what it is, though the cleaner makes others meanwhile. */
  #spaceWasMade(): boolean {
    const { entry, fields, makeSpace } = this;
    if (makeSpace === undefined) return false;
    const { type, flags, result, requestLow, requestHigh, sec, nsec } = entry;
    const [bytes, request] = [Buffer.from(fields.bytes.subarray(0, fields.at)), { ...this.request }];
    // Nothing that is done meanwhile is the request's.
    Object.assign(this.request, { low: 0, high: 0 });
    try {
      return makeSpace();
    } finally {
      Object.assign(this.request, request);
      Object.assign(entry, { type, flags, result, requestLow, requestHigh, sec, nsec });
      fields.bytes.set(bytes);
      fields.at = bytes.length;
    }
  }

  /** Applies every entry behind the log's checkpoint. PgError LOG_CORRUPT for one that makes no sense where it is. */
  replay(): void {
    const { log } = this;
    if (log === null) return;
    const past = new PastStates(this.#state.tree, log.dir, log.written);
    this.#state.past = (size) => past.at(size);
    log.replay((entry) => {
      try {
        apply(this.#state, entry, this.#reader);
      } catch (error) {
        const where = `the entry at byte ${entry.at} of ${log.dir}/log`;
        throw new PgError('LOG_CORRUPT', `${where} does not fit what is before it`, { cause: error });
      }
    });
  }
}

/** What a failed operation of the log or the store means to a program; anything unknown stays what it is: a bug. */
export function logError(error: unknown): unknown {
  if (isPgError(error, 'LOG_BUDGET')) return new FsError('EDQUOT', error.message, error);
  if (isPgError(error, 'LOG_FULL')) return new FsError('ENOSPC', error.message, error);
  if (isPgError(error)) return new FsError('EIO', error.message, error);
  if (error instanceof Error && 'syscall' in error) return new FsError('EIO', error.message, error);
  return error;
}
