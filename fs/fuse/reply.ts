import type { Attr } from '../view/view.ts';
import {
  ATTR_BYTES,
  ATTR_OUT_BYTES,
  DIRENT_BYTES,
  ENTRY_OUT_BYTES,
  FOREVER_SECONDS,
  MAX_PAYLOAD_BYTES,
  OUT_HEADER_BYTES,
  STATX_MASK,
  STATX_OUT_BYTES,
} from './protocol.ts';

const TWO_32 = 2 ** 32;

/**
 * The one buffer that answers are built in: `struct fuse_out_header`, then the payload. Offsets below are of the payload.
 * Layouts: the `fuse_*_out` structures of linux/fuse.h.
 */
export class Reply {
  readonly bytes: Buffer;
  private readonly words: Uint32Array;
  /** Where READ may put the file's bytes: all of the payload. */
  readonly payload: Uint8Array;

  constructor(buffer: ArrayBuffer = new ArrayBuffer(OUT_HEADER_BYTES + MAX_PAYLOAD_BYTES + 4096)) {
    this.bytes = Buffer.from(buffer);
    this.words = new Uint32Array(buffer);
    this.payload = this.bytes.subarray(OUT_HEADER_BYTES);
  }

  /** Writes the header; `errno` 0 is success, and a failure has no payload. Returns the length of the whole answer. */
  finish(uniqueLow: number, uniqueHigh: number, errno: number, payloadLength: number): number {
    const { words } = this;
    const length = OUT_HEADER_BYTES + payloadLength;
    words[0] = length;
    words[1] = errno === 0 ? 0 : -errno;
    words[2] = uniqueLow;
    words[3] = uniqueHigh;
    return length;
  }

  u16(offset: number, value: number): void {
    this.bytes.writeUInt16LE(value, OUT_HEADER_BYTES + offset);
  }

  u32(offset: number, value: number): void {
    this.words[(OUT_HEADER_BYTES + offset) >> 2] = value;
  }

  /** A u64 or i64 from a number: an integer of at most 2^53 either side of zero. */
  u64(offset: number, value: number): void {
    const word = (OUT_HEADER_BYTES + offset) >> 2;
    this.words[word] = value;
    this.words[word + 1] = Math.floor(value / TWO_32);
  }

  zero(offset: number, length: number): void {
    this.bytes.fill(0, OUT_HEADER_BYTES + offset, OUT_HEADER_BYTES + offset + length);
  }

  /** Puts bytes into the payload. */
  put(offset: number, bytes: Uint8Array): void {
    this.payload.set(bytes, offset);
  }

  /** `struct fuse_attr`. */
  attr(offset: number, attr: Attr): void {
    this.u64(offset, attr.ino);
    this.u64(offset + 8, attr.size);
    this.u64(offset + 16, attr.blocks);
    this.u64(offset + 24, attr.atimeSec);
    this.u64(offset + 32, attr.mtimeSec);
    this.u64(offset + 40, attr.ctimeSec);
    const word = (OUT_HEADER_BYTES + offset + 48) >> 2;
    const { words } = this;
    words[word] = attr.atimeNsec;
    words[word + 1] = attr.mtimeNsec;
    words[word + 2] = attr.ctimeNsec;
    words[word + 3] = attr.mode;
    words[word + 4] = attr.nlink;
    words[word + 5] = attr.uid;
    words[word + 6] = attr.gid;
    words[word + 7] = attr.rdev;
    words[word + 8] = attr.blksize;
    words[word + 9] = 0;
  }

  /** `struct fuse_attr_out`; returns its length. */
  attrOut(attr: Attr): number {
    this.u64(0, FOREVER_SECONDS);
    this.u64(8, 0);
    this.attr(16, attr);
    return ATTR_OUT_BYTES;
  }

  /** `struct fuse_entry_out` at `offset`: a name that leads to `attr`, both to be trusted for ever. Generation 0: inode numbers are never reused. */
  entry(offset: number, attr: Attr): number {
    this.u64(offset, attr.ino);
    this.u64(offset + 8, 0);
    this.u64(offset + 16, FOREVER_SECONDS);
    this.u64(offset + 24, FOREVER_SECONDS);
    this.u64(offset + 32, 0);
    this.attr(offset + 40, attr);
    return ENTRY_OUT_BYTES;
  }

  /** `struct fuse_entry_out` with node 0: there is no such name, and the kernel may remember that for ever. */
  noEntry(): number {
    this.zero(0, ENTRY_OUT_BYTES);
    this.u64(16, FOREVER_SECONDS);
    return ENTRY_OUT_BYTES;
  }

  /** `struct fuse_open_out`. */
  openOut(offset: number, flags: number): number {
    this.u64(offset, 0);
    this.u32(offset + 8, flags);
    this.u32(offset + 12, 0);
    return offset + 16;
  }

  /**
   * `struct fuse_dirent` with its name at `offset`; returns the offset after it (a multiple of 8), or -1 when that is beyond `limit`.
   * `cookie` is where the next readdir goes on.
   */
  dirent(offset: number, limit: number, name: string, ino: number, mode: number, cookie: number): number {
    const end = offset + ((DIRENT_BYTES + name.length + 7) & ~7);
    if (end > limit) return -1;
    // The padding after the name must not carry an earlier answer to the kernel.
    this.u64(end - 8, 0);
    this.u64(offset, ino);
    this.u64(offset + 8, cookie);
    this.u32(offset + 16, name.length);
    this.u32(offset + 20, (mode >>> 12) & 15);
    this.bytes.write(name, OUT_HEADER_BYTES + offset + DIRENT_BYTES, 'latin1');
    return end;
  }

  /** The `fuse_entry_out` of a `fuse_direntplus` that says nothing about its inode (`.` and `..`). */
  blankEntry(offset: number): void {
    this.zero(offset, 40 + ATTR_BYTES);
  }

  /** `struct fuse_statx_out`; returns its length. */
  statx(attr: Attr): number {
    this.zero(0, STATX_OUT_BYTES);
    this.u64(0, FOREVER_SECONDS);
    const at = 32;
    this.u32(at, STATX_MASK);
    this.u32(at + 4, attr.blksize);
    this.u32(at + 16, attr.nlink);
    this.u32(at + 20, attr.uid);
    this.u32(at + 24, attr.gid);
    this.u16(at + 28, attr.mode);
    this.u64(at + 32, attr.ino);
    this.u64(at + 40, attr.size);
    this.u64(at + 48, attr.blocks);
    const times = [
      attr.atimeSec,
      attr.atimeNsec,
      attr.btimeSec,
      attr.btimeNsec,
      attr.ctimeSec,
      attr.ctimeNsec,
      attr.mtimeSec,
      attr.mtimeNsec,
    ];
    for (let i = 0; i < 4; i++) {
      this.u64(at + 64 + 16 * i, times[2 * i]!);
      this.u32(at + 72 + 16 * i, times[2 * i + 1]!);
    }
    // The wire has the device number as the kernel's own encoding: 12 bits major, 20 bits minor split around it.
    this.u32(at + 128, (attr.rdev >>> 8) & 0xfff);
    this.u32(at + 132, (attr.rdev & 0xff) | ((attr.rdev >>> 12) & 0xfff00));
    return STATX_OUT_BYTES;
  }
}
