import assert from 'node:assert/strict';
import { existsSync, mkdirSync, statfsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { RootDatabase, RootDatabaseOptionsWithPath, TransactionFlags } from 'lmdb';
import { isPgError, PgError } from '../mdm/error.ts';
import { open } from './lmdb.ts';
import { indexDir, type Roots } from './paths.ts';
import { diskError, isDiskFull, syncFile } from './sector.ts';
import { Snapshots } from './snapshots.ts';
import { Table, type TableHost } from './table.ts';

/** Version of everything below `roots.data`; a store of another one is refused. */
export const STORE_VERSION = 2;

/** Address space, not memory nor disk: the index may grow to this without remapping under readers. */
const MAP_BYTES = 2 ** 40;
/**
 * lmdb-js: abortable 1, commit before returning 2. Its 0x10000, not to wait for the disk, is for nobody: a power cut
 * could leave the root of a B-tree on disk without its pages.
 */
const DURABLE = 0x3 as TransactionFlags;

/** The LMDB environment of a store, opened once by each thread that uses it. */
export interface Index {
  table(name: string): Table;
  transaction<T>(action: () => T): T;
  /**
   * Adds `step` to a named counter, which begins at 0, and gives what it was before. Inside a transaction, if `step` is
   * not 0.
   */
  counter(name: string, step: number): number;
  /** Names of the tables that there are, in byte order. */
  tableNames(): string[];
  /** Writes a compact copy of the index, as it is now, into the directory `to`; durable when it resolves. DISK_FULL, DISK_ERROR. */
  copy(to: string): Promise<void>;
  /** Bytes of the index's file. */
  readonly fileBytes: number;
  close(): Promise<void>;
}

/** Opens the index, checks its version. NEWER_STORE, OLDER_STORE, STORE_MISSING (read-only and not there). */
export function openIndex(roots: Roots, readOnly: boolean, path = indexDir(roots)): Index {
  if (!readOnly) mkdirSync(path, { recursive: true, mode: 0o700 });
  else if (!existsSync(join(path, 'data.mdb')))
    throw new PgError('STORE_MISSING', `there is no store at ${roots.data}`);
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
  const snapshots = new Snapshots(env);
  const tables = new Map<string, Table>();
  let depth = 0;
  let closed = false;
  let openedNow: Table[] = [];
  const run = <T>(action: () => T): T => {
    if (depth > 0) return action();
    assert.ok(!closed, 'the store is closed');
    assert.ok(!readOnly, 'the store was opened to be read only');
    openedNow = [];
    let outcome: { value: T } | { thrown: unknown } | undefined;
    try {
      env.transactionSync(() => {
        depth++;
        try {
          outcome = { value: action() };
        } catch (thrown) {
          outcome = { thrown };
          throw thrown;
        } finally {
          depth--;
        }
      }, DURABLE);
    } catch (error) {
      for (const table of openedNow) table.forget();
      // What `action` threw is its own; the rest, and a full disk, is what LMDB had to say.
      if (outcome && 'thrown' in outcome && !isDiskFull(outcome.thrown)) throw outcome.thrown;
      throw diskError(
        ranOutOfSpace(error, path) ? new Error('No space left on device', { cause: error }) : error,
        `cannot write the index ${path}`,
      );
    }
    assert.ok(outcome && 'value' in outcome);
    return outcome.value;
  };
  const host: TableHost = {
    env,
    readOnly,
    snapshots,
    run,
    inTransaction: () => depth > 0,
    opened: (table) => {
      if (depth > 0) openedNow.push(table);
    },
  };
  const table = (name: string): Table => {
    let made = tables.get(name);
    if (!made) {
      made = new Table(host, name, name === 'nodes' ? table('condemned') : undefined);
      tables.set(name, made);
    }
    return made;
  };
  const meta = table('meta');
  const version = versionOf(meta, path);
  if (version === undefined && !readOnly) {
    const value = Buffer.alloc(4);
    value.writeUInt32LE(STORE_VERSION);
    meta.put('version', value);
  } else if (version !== undefined && version !== STORE_VERSION) {
    void env.close();
    throw otherVersion(roots, version);
  }
  return {
    table,
    transaction: run,
    counter(name, step) {
      const value = meta.get(name)?.readDoubleLE(0) ?? 0;
      if (step !== 0) {
        const next = Buffer.alloc(8);
        next.writeDoubleLE(value + step);
        meta.put(name, next);
      }
      return value;
    },
    tableNames() {
      // LMDB's names end in a zero byte.
      return [...env.getKeys()].map((key) => Buffer.from(key).toString().replace(/\0$/, ''));
    },
    async copy(to) {
      try {
        await env.backup(to, true);
        syncFile(join(to, 'data.mdb'));
      } catch (error) {
        throw diskError(error, `cannot copy the index to ${to}`);
      }
    },
    get fileBytes() {
      return statSync(join(path, 'data.mdb')).size;
    },
    async close() {
      closed = true;
      snapshots.close();
      await env.close();
    },
  };
}

function otherVersion(roots: Roots, version: number): PgError {
  const newer = version > STORE_VERSION;
  return new PgError(
    newer ? 'NEWER_STORE' : 'OLDER_STORE',
    `the store at ${roots.data} has format ${version}, this pg ${newer ? 'knows' : 'needs'} ${STORE_VERSION}`,
    {
      hint: newer
        ? 'use a newer pg, or another --root'
        : 'export its images with the pg that wrote it and import them again, or use another --root',
    },
  );
}

function versionOf(meta: Table, path: string): number | undefined {
  try {
    return meta.get('version')?.readUInt32LE(0);
  } catch (cause) {
    if (!isPgError(cause, 'CORRUPT_INDEX')) throw cause;
    throw new PgError('CORRUPT_INDEX', `the index ${path} is damaged, or no index of this pg`, { cause });
  }
}

/**
 * LMDB says EIO when the disk took only a part of a write, as a full one does (mdb.c, mdb_page_flush: "short write,
 * filesystem full?").
 */
function ranOutOfSpace(error: unknown, path: string): boolean {
  if (!/Input\/output error/.test((error as Error).message)) return false;
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize < 1 << 20;
}
