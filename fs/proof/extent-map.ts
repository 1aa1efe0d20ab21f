import { getU64, putU64 } from '../log/entry.ts';
import { type ShownBytes, refuted } from './opening.ts';

/**
 * Where the bytes of a changed file are, as bytes of their own: a head and one record of 64 bytes, a leaf, for each extent, in order of their place in the
 * file (docs/formats/proof.md). What no extent covers is a hole. Its Merkle root stands in the file's record in the namespace.
 */
export const MAP_MAGIC = 'PGx1';
export const EXTENT_BYTES = 64;

/** Where an extent's bytes are. */
export const IN_LOG = 1;
export const ZEROS = 2;
export const IN_CONTENT = 3;

export interface MappedExtent {
  /** Place in the file, and length, in bytes. */
  start: number;
  length: number;
  kind: typeof IN_LOG | typeof ZEROS | typeof IN_CONTENT;
  /** Offset in the log, or in the content; 0 for zeros. */
  place: number;
  /** Of a content: its root and size. */
  content?: { root: Uint8Array; size: number };
}

/** Writes a map; what is one piece comes out as one extent, however many runs it was. */
export class MapWriter {
  readonly #bytes: Buffer;
  readonly #view: DataView;
  #count = 0;
  #last: MappedExtent | undefined;

  /** Room for `most` extents. */
  constructor(most: number) {
    this.#bytes = Buffer.alloc(EXTENT_BYTES * (1 + most));
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length);
  }

  /** Adds the next extent of the file. */
  add(extent: MappedExtent): void {
    const last = this.#last;
    if (last !== undefined && continues(last, extent)) {
      last.length += extent.length;
      putU64(this.#view, EXTENT_BYTES * this.#count + 8, last.length);
      return;
    }
    const at = EXTENT_BYTES * ++this.#count;
    putU64(this.#view, at, extent.start);
    putU64(this.#view, at + 8, extent.length);
    putU64(this.#view, at + 16, extent.place);
    putU64(this.#view, at + 24, extent.content?.size ?? 0);
    this.#view.setUint8(at + 31, extent.kind);
    if (extent.content !== undefined) this.#bytes.set(extent.content.root, at + 32);
    this.#last = { ...extent };
  }

  /** The content that a file of `size` bytes is from its first byte to its last, if it is one. */
  wholeContent(size: number): Uint8Array | undefined {
    const only = this.#count === 1 ? this.#last! : undefined;
    const isWhole = only?.kind === IN_CONTENT && only.start === 0 && only.place === 0 && only.length === size;
    return isWhole && only.content!.size === size ? only.content!.root : undefined;
  }

  /** The map's bytes. */
  finish(): Buffer {
    this.#bytes.write(MAP_MAGIC, 0, 'latin1');
    putU64(this.#view, 8, this.#count);
    return this.#bytes.subarray(0, EXTENT_BYTES * (1 + this.#count));
  }
}

function continues(last: MappedExtent, next: MappedExtent): boolean {
  if (next.kind !== last.kind || next.start !== last.start + last.length) return false;
  if (next.kind === ZEROS) return true;
  if (next.place !== last.place + last.length) return false;
  return next.kind === IN_LOG || Buffer.compare(next.content!.root, last.content!.root) === 0;
}

/** Index of the first extent of a map that ends behind `offset`; the number of extents when none does. */
export function firstEndingBehind(map: Buffer, offset: number): number {
  const view = new DataView(map.buffer, map.byteOffset, map.length);
  let [low, high] = [0, map.length / EXTENT_BYTES - 1];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = EXTENT_BYTES * (1 + middle);
    if (getU64(view, at) + getU64(view, at + 8) > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** How many extents the map has; PROOF_REFUTED when it is none. */
export function mapCount(map: ShownBytes): number {
  const head = Buffer.from(map.read(0, EXTENT_BYTES));
  const count = getU64(new DataView(head.buffer, head.byteOffset, head.length), 8);
  if (head.toString('latin1', 0, 4) !== MAP_MAGIC || map.size !== EXTENT_BYTES * (1 + count))
    throw refuted('a map of extents is none');
  return count;
}

/** The extent of this index. PROOF_REFUTED when it cannot be one. */
export function readExtent(map: ShownBytes, index: number): MappedExtent {
  const bytes = map.read(EXTENT_BYTES * (1 + index), EXTENT_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, EXTENT_BYTES);
  const kind = view.getUint8(31);
  const extent = { start: getU64(view, 0), length: getU64(view, 8), place: getU64(view, 16) };
  const contentSize = view.getUint32(24, true) + (view.getUint32(28, true) & 0xff_ff_ff) * 2 ** 32;
  if (!(extent.length > 0) || extent.start + extent.length > Number.MAX_SAFE_INTEGER)
    throw refuted('an extent is none');
  if (kind === IN_LOG || kind === ZEROS) return { ...extent, kind };
  if (kind !== IN_CONTENT) throw refuted('an extent is of an unknown kind');
  return { ...extent, kind, content: { root: bytes.slice(32, 64), size: contentSize } };
}
