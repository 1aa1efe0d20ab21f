import { truncated, type TarInput } from './tar.ts';

/**
 * A tar that comes as a stream of pieces, each valid until the next is asked for. Holds one piece; copies only what
 * lies across two.
 */
export class StreamInput implements TarInput {
  offset = 0;
  readonly #pieces: AsyncIterator<Uint8Array>;
  #piece: Buffer = Buffer.alloc(0);

  constructor(pieces: AsyncIterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.asyncIterator]();
  }

  async take(bytes: number): Promise<Buffer> {
    if (this.#piece.length >= bytes) return this.#cut(bytes);
    const taken = Buffer.allocUnsafe(bytes);
    let length = 0;
    while (length < bytes) {
      if (this.#piece.length === 0 && !(await this.#refill())) break;
      length += this.#cut(Math.min(bytes - length, this.#piece.length)).copy(taken, length);
    }
    return taken.subarray(0, length);
  }

  /** Hands exactly `bytes` bytes of data to `write`, piece by piece, waiting where it says so. */
  async copy(bytes: number, write: (piece: Buffer) => Promise<void> | undefined): Promise<void> {
    for (let missing = bytes; missing > 0;) {
      if (this.#piece.length === 0 && !(await this.#refill()))
        throw truncated(this.offset, `${missing} bytes before the end of a file`);
      const part = this.#cut(Math.min(missing, this.#piece.length));
      missing -= part.length;
      const wait = write(part);
      if (wait !== undefined) await wait;
    }
  }

  /** Lets go of the stream before its end. */
  async close(): Promise<void> {
    await this.#pieces.return?.();
  }

  #cut(bytes: number): Buffer {
    const part = this.#piece.subarray(0, bytes);
    this.#piece = this.#piece.subarray(bytes);
    this.offset += bytes;
    return part;
  }

  async #refill(): Promise<boolean> {
    for (;;) {
      const next = await this.#pieces.next();
      if (next.done === true) return false;
      if (next.value.length === 0) continue;
      const { buffer, byteOffset, byteLength } = next.value;
      this.#piece = Buffer.from(buffer, byteOffset, byteLength);
      return true;
    }
  }
}
