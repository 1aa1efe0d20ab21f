import { PgError } from '../../mdm/error.ts';
import {
  decodeHeader,
  Entry,
  FLAG_DATA,
  headCheck,
  headIsWhole,
  LOG_HEADER_BYTES,
  payloadIsWhole,
  peekFlags,
  peekHead,
  peekLength,
  peekPayload,
  peekSequence,
  tableBytes,
  tableOffset,
} from './entry.ts';
import { readFully, ZEROS } from './disk.ts';

const WINDOW_BYTES = 4 << 20;
/** Replay does not read payloads of this size that it need not see. */
const SKIP_BYTES = 32 << 10;

/** What `Scanner.next` met: an entry; nothing but zeros or the end; something that is no entry, or a damaged one. */
export type Step = 'entry' | 'end' | 'damage';

/** Walks a log's entries in order. Every head it gives has been checked; payloads as told by `payloads`. */
export class Scanner {
  /** Where the next entry starts. */
  at: number;
  /** The sequence number that it must have. */
  sequence: number;
  /** After 'entry' of a scan with payloads 'report': whether the payload is as it was written. */
  payloadWhole = true;
  readonly #fd: number;
  readonly #salt: number;
  readonly #end: number;
  readonly #payloads: 'report' | 'skip data';
  #window: Buffer = Buffer.allocUnsafeSlow(WINDOW_BYTES);
  #view: DataView = viewOf(this.#window);
  /** The window holds [from, from + length) of the log. */
  #from = 0;
  #length = 0;

  /**
   * Scans [at, end) of the log open as `fd`. `report` checks all payloads and says what it found; `skip data` reads and checks
   * payloads only of entries without FLAG_DATA (a damaged one is 'damage').
   */
  constructor(fd: number, salt: number, at: number, sequence: number, end: number, payloads: 'report' | 'skip data') {
    this.#fd = fd;
    this.#salt = salt;
    this.at = at;
    this.sequence = sequence;
    this.#end = end;
    this.#payloads = payloads;
  }

  next(entry: Entry): Step {
    const at = this.at;
    if (this.#have(at, 64) < 64) return 'end';
    const here = at - this.#from;
    const length = peekLength(this.#view, here);
    if (length === 0) return this.#isZero(at) ? 'end' : 'damage';
    if (at + length > this.#end || peekSequence(this.#view, here) !== this.sequence) return 'damage';
    const isData = (peekFlags(this.#view, here) & FLAG_DATA) !== 0;
    const skips = isData && this.#payloads === 'skip data';
    const step = skips && length > SKIP_BYTES ? this.#headOnly(entry, at) : this.#whole(entry, at, length, skips);
    if (step !== 'entry') return step;
    this.at = at + length;
    this.sequence++;
    return 'entry';
  }

  #whole(entry: Entry, at: number, length: number, skips: boolean): Step {
    if (this.#have(at, length) < length) return 'damage';
    const here = at - this.#from;
    if (!headIsWhole(this.#window, this.#view, here, this.#salt)) return 'damage';
    this.payloadWhole = skips || payloadIsWhole(this.#window, this.#view, here, this.#salt);
    if (!this.payloadWhole && this.#payloads === 'skip data') return 'damage';
    decodeHeader(entry, this.#window, this.#view, here, at);
    return 'entry';
  }

  /** A large payload stays unread: only the head and, behind the payload, the table are. */
  #headOnly(entry: Entry, at: number): Step {
    const head = peekHead(this.#view, at - this.#from);
    if (this.#have(at, head) < head) return 'damage';
    const here = at - this.#from;
    const payload = peekPayload(this.#view, here);
    const table = Buffer.allocUnsafe(tableBytes(payload));
    const tableAt = at + head + tableOffset(payload);
    if (readFully(this.#fd, table, 0, table.length, tableAt) < table.length) return 'damage';
    const check = headCheck(this.#window.subarray(here + 4, here + head), table, this.#salt);
    if (check !== this.#view.getUint32(here, true)) return 'damage';
    decodeHeader(entry, this.#window, this.#view, here, at);
    entry.payloadStart = -1;
    return 'entry';
  }

  /** Brings [at, at + need) into the window; returns how much of it there is. */
  #have(at: number, need: number): number {
    if (at >= this.#from && at + need <= this.#from + this.#length) return need;
    if (need > this.#window.length) {
      this.#window = Buffer.allocUnsafeSlow(need);
      this.#view = viewOf(this.#window);
    }
    this.#from = at;
    this.#length = readFully(this.#fd, this.#window, 0, Math.min(this.#window.length, Math.max(0, this.#end - at)), at);
    return Math.min(need, this.#length);
  }

  /** Whether there are only zeros from `at` to the end of the file: space written or reserved ahead. */
  #isZero(at: number): boolean {
    for (let from = at; from < this.#end;) {
      const got = readFully(this.#fd, this.#window, 0, Math.min(ZEROS.length, this.#end - from), from);
      this.#length = 0;
      if (got === 0) return true;
      if (!this.#window.subarray(0, got).equals(ZEROS.subarray(0, got))) return false;
      from += got;
    }
    return true;
  }
}

/** Where an entry starts, and the number that it has. */
export interface Place {
  size: number;
  sequence: number;
}

/** Where the entries start that a log without any mark is scanned from. */
export const SCAN_START: Place = { size: LOG_HEADER_BYTES, sequence: 1 };

/** Where the entries start behind a commit that ends at `size` and has this number. */
export const behind = ({ size, sequence }: Place): Place => ({ size, sequence: sequence + 1 });

/**
 * Entry after entry of [from, to) of the log open as `fd`, all in one object; file data is not read. `to` is a commit's end: everything before it must be
 * whole. PgError LOG_CORRUPT.
 */
export function* entriesBetween(fd: number, salt: number, from: Place, to: number, path: string): Generator<Entry> {
  const scanner = new Scanner(fd, salt, from.size, from.sequence, to, 'skip data');
  const entry = new Entry();
  while (scanner.at < to) {
    if (scanner.next(entry) !== 'entry') throw new PgError('LOG_CORRUPT', `${path} is damaged at byte ${scanner.at}`);
    yield entry;
  }
}

export const viewOf = (bytes: Buffer): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
