import { crc32 } from 'node:zlib';
import { PgError } from '../../mdm/error.ts';
import { CHECK_BYTES, tableBytes, tableOffset } from './entry.ts';
import { readFully } from './disk.ts';
import { viewOf } from './scanner.ts';

/** Payloads up to this are read with their checksums in one go. */
const WHOLE_BYTES = 64 << 10;
/** Larger ones in pieces of at most this. */
const PIECE_BYTES = 256 << 10;

/** Reads parts of payloads from a log's file; every byte is checked, and no more is read than the checksums of those bytes cover. */
export class PayloadReader {
  readonly #fd: number;
  readonly #salt: number;
  readonly #path: string;
  readonly #scratch = Buffer.allocUnsafeSlow(PIECE_BYTES + 2 * CHECK_BYTES);
  readonly #view = viewOf(this.#scratch);
  /** The second and later checksums of the large payload last read. */
  #table: DataView = new DataView(new ArrayBuffer(0));
  #tableOf = -1;

  constructor(fd: number, salt: number, path: string) {
    this.#fd = fd;
    this.#salt = salt;
    this.#path = path;
  }

  /** Copies [from, from + length) of the payload of `payloadBytes` at `payloadAt` of the log to `into` at `at`. PgError LOG_DAMAGED. */
  read(payloadAt: number, payloadBytes: number, from: number, into: Uint8Array, at: number, length: number): void {
    if (payloadBytes <= WHOLE_BYTES) return this.#readWhole(payloadAt, payloadBytes, from, into, at, length);
    for (let done = 0; done < length;) {
      const piece = Math.min(PIECE_BYTES - ((from + done) % PIECE_BYTES), length - done);
      this.#readPiece(payloadAt, payloadBytes, from + done, into, at + done, piece);
      done += piece;
    }
  }

  /** One read from the first checksum (just before the payload) to the table behind it. */
  #readWhole(
    payloadAt: number,
    payloadBytes: number,
    from: number,
    into: Uint8Array,
    at: number,
    length: number,
  ): void {
    const end = tableOffset(payloadBytes) + tableBytes(payloadBytes);
    this.#fill(payloadAt - 4, end + 4);
    const first = Math.floor(from / CHECK_BYTES);
    for (let block = first; block * CHECK_BYTES < from + length; block++) {
      const start = 4 + block * CHECK_BYTES;
      const bytes = this.#scratch.subarray(start, 4 + Math.min(payloadBytes, (block + 1) * CHECK_BYTES));
      const slot = block === 0 ? 0 : 4 + tableOffset(payloadBytes) + 4 * (block - 1);
      this.#check(bytes, this.#view.getUint32(slot, true), payloadAt + block * CHECK_BYTES);
    }
    into.set(this.#scratch.subarray(4 + from, 4 + from + length), at);
  }

  #readPiece(
    payloadAt: number,
    payloadBytes: number,
    from: number,
    into: Uint8Array,
    at: number,
    length: number,
  ): void {
    const start = from - (from % CHECK_BYTES);
    const end = Math.min(payloadBytes, Math.ceil((from + length) / CHECK_BYTES) * CHECK_BYTES);
    this.#loadTable(payloadAt, payloadBytes);
    this.#fill(payloadAt + start, end - start);
    for (let block = start; block < end; block += CHECK_BYTES) {
      const bytes = this.#scratch.subarray(block - start, Math.min(end, block + CHECK_BYTES) - start);
      this.#check(bytes, this.#table.getUint32((block / CHECK_BYTES) * 4, true), payloadAt + block);
    }
    into.set(this.#scratch.subarray(from - start, from - start + length), at);
  }

  #loadTable(payloadAt: number, payloadBytes: number): void {
    if (this.#tableOf === payloadAt) return;
    const bytes = tableBytes(payloadBytes);
    const table = Buffer.allocUnsafeSlow(4 + bytes);
    const got =
      readFully(this.#fd, table, 0, 4, payloadAt - 4) +
      readFully(this.#fd, table, 4, bytes, payloadAt + tableOffset(payloadBytes));
    if (got < 4 + bytes) throw damaged(this.#path, payloadAt);
    this.#table = viewOf(table);
    this.#tableOf = payloadAt;
  }

  #fill(offset: number, length: number): void {
    if (readFully(this.#fd, this.#scratch, 0, length, offset) < length) throw damaged(this.#path, offset);
  }

  #check(bytes: Uint8Array, expected: number, offset: number): void {
    if (crc32(bytes, this.#salt) !== expected) throw damaged(this.#path, offset);
  }
}

function damaged(path: string, offset: number): PgError {
  const sector = Math.floor(offset / (4 << 20));
  return new PgError('LOG_DAMAGED', `${path}: bytes at ${offset} (sector ${sector}) are not what was written`, {
    hint: 'the disk is failing: take the container from a replica',
  });
}
