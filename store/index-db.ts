import { mkdirSync } from 'node:fs';
import { open, type RootDatabase, type RootDatabaseOptionsWithPath } from 'lmdb';
import { PgError } from '../mdm/error.ts';
import { indexDir, type Roots } from './paths.ts';
import { Table } from './table.ts';

/** Version of everything below `roots.data`; a store of a newer one is refused. */
export const STORE_VERSION = 1;

/** Address space, not memory nor disk: the index may grow to this without remapping under readers. */
const MAP_BYTES = 2 ** 40;
/** lmdb.h and lmdb-js: abortable 1, commit before returning 2, without waiting for the disk 0x10000. */
const DURABLE = 0x3;
const UNSYNCED = 0x10003;

/** The LMDB environment of a store, opened once by each thread that uses it. */
export interface Index {
  table(name: string): Table;
  transaction<T>(action: () => T): T;
  /** As `transaction`, but a power cut (not a crash of the process) may undo it; nothing is torn either way. */
  unsyncedTransaction<T>(action: () => T): T;
  close(): Promise<void>;
}

/** Opens the index, checks its version. NEWER_STORE, STORE_MISSING (read-only and not there). */
export function openIndex(roots: Roots, readOnly: boolean): Index {
  const path = indexDir(roots);
  if (!readOnly) mkdirSync(path, { recursive: true });
  const env: RootDatabase<Buffer, Uint8Array> = open<Buffer, Uint8Array>({
    path,
    noSubdir: false,
    readOnly,
    encoding: 'binary',
    keyEncoding: 'binary',
    cache: false,
    overlappingSync: false,
    mapSize: MAP_BYTES,
    maxDbs: 64,
    maxReaders: 1024,
  } as RootDatabaseOptionsWithPath);
  const tables = new Map<string, Table>();
  let depth = 0;
  const run = <T>(action: () => T, flags: number): T => {
    if (depth > 0) return action();
    return env.transactionSync(() => {
      depth++;
      try {
        return action();
      } finally {
        depth--;
      }
    }, flags);
  };
  const table = (name: string): Table => {
    const known = tables.get(name);
    if (known) return known;
    const made = new Table(env, name, () => depth > 0);
    tables.set(name, made);
    return made;
  };
  const meta = table('meta');
  const version = meta.get('version')?.readUInt32LE(0);
  if (version === undefined && !readOnly) {
    const value = Buffer.alloc(4);
    value.writeUInt32LE(STORE_VERSION);
    meta.put('version', value);
  } else if (version !== undefined && version > STORE_VERSION) {
    throw new PgError(
      'NEWER_STORE',
      `the store at ${roots.data} has format ${version}, this pg knows ${STORE_VERSION}`,
      {
        hint: 'use a newer pg, or another --root',
      },
    );
  }
  return {
    table,
    transaction: (action) => run(action, DURABLE),
    unsyncedTransaction: (action) => run(action, UNSYNCED),
    close: () => env.close(),
  };
}
