import { type Database, type RootDatabase } from 'lmdb';

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
}

const bytesOf = (key: Key): Buffer =>
  typeof key === 'string'
    ? Buffer.from(key)
    : Buffer.isBuffer(key)
      ? key
      : Buffer.from(key.buffer, key.byteOffset, key.byteLength);

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

/**
 * An ordered table of the index. Reads see the latest committed state (inside `store.transaction`: also its own writes);
 * a write outside a transaction is one of its own, durable on return.
 */
export class Table {
  private readonly db: Database<Buffer, Uint8Array>;
  private readonly inTransaction: () => boolean;

  constructor(env: RootDatabase<Buffer, Uint8Array>, name: string, inTransaction: () => boolean) {
    this.db = env.openDB<Buffer, Uint8Array>({ name, encoding: 'binary', keyEncoding: 'binary', cache: false });
    this.inTransaction = inTransaction;
  }

  /** The value, a copy of its own, or undefined. */
  get(key: Key): Buffer | undefined {
    const value = this.db.getBinary(bytesOf(key));
    this.release();
    return value;
  }

  has(key: Key): boolean {
    const found = this.db.doesExist(bytesOf(key));
    this.release();
    return found;
  }

  put(key: Key, value: Uint8Array): void {
    this.db.putSync(bytesOf(key), value as Buffer);
  }

  /** Whether there was something to remove. */
  remove(key: Key): boolean {
    return this.db.removeSync(bytesOf(key));
  }

  /** Entries in byte order of their keys, as they were when the iteration began. */
  *range(options: RangeOptions = {}): Generator<TableEntry> {
    for (const { key, value } of this.db.getRange(this.bounds(options))) {
      yield { key: Buffer.from(key.buffer, key.byteOffset, key.byteLength), value };
    }
  }

  /** Keys in byte order, as they were when the iteration began. */
  *keys(options: RangeOptions = {}): Generator<Buffer> {
    for (const key of this.db.getKeys(this.bounds(options)))
      yield Buffer.from(key.buffer, key.byteOffset, key.byteLength);
  }

  /** Number of entries. */
  count(): number {
    const stats = this.db.getStats() as { entryCount: number };
    this.release();
    return stats.entryCount;
  }

  /**
   * lmdb-js keeps the read snapshot until the event loop turns, which it never does in a thread that blocks on /dev/fuse:
   * it would read an old state for ever and keep every freed page of the index from being used again.
   */
  private release(): void {
    if (!this.inTransaction()) this.db.resetReadTxn();
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
