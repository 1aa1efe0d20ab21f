import assert from 'node:assert/strict';
import type { RootDatabase, Transaction } from 'lmdb';
import { environmentOf, native, type NativeTransaction, READ_ONLY } from './lmdb.ts';

/**
 * Read transactions that are given back as soon as a read is done. lmdb-js on its own keeps one until a timer fires,
 * which never happens in a thread that blocks on /dev/fuse: that would read an old state for ever, keep every freed
 * page of the index from being used again, and pile up timers.
 */
export class Snapshots {
  private readonly env: object;
  private readonly free: NativeTransaction[] = [];
  private readonly all: NativeTransaction[] = [];
  private closed = false;

  constructor(root: RootDatabase<Buffer, Uint8Array>) {
    this.env = environmentOf(root);
  }

  /** A transaction to be named in read options: it sees what is committed when it is first used. */
  take(): Transaction {
    assert.ok(!this.closed, 'the store is closed');
    const reset = this.free.pop();
    if (reset) return reset;
    const made = new native.Txn(this.env, READ_ONLY);
    native.resetTxn(made.address);
    this.all.push(made);
    return made;
  }

  /** The reader is done with it, and with everything that he did not copy. */
  give(transaction: Transaction): void {
    if (this.closed) return;
    native.resetTxn((transaction as NativeTransaction).address);
    this.free.push(transaction as NativeTransaction);
  }

  /** Ends all of them. */
  close(): void {
    this.closed = true;
    for (const transaction of this.all.splice(0)) transaction.abort();
    this.free.length = 0;
  }
}
