import { crc32 } from 'node:zlib';
import { inputAnchors } from '../mdm/kernel/kernel.ts';

/**
 * Anchors are positions in a content that follow from the bytes there, not from where these lie. By them bytes that the store has are found again in a content that is
 * new: the versions of a library, a database or an archive differ in places only (docs/decisions/0071-content-defined-anchors.md).
 */

/** Contents, or pieces of them, below this size are stored whole. */
export const ANCHORED_BYTES = 128 * 1024;
/** The bytes from an anchor on that its fingerprint is of. */
export const WINDOW_BYTES = 4096;
/** One position in 65,536 is an anchor, but none within 32 KiB after another. */
const BELOW = 2 ** 16;
const APART_BYTES = 32_768;
/** Numbers that tell of one anchor: its position, and the CRC-32 of the first and of the second half of its window. */
export const ANCHOR_NUMBERS = 3;

/** One for all: of thousands, each would cross from thread to thread for itself. */
const NONE = new Uint32Array(0);

/** The anchors of the content that lies in the kernel's input from `offset` on; positions are counted from its beginning. Fewer than ANCHORED_BYTES have none. */
export function anchorsOfInput(input: Uint8Array, offset: number, length: number): Uint32Array {
  if (length < ANCHORED_BYTES) return NONE;
  const found = inputAnchors(offset, offset + length - WINDOW_BYTES, APART_BYTES, BELOW);
  const anchors = new Uint32Array(found.length * ANCHOR_NUMBERS);
  found.forEach((at, i) => {
    const half = at + WINDOW_BYTES / 2;
    anchors[ANCHOR_NUMBERS * i] = at - offset;
    anchors[ANCHOR_NUMBERS * i + 1] = crc32(input.subarray(at, half));
    anchors[ANCHOR_NUMBERS * i + 2] = crc32(input.subarray(half, at + WINDOW_BYTES));
  });
  return anchors;
}

/** A place in a sector. */
export interface AnchorPlace {
  readonly sector: Uint8Array;
  readonly offset: number;
}

/** Key in the table `anchors`: both checksums, big endian. */
export function anchorKey(first: number, second: number): Buffer {
  const key = Buffer.allocUnsafe(8);
  key.writeUInt32BE(first);
  key.writeUInt32BE(second, 4);
  return key;
}

export function encodeAnchor({ sector, offset }: AnchorPlace): Buffer {
  const value = Buffer.allocUnsafe(36);
  value.set(sector);
  value.writeUInt32LE(offset, 32);
  return value;
}

export function decodeAnchor(value: Buffer): AnchorPlace {
  return { sector: value.subarray(0, 32), offset: value.readUInt32LE(32) };
}
