import { PgError } from '../../mdm/error.ts';
import { GROUP_HASHES } from '../../mdm/file.ts';
import {
  BLOCK_BYTES,
  blockRoots,
  bufferRoot,
  foldRoots,
  LEAF_BYTES,
  ROOT_BYTES,
  SECTOR_BYTES,
} from '../../mdm/merkle.ts';
import type { ProofSource } from '../../mdm/opening.ts';
import { zeroRoot } from '../../mdm/subtrees.ts';
import { isZeroSector } from '../content.ts';
import type { Store } from '../store.ts';
import type { Table } from '../table.ts';
import { blockKey, blocksOf, decodeSector, hashKey, isOwn, type SectorRecord, TABLES } from './records.ts';

/** The sectors of the host's files and those of the store, by root. */
export class HostSectors {
  readonly #store: Store;
  readonly #sectors: Table;
  readonly #hashes: Table;
  readonly #blocks: Table;

  constructor(store: Store) {
    this.#store = store;
    this.#sectors = store.table(TABLES.sectors);
    this.#hashes = store.table(TABLES.hashes);
    this.#blocks = store.table(TABLES.blocks);
  }

  /** The record of a sector that a file of this host has; undefined for the all-zero sector, which has none. */
  record(root: Uint8Array): SectorRecord | undefined {
    const value = this.#sectors.get(root);
    return value && decodeSector(value);
  }

  /** The roots of a sector's blocks, one after another; undefined when it is all zeros. */
  blockRoots(root: Uint8Array): Uint8Array | undefined {
    if (isZeroSector(root)) return undefined;
    const record = this.#known(root);
    return this.#hashes.get(hashKey(record.id, 6, 0)) ?? changedMeanwhile();
  }

  /** Fills `into` with bytes of the sector from `offset` on. CORRUPT_SECTOR, CORRUPT_INDEX. */
  readAt(root: Uint8Array, into: Uint8Array, offset: number): void {
    if (isZeroSector(root)) return void into.fill(0);
    const record = this.#known(root);
    let tookOwn = false;
    for (let at = 0; at < into.length;) {
      const position = offset + at;
      const block = Math.floor(position / BLOCK_BYTES);
      let end = (block + 1) * BLOCK_BYTES;
      if (isOwn(record.own, block)) {
        const bytes = this.#blocks.get(blockKey(record.id, block)) ?? changedMeanwhile();
        const from = position % BLOCK_BYTES;
        into.set(bytes.subarray(from, from + into.length - at), at);
        tookOwn = true;
      } else {
        while (end - offset < into.length && !isOwn(record.own, end / BLOCK_BYTES)) end += BLOCK_BYTES;
        this.#readBase(record, into.subarray(at, end - offset), position);
      }
      at = end - offset;
    }
    // The blocks belong to this root as long as its record is there: another process may have gone on with them.
    if (tookOwn && !this.#sectors.has(root)) changedMeanwhile();
  }

  #readBase({ base, baseBytes }: SectorRecord, into: Uint8Array, offset: number): void {
    const fromBase = isZeroSector(base) ? 0 : Math.max(0, Math.min(into.length, baseBytes - offset));
    if (fromBase > 0) this.#store.readSectorAt(base, into.subarray(0, fromBase), offset);
    into.fill(0, fromBase);
  }

  /** The full sector with this root as a tree: of any file of the host, or of the store; undefined when there is none. */
  source(root: Uint8Array): ProofSource | undefined {
    const record = this.record(root);
    if (record?.bytes === SECTOR_BYTES || isZeroSector(root)) {
      return sectorSource(
        (into, offset) => this.readAt(root, into, offset),
        () => this.blockRoots(root),
      );
    }
    return storeSector(this.#store, root);
  }

  #known(root: Uint8Array): SectorRecord {
    return this.record(root) ?? changedMeanwhile();
  }
}

/** Says that what is read is not as it was when the file was opened. */
export function changedMeanwhile(): never {
  throw new PgError('MDM_WRONG_STATE', 'the file was changed by someone else meanwhile', { hint: 'open it again' });
}

/** A sector of the store as a tree; its hashes are computed when they are first asked for. */
function storeSector(store: Store, root: Uint8Array): ProofSource | undefined {
  if (!store.hasSector(root)) return undefined;
  let hashes: Uint8Array | undefined;
  return sectorSource(
    (into, offset) => store.readSectorAt(root, into, offset),
    () => (isZeroSector(root) ? undefined : (hashes ??= blockRoots(store.readSector(root)))),
  );
}

/** The tree of a full sector, from its bytes and the roots of its 1,024 blocks (undefined: it is all zeros). */
export function sectorSource(
  readAt: (into: Uint8Array, offset: number) => void,
  hashes: () => Uint8Array | undefined,
): ProofSource {
  return {
    readAt,
    subtreeRoot({ leaf, height }) {
      if (height < 6) {
        const bytes = new Uint8Array(2 ** height * LEAF_BYTES);
        readAt(bytes, leaf * LEAF_BYTES);
        return bufferRoot(bytes);
      }
      const group = hashes();
      const at = (leaf / 64) * ROOT_BYTES;
      return group === undefined
        ? zeroRoot(height)
        : foldRoots(group.subarray(at, at + 2 ** (height - 6) * ROOT_BYTES));
    },
  };
}

/** Hashes that a file of `bytes` bytes has in a group of 1,024 of which each is over `span` bytes. */
export function entriesIn(group: number, bytes: number, span: number): number {
  return Math.max(0, Math.min(GROUP_HASHES, Math.ceil(bytes / span) - group * GROUP_HASHES));
}

/** Removes the hashes and blocks of a sector that is no more. Inside a transaction. */
export function removeBelongings(store: Store, { id, own }: { id: Buffer; own: Uint8Array }): void {
  store.table(TABLES.hashes).remove(hashKey(id, 6, 0));
  for (const block of blocksOf(own)) store.table(TABLES.blocks).remove(blockKey(id, block));
}
