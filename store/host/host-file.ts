import { PgError } from '../../mdm/error.ts';
import { type Change, type CommittedFile, GROUP_HASHES, type HashLevel } from '../../mdm/file.ts';
import type { State } from '../../mdm/instruction.ts';
import { ROOT_BYTES, SECTOR_BYTES } from '../../mdm/merkle.ts';
import type { ProofSource } from '../../mdm/opening.ts';
import { ZERO_SECTOR_ROOT } from '../content.ts';
import type { Store } from '../store.ts';
import { commitChange } from './commit.ts';
import { encodeFile, type FileRecord, hashKey, TABLES } from './records.ts';
import { changedMeanwhile, type HostSectors } from './sectors.ts';

/** Groups of hashes kept in memory: at most 2 MiB. */
const CACHED_GROUPS = 64;

/**
 * A file of a `Host`, as it was when it was opened or last committed by this object. When another process commits to
 * it, this one's next batch is `MDM_WRONG_STATE`.
 */
export class HostFile implements CommittedFile {
  readonly name: string;
  readonly #store: Store;
  readonly #sectors: HostSectors;
  #record: FileRecord;
  readonly #groups = new Map<string, Uint8Array | undefined>();

  constructor(store: Store, sectors: HostSectors, name: string, record: FileRecord) {
    this.#store = store;
    this.#sectors = sectors;
    this.name = name;
    this.#record = record;
  }

  get state(): State {
    return this.#record.state;
  }

  readAt(into: Uint8Array, offset: number): void {
    for (let at = 0; at < into.length;) {
      const inSector = (offset + at) % SECTOR_BYTES;
      const part = into.subarray(at, at + SECTOR_BYTES - inSector);
      this.#sectors.readAt(this.#sectorRoot(Math.floor((offset + at) / SECTOR_BYTES)), part, inSector);
      at += part.length;
    }
  }

  #sectorRoot(sector: number): Uint8Array {
    const at = (sector % GROUP_HASHES) * ROOT_BYTES;
    const root = this.hashes(16, Math.floor(sector / GROUP_HASHES))?.subarray(at, at + ROOT_BYTES);
    return root === undefined || root.length === 0 ? ZERO_SECTOR_ROOT : root;
  }

  hashes(level: HashLevel, group: number): Uint8Array | undefined {
    const key = `${level}/${group}`;
    if (this.#groups.has(key)) return this.#groups.get(key);
    const hashes = level === 6 ? this.#sectors.blockRoots(this.#sectorRoot(group)) : this.#group(level, group);
    if (this.#groups.size >= CACHED_GROUPS) this.#groups.delete(this.#groups.keys().next().value!);
    this.#groups.set(key, hashes);
    return hashes;
  }

  /** A group above the sectors; it is of this state if the file is in it still. */
  #group(level: HashLevel, group: number): Uint8Array | undefined {
    const { id, state } = this.#record;
    const hashes = this.#store.table(TABLES.hashes).get(hashKey(id, level, group));
    const value = this.#store.table(TABLES.files).get(this.name);
    if (value === undefined || !value.equals(encodeFile({ id, state }))) changedMeanwhile();
    return hashes;
  }

  sector(root: Uint8Array): ProofSource | undefined {
    return this.#sectors.source(root);
  }

  /**
   * Durable on return, and atomic: one transaction of the index. `MDM_WRONG_STATE` when someone else has changed the
   * file since it was opened; DISK_FULL.
   */
  commit(change: Change): void {
    if (this.#store.readOnly) throw new PgError('READ_ONLY', 'the store was opened to be read only');
    commitChange(this.#store, this.#sectors, this.name, this.#record, change);
    this.#record = { id: this.#record.id, state: change.final };
    this.#groups.clear();
  }
}
