/** The numbers, names and blobs that a checkpoint is made of (docs/formats/checkpoint.md), written into pieces and read from one buffer. */
const PIECE_BYTES = 1 << 20;

/** Writes into pieces of 1 MiB, one after another. */
export class PieceWriter {
  #pieces: Uint8Array<ArrayBuffer>[] = [];
  #bytes: Buffer<ArrayBuffer> = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  u32(value: number): void {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#room(8);
    this.#view.setUint32(at, value >>> 0, true);
    this.#view.setInt32(at + 4, Math.floor(value / 2 ** 32), true);
  }

  f64(value: number): void {
    const at = this.#room(8);
    this.#view.setFloat64(at, value, true);
  }

  time(sec: number, nsec: number): void {
    this.u64(sec);
    this.u32(nsec);
  }

  name(name: string): void {
    const at = this.#room(1 + name.length);
    this.#bytes[at] = name.length;
    this.#bytes.write(name, at + 1, 'latin1');
  }

  blob(value: Uint8Array): void {
    this.u32(value.length);
    const at = this.#room(value.length);
    this.#bytes.set(value, at);
  }

  /** Bytes as they are, of any number. */
  raw(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const part = bytes.subarray(done, done + PIECE_BYTES);
      const at = this.#room(part.length);
      this.#bytes.set(part, at);
      done += part.length;
    }
  }

  /** Takes the pieces that are full away. */
  take(): Uint8Array<ArrayBuffer>[] {
    const full = this.#pieces;
    this.#pieces = [];
    return full;
  }

  /** All that is left. */
  finish(): Uint8Array<ArrayBuffer>[] {
    return [...this.take(), this.#bytes.subarray(0, this.#at)];
  }

  /** Place for `bytes` bytes (names and values are far smaller than a piece); take it before the buffer, which it may change. */
  #room(bytes: number): number {
    if (this.#at + bytes > PIECE_BYTES) {
      this.#pieces.push(this.#bytes.subarray(0, this.#at));
      this.#bytes = Buffer.allocUnsafeSlow(PIECE_BYTES);
      this.#view = new DataView(this.#bytes.buffer);
      this.#at = 0;
    }
    const at = this.#at;
    this.#at += bytes;
    return at;
  }
}

/** Reads what was written, in order. */
export class PieceReader {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  skip(bytes: number): void {
    this.#at += bytes;
  }

  u32(): number {
    this.#at += 4;
    return this.#view.getUint32(this.#at - 4, true);
  }

  u64(): number {
    const low = this.u32();
    return low + this.u32() * 2 ** 32;
  }

  i64(): number {
    const low = this.u32();
    return low + (this.u32() | 0) * 2 ** 32;
  }

  f64(): number {
    this.#at += 8;
    return this.#view.getFloat64(this.#at - 8, true);
  }

  name(): string {
    const length = this.#bytes[this.#at]!;
    this.#at += 1 + length;
    return this.#bytes.toString('latin1', this.#at - length, this.#at);
  }

  blob(): Uint8Array {
    const length = this.u32();
    this.#at += length;
    return Uint8Array.prototype.slice.call(this.#bytes, this.#at - length, this.#at);
  }
}
