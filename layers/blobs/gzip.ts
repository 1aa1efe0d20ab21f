/** gzip members (RFC 1952) packed again, byte for byte as the compressor that made them did. */
import { constants, crc32, createDeflateRaw, deflateRawSync } from 'node:zlib';
import { Readable } from 'node:stream';
import type { GzipMaker } from './record.ts';

const HEADER_BYTES = 10;
const TRAILER_BYTES = 8;
const [FHCRC, FEXTRA, FNAME, FCOMMENT] = [2, 4, 8, 16];

/** The header of the member that `bytes` begin with (RFC 1952 section 2.3); undefined when it is not one, or not whole. */
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
  return at <= bytes.length ? bytes.subarray(0, at) : undefined;
}

/**
 * The DEFLATE stream that `maker` makes of `tar` at `level`: all of it, or, if there is more to come after `tar`, as much as that cannot
 * change any more.
 */
export function deflatePrefix(tar: Buffer, maker: GzipMaker, level: number, whole: boolean): Buffer {
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
      // The compressor reads it while the next piece is made.
      yield Buffer.from(piece);
    }
  }
  yield header;
  const deflate = createDeflateRaw({ level, chunkSize: 256 * 1024 });
  yield* Readable.from(counted(), { objectMode: false })
    .on('error', (error) => deflate.destroy(error))
    .pipe(deflate);
  yield gzipTrailer(sum, length);
}

/** RFC 1952 section 2.3.1: CRC32 and length modulo 2^32 of what was packed, little-endian. */
export function gzipTrailer(sum: number, length: number): Buffer {
  const trailer = Buffer.alloc(TRAILER_BYTES);
  trailer.writeUInt32LE(sum, 0);
  trailer.writeUInt32LE(length % 2 ** 32, 4);
  return trailer;
}
