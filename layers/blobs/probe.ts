/** Which compressor made a blob: what known ones make of the beginning of its tar is held against the beginning of the blob. */
import { deflatePrefix, gzipHeader, gzipTrailer } from './gzip.ts';
import { crc32 } from 'node:zlib';
import type { GzipMaker, Packing } from './record.ts';

/** Bytes of a tar that are tried: several DEFLATE blocks, and more than one of what packs in parallel blocks (pgzip 1 MiB, pigz 128 KiB). */
export const PROBE_TAR_BYTES = 2 * 1024 * 1024;
/** A first look at less of it tells most of them apart. */
const FIRST_LOOK_BYTES = 256 * 1024;
/** Less than this of a blob proves nothing. */
const PROVED_BYTES_MIN = 512;

interface Candidate {
  maker: GzipMaker;
  level: number;
}

/** The usual levels first. */
const ZLIB: readonly Candidate[] = [6, 9, 1, 5, 4, 3, 7, 8, 2].map((level) => ({ maker: 'zlib', level }));
const GO: readonly Candidate[] = [6, 9, 5, 4, 7, 8].map((level) => ({ maker: 'go', level }));
/** RFC 1952 section 2.3.1, OS: Go leaves it unknown, zlib says which it is. */
const OS_AT = 9;
const OS_UNKNOWN = 255;

/**
 * How the gzip blob that begins with `blob` was made from the tar that begins with `tar`; undefined when no known compressor did. With
 * `whole`, both are all there is, and the answer is proved; else it is what a prefix of some hundred kB shows, to be verified when the blob
 * is packed again.
 */
export function recognise(blob: Buffer, tar: Buffer, whole: boolean): Packing | undefined {
  const header = gzipHeader(blob);
  if (header === undefined) return undefined;
  const body = blob.subarray(header.length);
  const candidates = header[OS_AT] === OS_UNKNOWN ? GO : ZLIB;
  const found = candidates.find(({ maker, level }) => {
    if (
      tar.length > FIRST_LOOK_BYTES &&
      !begins(body, deflatePrefix(tar.subarray(0, FIRST_LOOK_BYTES), maker, level, false))
    )
      return false;
    const packed = deflatePrefix(tar, maker, level, whole);
    if (whole) return body.equals(Buffer.concat([packed, gzipTrailer(crc32(tar), tar.length)]));
    return packed.length >= PROVED_BYTES_MIN && begins(body, packed);
  });
  return found && { kind: 'gzip', ...found, header: header.toString('hex') };
}

function begins(whole: Buffer, part: Buffer): boolean {
  return whole.length >= part.length && whole.subarray(0, part.length).equals(part);
}
