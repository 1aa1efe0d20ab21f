import { randomBytes } from 'node:crypto';
import { PgError } from '../../mdm/error.ts';
import type { State } from '../../mdm/instruction.ts';
import { ROOT_BYTES } from '../../mdm/merkle.ts';
import type { ProofSource } from '../../mdm/opening.ts';
import { isZeroSector } from '../content.ts';
import type { Store } from '../store.ts';
import { HostFile } from './host-file.ts';
import { decodeFile, encodeFile, encodeSector, hashKey, ID_BYTES, TABLES } from './records.ts';
import { HostSectors, removeBelongings } from './sectors.ts';

/** Names are keys of the index. */
const MAX_NAME_BYTES = 255;

/**
 * A durable host of the Merklized Data Machine (docs/formats/host.md): files by name whose batches are atomic whatever
 * happens, with sectors that they share with one another and with the store. It lives in the store's index and sector
 * files; opening it costs nothing, and there is nothing to recover after a crash.
 */
export class Host {
  readonly #store: Store;
  readonly #sectors: HostSectors;

  constructor(store: Store) {
    this.#store = store;
    this.#sectors = new HostSectors(store);
  }

  /** Makes an empty file; `MDM_FILE_EXISTS`, `MDM_BAD_FILE_NAME`. */
  create(name: string): HostFile {
    checkName(name);
    const files = this.#store.table(TABLES.files);
    this.#store.transaction(() => {
      if (files.has(name)) throw new PgError('MDM_FILE_EXISTS', `there is a machine file '${name}' already`);
      files.put(name, encodeFile({ id: randomBytes(ID_BYTES), state: { root: new Uint8Array(ROOT_BYTES), size: 0 } }));
    });
    return this.open(name);
  }

  /** Opens a file as it was last committed; `MDM_NO_SUCH_FILE`. */
  open(name: string): HostFile {
    const value = this.#store.table(TABLES.files).get(name);
    if (value === undefined) throw noSuchFile(name);
    return new HostFile(this.#store, this.#sectors, name, decodeFile(value));
  }

  /** Names and states of all files, in the order of their names. */
  *list(): Generator<{ name: string; state: State }> {
    for (const { key, value } of this.#store.table(TABLES.files).range()) {
      yield { name: key.toString(), state: decodeFile(value).state };
    }
  }

  /**
   * Makes `to` a file with the bytes of `from`; costs 32 bytes for each sector. `MDM_NO_SUCH_FILE`, `MDM_FILE_EXISTS`.
   */
  copy(from: string, to: string): void {
    checkName(to);
    const [files, hashes] = [this.#store.table(TABLES.files), this.#store.table(TABLES.hashes)];
    this.#store.transaction(() => {
      const value = files.get(from);
      if (value === undefined) throw noSuchFile(from);
      if (files.has(to)) throw new PgError('MDM_FILE_EXISTS', `there is a machine file '${to}' already`);
      const { id, state } = decodeFile(value);
      const newId = randomBytes(ID_BYTES);
      const entries = [...hashes.range({ prefix: id })];
      for (const entry of entries) {
        hashes.put(Buffer.concat([newId, entry.key.subarray(ID_BYTES)]), entry.value);
      }
      for (const root of this.#sectorRoots(id)) this.#addReference(root, 1);
      files.put(to, encodeFile({ id: newId, state }));
    });
  }

  /** Removes a file, and what no other file has of its sectors; `MDM_NO_SUCH_FILE`. */
  remove(name: string): void {
    const [files, hashes] = [this.#store.table(TABLES.files), this.#store.table(TABLES.hashes)];
    this.#store.transaction(() => {
      const value = files.get(name);
      if (value === undefined) throw noSuchFile(name);
      const { id } = decodeFile(value);
      for (const root of this.#sectorRoots(id)) this.#addReference(root, -1);
      const keys = [...hashes.keys({ prefix: id })];
      for (const key of keys) hashes.remove(key);
      files.remove(name);
    });
  }

  /** The full sector with this root, of any file of the host or of the store. */
  sector(root: Uint8Array): ProofSource | undefined {
    return this.#sectors.source(root);
  }

  /** Roots of a file's sectors, one for each place that has one; not those of zeros. */
  *#sectorRoots(id: Buffer): Generator<Buffer> {
    const prefix = hashKey(id, 16, 0).subarray(0, ID_BYTES + 1);
    for (const { value } of this.#store.table(TABLES.hashes).range({ prefix })) {
      for (let at = 0; at < value.length; at += ROOT_BYTES) {
        const root = value.subarray(at, at + ROOT_BYTES);
        if (!isZeroSector(root)) yield root;
      }
    }
  }

  #addReference(root: Uint8Array, step: number): void {
    const record = this.#sectors.record(root);
    if (record === undefined) {
      throw new PgError('CORRUPT_INDEX', `the index is damaged: ${TABLES.sectors} lacks a sector of a machine file`);
    }
    const refs = record.refs + step;
    if (refs > 0) return this.#store.table(TABLES.sectors).put(root, encodeSector({ ...record, refs }));
    this.#store.table(TABLES.sectors).remove(root);
    removeBelongings(this.#store, record);
  }
}

function checkName(name: string): void {
  const length = Buffer.byteLength(name);
  if (length === 0 || length > MAX_NAME_BYTES || /\p{Cc}/u.test(name)) {
    throw new PgError(
      'MDM_BAD_FILE_NAME',
      `a machine file's name has 1 to ${MAX_NAME_BYTES} bytes, and no control characters`,
    );
  }
}

function noSuchFile(name: string): PgError {
  return new PgError('MDM_NO_SUCH_FILE', `there is no machine file '${name}'`, { hint: "'pg mdm ls' lists them" });
}
