import type { Database, RootDatabase, Transaction } from 'lmdb';
import { crc32 } from 'node:zlib';
import { PgError } from '../mdm/error.ts';
import type { Snapshots } from './snapshots.ts';

/** A key of a table: bytes, or a string that stands for its UTF-8 bytes. 1 to 1,978 bytes. Order is byte order. */
export type Key = Uint8Array | string;

export interface TableEntry {
  readonly key: Buffer;
  readonly value: Buffer;
}

export interface RangeOptions {
  /** Only keys that begin with these bytes; may be combined with neither `start` nor `end`. */
  prefix?: Key;
  /** First key, included. */
  start?: Key;
  /** Last key, excluded. */
  end?: Key;
  limit?: number;
  /** Is told the keys whose values do not have their checksum, which are left out then; else they are CORRUPT_INDEX. */
  onDamaged?: (key: Buffer) => void;
}

/** LMDB checks nothing that it reads: every value is followed by the CRC32 (u32 LE) of its key and itself. */
const CHECK_BYTES = 4;

function sealed(key: Uint8Array, value: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(value.length + CHECK_BYTES);
  out.set(value);
  out.writeUInt32LE(crc32(value, crc32(key)), value.length);
  return out;
}

/** The value that was sealed, in the same memory; undefined when it, or its key, is not what was written. */
function unsealed(key: Uint8Array, stored: Buffer): Buffer | undefined {
  const length = stored.length - CHECK_BYTES;
  if (length < 0) return undefined;
  const value = stored.subarray(0, length);
  return crc32(value, crc32(key)) === stored.readUInt32LE(length) ? value : undefined;
}

/** A key in messages: as text if it is one, else in hex digits. */
const describeKey = (key: Buffer): string =>
  /^[\x21-\x7e]+$/.test(key.toString('latin1')) ? key.toString('latin1') : key.toString('hex');

const bytesOf = (key: Key): Buffer =>
  typeof key === 'string'
    ? Buffer.from(key)
    : Buffer.isBuffer(key)
      ? key
      : Buffer.from(key.buffer, key.byteOffset, key.byteLength);

const REPAIR = 'pg verify says what else is; remove the image (pg rmi, pg gc) and import it again';

/** The collector's mark on a node (`markKey('n', key)` of catalog.ts). */
const nodeMark = (key: Uint8Array): Buffer => Buffer.concat([Buffer.from('n'), key]);

function openTable(
  env: RootDatabase<Buffer, Uint8Array>,
  name: string,
  readOnly: boolean,
): Database<Buffer, Uint8Array> | undefined {
  try {
    return env.openDB<Buffer, Uint8Array>({ name, encoding: 'binary', keyEncoding: 'binary', cache: false });
  } catch (error) {
    if (readOnly && /not found/i.test((error as Error).message)) return undefined;
    throw error;
  }
}

/** The first key after every key that begins with `prefix`, or undefined if there is none (all bytes 0xff). */
function endOfPrefix(prefix: Buffer): Buffer | undefined {
  for (let i = prefix.length - 1; i >= 0; i--) {
    if (prefix[i] === 0xff) continue;
    const end = Buffer.from(prefix.subarray(0, i + 1));
    end[i]! += 1;
    return end;
  }
  return undefined;
}

interface Snapshot {
  transaction?: Transaction;
}

/** `getBinary` takes options as `get` does, which lmdb's types leave out. */
interface BinaryReads {
  getBinary(key: Uint8Array, options: Snapshot): Buffer | undefined;
}

/** What a table needs of the index it belongs to. */
export interface TableHost {
  readonly env: RootDatabase<Buffer, Uint8Array>;
  readonly readOnly: boolean;
  readonly snapshots: Snapshots;
  /** Runs an action as a transaction of its own, or as part of the current one. */
  run<T>(action: () => T): T;
  inTransaction(): boolean;
  /** The table has been opened: `Table.forget` is to be called if the transaction, in which that was, fails. */
  opened(table: Table): void;
}

/**
 * An ordered table of the index. Reads see the latest committed state (inside `store.transaction`: also its own
 * writes); a write outside a transaction is one of its own, durable on return. Writes throw DISK_FULL; reads
 * CORRUPT_INDEX for what is not as it was written.
 */
export class Table {
  private readonly host: TableHost;
  private readonly name: string;
  private readonly condemned: Table | undefined;
  private handle: Database<Buffer, Uint8Array> | undefined;

  /** `condemned`: the collector's marks, if it takes entries of this table away (kind `n`). */
  constructor(host: TableHost, name: string, condemned?: Table) {
    this.host = host;
    this.name = name;
    this.condemned = condemned;
  }

  /** Undefined: the store was opened to be read only and does not have the table. */
  private get db(): Database<Buffer, Uint8Array> | undefined {
    if (!this.handle) {
      this.handle = openTable(this.host.env, this.name, this.host.readOnly);
      this.host.opened(this);
    }
    return this.handle;
  }

  /** The handle is no longer good: LMDB takes back those of a transaction that fails. */
  forget(): void {
    this.handle = undefined;
  }

