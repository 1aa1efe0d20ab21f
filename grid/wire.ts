import type { Writable } from 'node:stream';
import { badMessage, decodeEnvelope, encodeEnvelope, type Envelope } from './envelope.ts';

/**
 * Frames on a connection (docs/protocols/node.md): u32 LE length of the envelope, u32 LE length of the bulk bytes, the envelope, the
 * bulk bytes. An envelope says what is meant; bulk bytes (a sector, a piece of a log) follow it raw and are checked by root.
 */
export const FRAME_HEADER_BYTES = 8;
export const MAX_ENVELOPE_BYTES = 1 << 20;
/** One sector. */
export const MAX_BULK_BYTES = 1 << 22;

/** A frame as it arrived. */
export interface Frame {
  envelope: Envelope;
  bulk: Buffer;
  /** Of the whole frame, on the wire. */
  bytes: number;
}

export const NO_BYTES: Buffer = Buffer.alloc(0);

/** Writes one frame. Returns its size on the wire. The bulk bytes must not change until the stream has taken them (`done`). */
export function writeFrame(to: Writable, envelope: Envelope, bulk: Uint8Array = NO_BYTES, done?: () => void): number {
  const body = encodeEnvelope(envelope);
  if (body.length > MAX_ENVELOPE_BYTES || bulk.length > MAX_BULK_BYTES) {
    throw new RangeError(`a frame of ${body.length} + ${bulk.length} bytes is over the bounds`);
  }
  const head = Buffer.allocUnsafe(FRAME_HEADER_BYTES + body.length);
  head.writeUInt32LE(body.length, 0);
  head.writeUInt32LE(bulk.length, 4);
  head.set(body, FRAME_HEADER_BYTES);
  if (bulk.length === 0) {
    to.write(head, done);
  } else {
    to.write(head);
    to.write(bulk, done);
  }
  return head.length + bulk.length;
}

/**
 * Puts frames together from the pieces that a socket gives. Memory is bounded: one frame, and a frame's announced lengths are checked
 * before anything is set aside for it.
 */
export class FrameReader {
  readonly #emit: (frame: Frame) => void;
  readonly #header = Buffer.alloc(FRAME_HEADER_BYTES);
  #envelope: Buffer = NO_BYTES;
  #bulk: Buffer = NO_BYTES;
  /** Bytes of the frame that have arrived, header included. */
  #filled = 0;

  constructor(emit: (frame: Frame) => void) {
    this.#emit = emit;
  }

  /** Takes the next bytes; calls `emit` for every frame they complete. BAD_MESSAGE (and the envelope's errors) when they are no frame. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      const target = this.#target();
      const taken = Math.min(chunk.length - at, target.length);
      target.set(chunk.subarray(at, at + taken));
      at += taken;
      this.#filled += taken;
      if (this.#filled === FRAME_HEADER_BYTES) this.#begin();
      if (this.#filled >= FRAME_HEADER_BYTES && this.#filled === this.#frameBytes()) this.#complete();
    }
  }

  /** Whether the bytes so far end in the middle of a frame. */
  get partial(): boolean {
    return this.#filled > 0;
  }

  #frameBytes(): number {
    return FRAME_HEADER_BYTES + this.#envelope.length + this.#bulk.length;
  }

  /** Where the next byte goes: never empty. */
  #target(): Buffer {
    if (this.#filled < FRAME_HEADER_BYTES) return this.#header.subarray(this.#filled);
    const inBody = this.#filled - FRAME_HEADER_BYTES;
    if (inBody < this.#envelope.length) return this.#envelope.subarray(inBody);
    return this.#bulk.subarray(inBody - this.#envelope.length);
  }

  #begin(): void {
    const envelopeBytes = this.#header.readUInt32LE(0);
    const bulkBytes = this.#header.readUInt32LE(4);
    if (envelopeBytes === 0 || envelopeBytes > MAX_ENVELOPE_BYTES || bulkBytes > MAX_BULK_BYTES) {
      throw badMessage(`a frame of ${envelopeBytes} + ${bulkBytes} bytes`);
    }
    this.#envelope = Buffer.allocUnsafe(envelopeBytes);
    this.#bulk = bulkBytes === 0 ? NO_BYTES : Buffer.allocUnsafeSlow(bulkBytes);
  }

  #complete(): void {
    const frame = { envelope: decodeEnvelope(this.#envelope), bulk: this.#bulk, bytes: this.#filled };
    this.#filled = 0;
    this.#envelope = this.#bulk = NO_BYTES;
    this.#emit(frame);
  }
}
