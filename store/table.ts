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

/** How a table writes: runs an action as a transaction of its own, or as part of the current one. */
type Run = <T>(action: () => T) => T;

/**
 * An ordered table of the index. Reads see the latest committed state (inside `store.transaction`: also its own writes);
 * a write outside a transaction is one of its own, durable on return. Writes throw DISK_FULL.
 */
export class Table {
  /** Undefined: the store was opened to be read only and does not have the table. */
  private readonly db: Database<Buffer, Uint8Array> | undefined;
  private readonly run: Run;
  private readonly inTransaction: () => boolean;
  private readonly condemned: Table | undefined;

  /** `condemned`: the collector's marks, if it takes entries of this table away (kind `n`). */
  constructor(
    env: RootDatabase<Buffer, Uint8Array>,
    name: string,
    readOnly: boolean,
    run: Run,
    inTransaction: () => boolean,
    condemned?: Table,
  ) {
    this.db = openTable(env, name, readOnly);
    this.run = run;
    this.inTransaction = inTransaction;
    this.condemned = condemned;
  }

  /** The value, a copy of its own, or undefined. */
  get(key: Key): Buffer | undefined {
    const value = this.db?.getBinary(bytesOf(key));
    this.release();
    return value;
  }

  has(key: Key): boolean {
    const bytes = bytesOf(key);
    const found = this.db?.doesExist(bytes) ?? false;
    this.release();
    return found && !this.condemned?.has(nodeMark(bytes));
  }

  put(key: Key, value: Uint8Array): void {
    const bytes = bytesOf(key);
    this.run(() => {
      this.db!.putSync(bytes, value as Buffer);
      this.condemned?.remove(nodeMark(bytes));
    });
  }

  /** Whether there was something to remove. */
  remove(key: Key): boolean {
    return this.run(() => this.db!.removeSync(bytesOf(key)));
  }

  /** Entries in byte order of their keys, as they were when the iteration began. */
  *range(options: RangeOptions = {}): Generator<TableEntry> {
    for (const { key, value } of this.db?.getRange(this.bounds(options)) ?? []) {
      yield { key: Buffer.from(key.buffer, key.byteOffset, key.byteLength), value };
    }
  }

  /** Keys in byte order, as they were when the iteration began. */
  *keys(options: RangeOptions = {}): Generator<Buffer> {
    for (const key of this.db?.getKeys(this.bounds(options)) ?? [])
      yield Buffer.from(key.buffer, key.byteOffset, key.byteLength);
  }

  /** Number of entries. */
  count(): number {
    const stats = this.db?.getStats() as { entryCount: number } | undefined;
    this.release();
    return stats?.entryCount ?? 0;
  }

  /**
   * lmdb-js keeps the read snapshot until the event loop turns, which it never does in a thread that blocks on /dev/fuse:
   * it would read an old state for ever and keep every freed page of the index from being used again.
   */
  private release(): void {
    if (!this.inTransaction()) this.db?.resetReadTxn();
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
