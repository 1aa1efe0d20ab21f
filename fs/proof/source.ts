import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import {
  blockRoots,
  bufferRoot,
  BLOCK_BYTES,
  foldRoots,
  LEAF_BYTES,
  ROOT_BYTES,
  SECTOR_BYTES,
} from '../../mdm/merkle.ts';
import type { ProofSource } from '../../mdm/opening.ts';
import type { Subtree } from '../../mdm/subtrees.ts';
import { type ContentRef, piecesOf, wholeSector } from '../../store/content.ts';
import type { Store } from '../../store/store.ts';
import { readFully } from '../log/disk.ts';
import { readHeader } from '../log/header.ts';
import { RootsFile } from '../log/roots.ts';

/** Trees that proofs are made from, hashed as far as a proof needs it. A sector's roots are kept once they are known. */
const SECTOR_HEIGHT = 16;
const BLOCK_HEIGHT = 6;

/** The Merkle tree of `size` bytes that `read` gives. `known` tells the roots of full sectors that need not be hashed. */
export class FileSource implements ProofSource {
  readonly size: number;
  readonly #read: (into: Uint8Array, offset: number) => void;
  readonly #sectorRoots: (Uint8Array | undefined)[];
  /** Roots of the blocks of the full sector last needed. */
  #blocksOf = -1;
  #blocks: Uint8Array = new Uint8Array(0);

  constructor(size: number, read: (into: Uint8Array, offset: number) => void, known: (Uint8Array | undefined)[] = []) {
    this.size = size;
    this.#read = read;
    this.#sectorRoots = known;
  }

  readAt(into: Uint8Array, offset: number): void {
    this.#read(into, offset);
  }

  subtreeRoot({ leaf, height }: Subtree): Uint8Array {
    if (height >= SECTOR_HEIGHT) {
      const [first, count] = [(leaf * LEAF_BYTES) / SECTOR_BYTES, 2 ** (height - SECTOR_HEIGHT)];
      const roots = new Uint8Array(count * ROOT_BYTES);
      for (let i = 0; i < count; i++) roots.set(this.#sectorRoot(first + i), i * ROOT_BYTES);
      return foldRoots(roots);
    }
    const offset = leaf * LEAF_BYTES;
    const sector = Math.floor(offset / SECTOR_BYTES);
    const isFull = (sector + 1) * SECTOR_BYTES <= this.size;
    if (height < BLOCK_HEIGHT || !isFull) return bufferRoot(this.#bytes(offset, LEAF_BYTES * 2 ** height));
    this.#loadBlocks(sector);
    const from = ((offset % SECTOR_BYTES) / BLOCK_BYTES) * ROOT_BYTES;
    return foldRoots(this.#blocks.subarray(from, from + 2 ** (height - BLOCK_HEIGHT) * ROOT_BYTES));
  }

  /** The root of the whole. */
  root(): Uint8Array {
    const full = Math.floor(this.size / SECTOR_BYTES);
    const tail = this.size - full * SECTOR_BYTES;
    const roots = new Uint8Array((full + (tail > 0 ? 1 : 0)) * ROOT_BYTES);
    for (let i = 0; i < full; i++) roots.set(this.#sectorRoot(i), i * ROOT_BYTES);
    if (tail > 0) roots.set(bufferRoot(this.#bytes(full * SECTOR_BYTES, tail)), full * ROOT_BYTES);
    return foldRoots(roots);
  }

  #sectorRoot(sector: number): Uint8Array {
    return (this.#sectorRoots[sector] ??= bufferRoot(this.#bytes(sector * SECTOR_BYTES, SECTOR_BYTES)));
  }

  #loadBlocks(sector: number): void {
    if (this.#blocksOf === sector) return;
    this.#blocks = blockRoots(this.#bytes(sector * SECTOR_BYTES, SECTOR_BYTES));
    this.#blocksOf = sector;
  }

  /** Bytes of leaves, of which the last of all may be short. */
  #bytes(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(Math.min(length, this.size - offset));
    this.#read(bytes, offset);
    return bytes;
  }
}

/** The tree of bytes in memory. */
export const memorySource = (bytes: Uint8Array): FileSource =>
  new FileSource(bytes.length, (into, offset) => into.set(bytes.subarray(offset, offset + into.length)));

/**
 * The tree of the first `size` bytes of the log in `dir`, open as `fd`: from its bytes, but for sectors that were given back, of which only the roots are left.
 */
export function logSource(fd: number, size: number, dir: string): FileSource {
  const roots = new RootsFile(dir, readHeader(fd, join(dir, 'log')).salt);
  const gone = roots.all().map(({ root, isGone }) => (isGone ? root : undefined));
  roots.close();
  const read = (into: Uint8Array, offset: number): void => {
    if (readFully(fd, into, 0, into.length, offset) < into.length)
      throw new PgError('LOG_CORRUPT', `${dir}/log ends before byte ${offset + into.length}`);
  };
  return new FileSource(size, read, gone);
}

/** The tree of a content of the store: where it lies in full sectors of its own their roots are known. */
export function contentSource(store: Store, ref: ContentRef): FileSource {
  const content = store.openContent(ref);
  const known = piecesOf(ref, store.contentExtents(ref)!).map(wholeSector);
  return new FileSource(ref.size, (into, offset) => void content.readAt(into, offset), known);
}