  /** The value, a copy of its own, or undefined. */
  get(key: Key): Buffer | undefined {
    const bytes = bytesOf(key);
    const stored = this.read((options) => (this.db as BinaryReads | undefined)?.getBinary(bytes, options));
    if (stored === undefined) return undefined;
    const value = unsealed(bytes, stored);
    if (value === undefined) throw this.corrupt(bytes);
    return value;
  }

  /** As `get` of each key, all in one state of the table: for many at a third of the cost. */
  getAll(keys: readonly Uint8Array[]): (Buffer | undefined)[] {
    return this.read((options) =>
      keys.map((key) => {
        const bytes = bytesOf(key);
        const stored = (this.db as BinaryReads | undefined)?.getBinary(bytes, options);
        if (stored === undefined) return undefined;
        const value = unsealed(bytes, stored);
        if (value === undefined) throw this.corrupt(bytes);
        return value;
      }),
    );
  }

  has(key: Key): boolean {
    const bytes = bytesOf(key);
    // An undefined value asks for any.
    const found = this.read((options) => this.db?.doesExist(bytes, undefined as unknown as Buffer, options) ?? false);
    return found && !this.condemned?.has(nodeMark(bytes));
  }

  put(key: Key, value: Uint8Array): void {
    const bytes = bytesOf(key);
    this.host.run(() => {
      this.db!.putSync(bytes, sealed(bytes, value));
      this.condemned?.remove(nodeMark(bytes));
    });
  }

  /** Whether there was something to remove. */
  remove(key: Key): boolean {
    return this.host.run(() => this.db!.removeSync(bytesOf(key)));
  }

  /** Entries in byte order of their keys, as they were when the iteration began. */
  *range(options: RangeOptions = {}): Generator<TableEntry> {
    const { db } = this;
    if (!db) return;
    const snapshot = this.snapshot();
    try {
      for (const { key: bytes, value: stored } of db.getRange({ ...this.bounds(options), ...snapshot })) {
        const key = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
        const value = unsealed(key, stored);
        if (value !== undefined) yield { key, value };
        else if (options.onDamaged === undefined) throw this.corrupt(key);
        else options.onDamaged(key);
      }
    } catch (error) {
      throw this.readError(error);
    } finally {
      this.giveBack(snapshot);
    }
  }

  /** Keys in byte order, as they were when the iteration began. */
  *keys(options: RangeOptions = {}): Generator<Buffer> {
    const { db } = this;
    if (!db) return;
    const snapshot = this.snapshot();
    try {
      for (const key of db.getKeys({ ...this.bounds(options), ...snapshot })) {
        yield Buffer.from(key.buffer, key.byteOffset, key.byteLength);
      }
    } catch (error) {
      throw this.readError(error);
    } finally {
      this.giveBack(snapshot);
    }
  }

  /** Number of entries that the table says it has: it reads none. */
  entryCount(): number {
    return this.read(() => this.db?.getStats() as { entryCount: number } | undefined)?.entryCount ?? 0;
  }

  /** Number of entries. Reads all keys. */
  count(): number {
    return this.read((options) => this.db?.getKeysCount(options) ?? 0);
  }

  private read<T>(action: (options: Snapshot) => T): T {
    const snapshot = this.snapshot();
    try {
      return action(snapshot);
    } catch (error) {
      throw this.readError(error);
    } finally {
      this.giveBack(snapshot);
    }
  }

  private corrupt(key: Buffer): PgError {
    return new PgError('CORRUPT_INDEX', `the index is damaged: ${this.name}, ${describeKey(key)}`, { hint: REPAIR });
  }

  /** What LMDB throws when a page is none of its own, in our words. */
  private readError(error: unknown): unknown {
    if (!/MDB_(CORRUPTED|PAGE_NOTFOUND|INVALID|BAD_)/.test((error as Error).message)) return error;
    return new PgError('CORRUPT_INDEX', `the index is damaged: ${this.name}: ${(error as Error).message}`, {
      hint: REPAIR,
      cause: error,
    });
  }

  /** Inside a transaction everything is read through it. */
  private snapshot(): Snapshot {
    return this.host.inTransaction() ? {} : { transaction: this.host.snapshots.take() };
  }

  private giveBack(snapshot: Snapshot): void {
    if (snapshot.transaction) this.host.snapshots.give(snapshot.transaction);
  }

  private bounds(options: RangeOptions): { start?: Uint8Array; end?: Uint8Array; limit?: number } {
    const prefix = options.prefix === undefined ? undefined : bytesOf(options.prefix);
    const start = prefix ?? (options.start === undefined ? undefined : bytesOf(options.start));
    const end = prefix ? endOfPrefix(prefix) : options.end === undefined ? undefined : bytesOf(options.end);
    return {
      ...(start !== undefined && start.length > 0 ? { start } : {}),
      ...(end === undefined ? {} : { end }),
      ...(options.limit === undefined ? {} : { limit: options.limit }),
    };
  }
}
