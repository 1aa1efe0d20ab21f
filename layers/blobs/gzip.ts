/** gzip members (RFC 1952) packed again, byte for byte as the compressor that made them did. */
import { constants, crc32, createDeflateRaw, deflateRawSync } from 'node:zlib';
import { Readable } from 'node:stream';
import { GoDeflate } from './go-deflate.ts';
import type { GzipMaker } from './record.ts';

const HEADER_BYTES = 10;
/** Of a header that is written down; a name in it has as many as whoever packed it likes. */
const HEADER_BYTES_MAX = 1024;
const TRAILER_BYTES = 8;
/** Packed in one go: other work of the thread comes between. */
const GO_PIECE_BYTES = 256 * 1024;
const [FHCRC, FEXTRA, FNAME, FCOMMENT] = [2, 4, 8, 16];

/** The header of the member that `bytes` begin with (RFC 1952 section 2.3); undefined when it is not one, not whole, or longer than 1 KiB. */
export function gzipHeader(bytes: Buffer): Buffer | undefined {
  if (bytes.length < HEADER_BYTES || bytes.readUInt16BE(0) !== 0x1f8b || bytes[2] !== 8) return undefined;
  const flags = bytes[3]!;
  let at = HEADER_BYTES;
  if (flags & FEXTRA) {
    if (at + 2 > bytes.length) return undefined;
    at += 2 + bytes.readUInt16LE(at);
  }
  for (const flag of [FNAME, FCOMMENT]) {
    if (!(flags & flag)) continue;
    const end = bytes.indexOf(0, at);
    if (end < 0) return undefined;
    at = end + 1;
  }
  if (flags & FHCRC) at += 2;
  return at <= Math.min(bytes.length, HEADER_BYTES_MAX) ? bytes.subarray(0, at) : undefined;
}

/**
 * The DEFLATE stream that `maker` makes of `tar` at `level`: all of it, or, if there is more to come after `tar`, as much as that cannot
 * change any more.
 */
export function deflatePrefix(tar: Buffer, maker: GzipMaker, level: number, whole: boolean): Buffer {
  if (maker === 'go') {
    const deflate = new GoDeflate(level);
    const parts = [deflate.push(tar)];
    if (whole) parts.push(deflate.finish());
    return Buffer.concat(parts);
  }
  return deflateRawSync(tar, { level, finishFlush: whole ? constants.Z_FINISH : constants.Z_NO_FLUSH });
}

/** A gzip member of `tar`: `header`, what `maker` makes of it, CRC32 and length. */
export async function* gzipAgain(
  header: Uint8Array,
  maker: GzipMaker,
  level: number,
  tar: Iterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  let sum = 0;
  let length = 0;
  function* counted(): Generator<Uint8Array> {
    for (const piece of tar) {
      sum = crc32(piece, sum);
      length += piece.length;
      yield piece;
    }
  }
  yield header;
  if (maker === 'go') yield* goDeflated(level, counted());
  else yield* zlibDeflated(level, counted());
  yield gzipTrailer(sum, length);
}

function* goDeflated(level: number, pieces: Iterable<Uint8Array>): Generator<Uint8Array> {
  const deflate = new GoDeflate(level);
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; at += GO_PIECE_BYTES) {
      const packed = deflate.push(piece.subarray(at, at + GO_PIECE_BYTES));
      if (packed.length > 0) yield packed;
    }
  }
  yield deflate.finish();
}

async function* zlibDeflated(level: number, pieces: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  function* copies(): Generator<Buffer> {
    // The compressor reads it while the next piece is made.
    for (const piece of pieces) yield Buffer.from(piece);
  }
  const deflate = createDeflateRaw({ level, chunkSize: 256 * 1024 });
  yield* Readable.from(copies(), { objectMode: false })
    .on('error', (error) => deflate.destroy(error))
    .pipe(deflate);
}

/** RFC 1952 section 2.3.1: CRC32 and length modulo 2^32 of what was packed, little-endian. */
export function gzipTrailer(sum: number, length: number): Buffer {
  const trailer = Buffer.alloc(TRAILER_BYTES);
  trailer.writeUInt32LE(sum, 0);
  trailer.writeUInt32LE(length % 2 ** 32, 4);
  return trailer;
}
