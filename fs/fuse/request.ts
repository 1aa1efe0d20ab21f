import { IN_HEADER_BYTES, REQUEST_BUFFER_BYTES } from './protocol.ts';

const TWO_32 = 2 ** 32;
/** Longer names are found by the native search; for short ones crossing into it costs more than it saves. */
const SHORT_NAME = 24;

/**
 * The one buffer that requests are read into, and typed views on what it holds. Everything a method returns that is not a
 * number or a string is a view into the buffer: it is gone when the next request is read.
 * Layouts: `struct fuse_in_header` and the `fuse_*_in` structures of linux/fuse.h.
 */
export class Request {
  readonly bytes: Buffer;
  private readonly words: Uint32Array;
  /** Length of the whole request, header included. */
  length = 0;
  opcode = 0;
  /** The inode that the request is about. */
  nodeid = 0;
  uid = 0;
  gid = 0;
  pid = 0;

  constructor(buffer: ArrayBuffer = new ArrayBuffer(REQUEST_BUFFER_BYTES)) {
    this.bytes = Buffer.from(buffer);
    this.words = new Uint32Array(buffer);
  }

  /** Decodes the header of the `received` bytes in the buffer; false when they are not one whole request. */
  parse(received: number): boolean {
    const { words } = this;
    if (received < IN_HEADER_BYTES || words[0] !== received) return false;
    this.length = received;
    this.opcode = words[1]!;
    this.nodeid = words[4]! + words[5]! * TWO_32;
    this.uid = words[6]!;
    this.gid = words[7]!;
    this.pid = words[8]!;
    return true;
  }

  /** Low and high half of the request's `unique`, echoed as they came: it is the kernel's number, not ours. */
  get uniqueLow(): number {
    return this.words[2]!;
  }

  get uniqueHigh(): number {
    return this.words[3]!;
  }

  /** Bytes after the header. */
  get bodyLength(): number {
    return this.length - IN_HEADER_BYTES;
  }

  /** The u32 at `offset` (a multiple of 4) of the body. */
  u32(offset: number): number {
    return this.words[(IN_HEADER_BYTES + offset) >> 2]!;
  }

  /** The u64 at `offset` (a multiple of 4) of the body; beyond 2^53 it is rounded, and larger than every size that is valid. */
  u64(offset: number): number {
    const word = (IN_HEADER_BYTES + offset) >> 2;
    return this.words[word]! + this.words[word + 1]! * TWO_32;
  }

  /** The i64 at `offset` of the body (times before 1970 are negative). */
  i64(offset: number): number {
    const word = (IN_HEADER_BYTES + offset) >> 2;
    return this.words[word]! + (this.words[word + 1]! | 0) * TWO_32;
  }

  /** Offset in the body of the byte after the NUL that ends the string at `offset`; the body's end when there is none. */
  afterName(offset: number): number {
    const { bytes, length } = this;
    const start = IN_HEADER_BYTES + offset;
    const near = Math.min(length, start + SHORT_NAME);
    for (let at = start; at < near; at++) if (bytes[at] === 0) return at + 1 - IN_HEADER_BYTES;
    const end = bytes.indexOf(0, near);
    return (end < 0 || end >= length ? length : end + 1) - IN_HEADER_BYTES;
  }

  /** The NUL-terminated name at `offset` of the body, each byte one character (latin1). */
  name(offset: number): string {
    const start = IN_HEADER_BYTES + offset;
    const end = IN_HEADER_BYTES + this.afterName(offset) - 1;
    return this.bytes.toString('latin1', start, end);
  }

  /** A view of `length` bytes at `offset` of the body, cut at the request's end. */
  payload(offset: number, length: number): Uint8Array {
    const start = IN_HEADER_BYTES + offset;
    return this.bytes.subarray(start, Math.min(this.length, start + length));
  }
}
