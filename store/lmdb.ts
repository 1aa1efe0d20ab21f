import { createRequire } from 'node:module';
import type { RootDatabase, Transaction } from 'lmdb';

/** LMDB's MDB_RDONLY (lmdb.h). */
export const READ_ONLY = 0x20000;

export type NativeTransaction = Transaction & { readonly address: number; abort(): void };

/** What lmdb-js exports of its native half, beyond its types. */
interface Native {
  Txn: new (env: object, flags: number) => NativeTransaction;
  resetTxn(address: number): void;
}

type Lmdb = typeof import('lmdb') & { nativeAddon: Native };

// Its one-file form for `require` loads in 29 ms of CPU, the modules for `import` in 40; every command pays for that.
const lmdb = createRequire(import.meta.url)('lmdb') as Lmdb;

export const { open, nativeAddon: native } = lmdb;

/** The environment object that native calls want. */
export function environmentOf(root: RootDatabase<Buffer, Uint8Array>): object {
  return (root as unknown as { env: object }).env;
}
