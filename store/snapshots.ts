import assert from 'node:assert/strict';
import * as lmdb from 'lmdb';

/** LMDB's MDB_RDONLY (lmdb.h). */
const READ_ONLY = 0x20000;

type NativeTxn = lmdb.Transaction & { readonly address: number; abort(): void };
/** What lmdb-js exports of its native half, apart from its types. */
interface Native {
  Txn: new (env: object, flags: number) => NativeTxn;
  resetTxn(address: number): void;
}

/**
 * Read transactions that are given back as soon as a read is done. lmdb-js on its own keeps one until a timer fires, which never happens in a thread that blocks
 * on /dev/fuse: that would read an old state for ever, keep every freed page of the index from being used again, and pile up timers.
 */
export class Snapshots {
  private readonly native: Native;
  private readonly env: object;
  private readonly free: NativeTxn[] = [];
  private readonly all: NativeTxn[] = [];
  private closed = false;

  constructor(root: lmdb.RootDatabase<Buffer, Uint8Array>) {
    const { nativeAddon } = lmdb as unknown as { nativeAddon?: Native };
    const { env } = root as unknown as { env?: object };
    assert.ok(nativeAddon && env, 'the lmdb package has the parts that we use');
    this.native = nativeAddon;
    this.env = env;
  }

  /** A transaction to be named in read options: it sees what is committed when it is first used. */
  take(): lmdb.Transaction {
    assert.ok(!this.closed, 'the store is closed');
    const reset = this.free.pop();
    if (reset) return reset;
    const made = new this.native.Txn(this.env, READ_ONLY);
    this.native.resetTxn(made.address);
    this.all.push(made);
    return made;
  }

  /** The reader is done with it, and with everything that he did not copy. */
  give(transaction: lmdb.Transaction): void {
    if (this.closed) return;
    this.native.resetTxn((transaction as NativeTxn).address);
    this.free.push(transaction as NativeTxn);
  }

  /** Ends all of them. */
  close(): void {
    this.closed = true;
    for (const transaction of this.all.splice(0)) transaction.abort();
    this.free.length = 0;
  }
}
