import assert from 'node:assert';
import * as kernel from './kernel/kernel.ts';

/**
 * The Merkle tree of a byte sequence, as Sia has it: leaves of 64 bytes, leaf = H(0x00 || bytes), node = H(0x01 || left
 * || right), H = BLAKE2b-256, the shape of RFC 6962; a short last leaf is hashed as it is; the empty tree is 32 zero
 * bytes.
 */

export { LEAF_BYTES, ROOT_BYTES, SECTOR_BYTES, leafHash, nodeHash } from './kernel/kernel.ts';
/** 64 leaves; a sector's 1,024 roots of these are kept, so that an update re-hashes 4 KiB rather than 4 MiB. */
export const BLOCK_BYTES = 4096;
/** Sizes are at most this (MDM.md, "State, bounds, sizes"). */
export const MAX_SIZE = 2 ** 48;

/** The root of `data`, of any length; of nothing it is 32 zero bytes. */
export function bufferRoot(data: Uint8Array): Uint8Array {
  return kernel.hashBuffer(data);
}

/**
 * The root of a sector, exactly 4 MiB. To hash without a copy, fill `input` of mdm/kernel/kernel.ts and call
 * `inputSector`.
 */
export function sectorRoot(data: Uint8Array): Uint8Array {
  assert.equal(data.length, kernel.SECTOR_BYTES, 'a sector is 4 MiB');
  return kernel.hashBuffer(data);
}

/**
 * The roots of the 4 KiB blocks of a sector (exactly 4 MiB), one after another: 32 KiB. Their fold is the sector's
 * root.
 */
export function blockRoots(data: Uint8Array): Uint8Array {
  assert.equal(data.length, kernel.SECTOR_BYTES, 'a sector is 4 MiB');
  kernel.input.set(data);
  return inputSector(kernel.SECTOR_BYTES).blockRoots();
}

/**
 * RFC 6962's root over `roots`, each the root of a full subtree of one and the same size (all sectors, say); of none it
 * is 32 zero bytes.
 */
export function rootOfRoots(roots: readonly Uint8Array[]): Uint8Array {
  let level = new Uint8Array(roots.length * kernel.ROOT_BYTES);
  roots.forEach((root, i) => level.set(root, i * kernel.ROOT_BYTES));
  return foldRoots(level);
}

/** `rootOfRoots` of roots that lie one after another in one array. */
export function foldRoots(roots: Uint8Array): Uint8Array {
  // A full group of 2^11 folds to one node of the level above; only the last group may be ragged, and its fold moves up
  // as it is.
  const group = 2048 * kernel.ROOT_BYTES;
  let level = roots;
  while (level.length > group) {
    const above = new Uint8Array(Math.ceil(level.length / group) * kernel.ROOT_BYTES);
    for (let i = 0; i * group < level.length; i++)
      above.set(kernel.foldHashes(level.subarray(i * group, (i + 1) * group)), i * kernel.ROOT_BYTES);
    level = above;
  }
  return kernel.foldHashes(level);
}

/** The root of a file from the roots of its full sectors and the bytes after the last of them (fewer than 4 MiB). */
export function fileRoot(sectorRoots: readonly Uint8Array[], tail: Uint8Array): Uint8Array {
  assert(tail.length < kernel.SECTOR_BYTES);
  return rootOfRoots(tail.length === 0 ? sectorRoots : [...sectorRoots, bufferRoot(tail)]);
}

/** What hashing the kernel's input as a sector gives. */
export interface HashedSector {
  root: Uint8Array;
  /** The root of each content, in order. */
  contentRoots: Uint8Array[];
  /** The 1,024 roots of the 4 KiB blocks, 32 KiB; to be called before the kernel's input is hashed again. */
  blockRoots(): Uint8Array;
}

/**
 * Hashes the kernel's `input` as one sector of which the first `used` bytes are meant and the rest is zero, and the
 * `contents` packed in it (each starting at a multiple of 64, apart from each other; the bytes between them are zeroed
 * up to the next multiple of 64). Leaves are hashed once for the sector and its contents together, and so are inner
 * nodes of contents that start at a rounder offset: 4 KiB-aligned contents cost nothing extra up to 4 KiB subtrees.
 */
export function inputSector(used: number, contents: readonly kernel.Span[] = []): HashedSector {
  assert(used >= 0 && used <= kernel.SECTOR_BYTES);
  const wholeLeaves = Math.ceil(used / kernel.LEAF_BYTES) * kernel.LEAF_BYTES;
  kernel.input.fill(0, used, wholeLeaves);
  kernel.inputZeroPadding(contents);
  const root = kernel.inputRoot(wholeLeaves);
  return {
    root,
    contentRoots: split(kernel.inputContentRoots(contents)),
    blockRoots: () => kernel.inputBlockRoots(wholeLeaves),
  };
}

function split(roots: Uint8Array): Uint8Array[] {
  return Array.from({ length: roots.length / kernel.ROOT_BYTES }, (_, i) =>
    roots.subarray(i * kernel.ROOT_BYTES, (i + 1) * kernel.ROOT_BYTES),
  );
}
