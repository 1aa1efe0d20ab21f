import { FLAG_DATA } from '../log/entry.ts';

/** The log entries of a container's files; fields byte by byte in docs/formats/log.md. */
export const WRITE = 16;
export const SETATTR = 17;
export const CREATE = 18;
export const LINK = 19;
export const UNLINK = 20;
export const RENAME = 21;
export const FALLOCATE = 22;
export const COPY = 23;
export const SETXATTR = 24;
export const REMOVEXATTR = 25;
export const ROLLBACK = 26;
export const MOVE = 27;

/** The names of the log's entries, as docs/formats/log.md has them. */
export const ENTRY_NAMES: Readonly<Record<number, string>> = {
  1: 'HEADER',
  2: 'COMMIT',
  3: 'NAMESPACE',
  4: 'ROOT',
  5: 'CHECKPOINT',
  [WRITE]: 'WRITE',
  [SETATTR]: 'SETATTR',
  [CREATE]: 'CREATE',
  [LINK]: 'LINK',
  [UNLINK]: 'UNLINK',
  [RENAME]: 'RENAME',
  [FALLOCATE]: 'FALLOCATE',
  [COPY]: 'COPY',
  [SETXATTR]: 'SETXATTR',
  [REMOVEXATTR]: 'REMOVEXATTR',
  [ROLLBACK]: 'ROLLBACK',
  [MOVE]: 'MOVE',
};

/** Flags of WRITE: its payload stays in the log; and setuid and setgid go. */
export const WRITE_FLAGS = FLAG_DATA;
export const FLAG_KILL = 1;

/** What a SETATTR sets. */
export const SET_MODE = 1;
export const SET_UID = 2;
export const SET_GID = 4;
export const SET_SIZE = 8;
export const SET_ATIME = 16;
export const SET_MTIME = 32;
export const SET_CTIME = 64;
/** Times that become the entry's own. */
export const SET_ATIME_NOW = 128;
export const SET_MTIME_NOW = 256;
/** A read moved the access time: ctime stays. */
export const KEEP_CTIME = 512;

/** Reads the fields of an entry one after another. */
export class FieldReader {
  #bytes: Buffer = Buffer.alloc(0);
  #view: DataView = new DataView(new ArrayBuffer(0));
  #at = 0;
  #end = 0;

  start(bytes: Buffer, view: DataView, at: number, end: number): void {
    this.#bytes = bytes;
    this.#view = view;
    this.#at = at;
    this.#end = end;
  }

  u16(): number {
    const value = this.#view.getUint16(this.#at, true);
    this.#at += 2;
    return value;
  }

  u32(): number {
    const value = this.#view.getUint32(this.#at, true);
    this.#at += 4;
    return value;
  }

  u64(): number {
    const low = this.#view.getUint32(this.#at, true);
    const value = low + this.#view.getUint32(this.#at + 4, true) * 2 ** 32;
    this.#at += 8;
    return value;
  }

  /** Seconds before or after 1970. */
  i64(): number {
    const low = this.#view.getUint32(this.#at, true);
    const value = low + this.#view.getInt32(this.#at + 4, true) * 2 ** 32;
    this.#at += 8;
    return value;
  }

  /** `length` bytes as latin1, or all that are left. */
  text(length = this.#end - this.#at): string {
    const value = this.#bytes.toString('latin1', this.#at, this.#at + length);
    this.#at += length;
    return value;
  }
}

/** Writes the fields of an entry one after another into one reused buffer. */
export class FieldWriter {
  readonly bytes = Buffer.alloc(1024);
  readonly view = new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length);
  at = 0;

  u16(value: number): void {
    this.view.setUint16(this.at, value, true);
    this.at += 2;
  }

  u32(value: number): void {
    this.view.setUint32(this.at, value, true);
    this.at += 4;
  }

  u64(value: number): void {
    this.view.setUint32(this.at, value >>> 0, true);
    this.view.setUint32(this.at + 4, Math.floor(value / 2 ** 32), true);
    this.at += 8;
  }

  i64(value: number): void {
    this.view.setUint32(this.at, value >>> 0, true);
    this.view.setInt32(this.at + 4, Math.floor(value / 2 ** 32), true);
    this.at += 8;
  }

  text(value: string): void {
    this.at += this.bytes.write(value, this.at, 'latin1');
  }
}
