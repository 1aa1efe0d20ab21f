// Records what a store does to its disk - creating, writing, syncing, renaming, removing files, and commits of the
// index, each as one operation - and makes the disk that a crash after any of them would leave.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { dirname, join, relative } from 'node:path';
import type { Store } from '../../../store/store.ts';

type Operation =
  | { kind: 'create' | 'mkdir' | 'remove' | 'sync'; path: string }
  | { kind: 'write'; path: string; offset: number; bytes: Buffer }
  | { kind: 'truncate'; path: string; length: number }
  | { kind: 'rename'; path: string; to: string }
  | { kind: 'index'; bytes: Buffer };

/**
 * How much of what was done is on the disk: all of it; without bytes of files that were not synced; also without names
 * whose directory was not; or all, but of the last write only half.
 */
export const CRASHES = ['issued', 'synced', 'strict', 'torn'] as const;
export type Crash = (typeof CRASHES)[number];

interface Transactions {
  transaction<T>(action: () => T): T;
}

/** The operations on files below `dir` and on the store's index while `action` runs. */
export function record(store: Store | undefined, dir: string, action: () => void): Operation[] {
  const operations: Operation[] = [];
  const original = { ...fs };
  const pathOf = new Map<number, string>();
  const add = (path: string, make: (path: string) => Operation): void => {
    const inside = relative(dir, path) || '.';
    // Leases end with their process: a crash leaves none.
    if (!/^(\.\.|leases)/.test(inside)) operations.push(make(inside));
  };
  const patched = {
    openSync(path: string, flags: string, mode?: number): number {
      const fd = original.openSync(path, flags, mode);
      pathOf.set(fd, path);
      if (flags === 'w') add(path, (path) => ({ kind: 'create', path }));
      return fd;
    },
    writeSync(fd: number, bytes: Uint8Array, from: number, length: number, offset: number): number {
      const done = original.writeSync(fd, bytes, from, length, offset);
      const copy = Buffer.from(bytes.subarray(from, from + done));
      add(pathOf.get(fd)!, (path) => ({ kind: 'write', path, offset, bytes: copy }));
      return done;
    },
    ftruncateSync(fd: number, length: number): void {
      original.ftruncateSync(fd, length);
      add(pathOf.get(fd)!, (path) => ({ kind: 'truncate', path, length }));
    },
    fdatasyncSync(fd: number): void {
      original.fdatasyncSync(fd);
      add(pathOf.get(fd)!, (path) => ({ kind: 'sync', path }));
    },
    fsyncSync(fd: number): void {
      original.fsyncSync(fd);
      add(pathOf.get(fd)!, (path) => ({ kind: 'sync', path }));
    },
    copyFileSync(from: string, to: string, mode?: number): void {
      original.copyFileSync(from, to, mode);
      add(to, (path) => ({ kind: 'create', path }));
      add(to, (path) => ({ kind: 'write', path, offset: 0, bytes: original.readFileSync(to) }));
    },
    renameSync(from: string, to: string): void {
      original.renameSync(from, to);
      add(from, (path) => ({ kind: 'rename', path, to: relative(dir, to) }));
    },
    rmSync(path: string, options: fs.RmOptions): void {
      original.rmSync(path, options);
      add(path, (path) => ({ kind: 'remove', path }));
    },
    mkdirSync(path: string, options: fs.MakeDirectoryOptions): void {
      original.mkdirSync(path, options);
      add(path, (path) => ({ kind: 'mkdir', path }));
    },
  };
  const index = (store as unknown as { index: Transactions } | undefined)?.index;
  const transaction = index?.transaction.bind(index);
  let depth = 0;
  if (index !== undefined)
    index.transaction = (inner) => {
      depth++;
      try {
        return transaction!(inner);
      } finally {
        if (--depth === 0)
          operations.push({ kind: 'index', bytes: original.readFileSync(join(dir, 'index/data.mdb')) });
      }
    };
  Object.assign(fs, patched);
  syncBuiltinESMExports();
  try {
    action();
  } finally {
    for (const name of Object.keys(patched) as (keyof typeof patched)[]) Object.assign(fs, { [name]: original[name] });
    syncBuiltinESMExports();
    if (index !== undefined) index.transaction = transaction!;
  }
  return operations;
}

/** Makes `dir`, a copy of the disk before, what it is after the first `count` operations and a crash. */
export function replay(operations: readonly Operation[], count: number, dir: string, crash: Crash): void {
  const done = operations.slice(0, count);
  const isSynced = (path: string, from: number): boolean =>
    done.some((operation, i) => i > from && operation.kind === 'sync' && operation.path === path);
  for (const [i, operation] of done.entries()) {
    const path = operation.kind === 'index' ? join(dir, 'index/data.mdb') : join(dir, operation.path);
    switch (operation.kind) {
      case 'create':
        fs.writeFileSync(path, '');
        break;
      case 'mkdir':
        fs.mkdirSync(path, { recursive: true });
        break;
      case 'remove':
        fs.rmSync(path, { force: true });
        break;
      case 'write': {
        if (crash !== 'issued' && crash !== 'torn' && !isSynced(operation.path, i)) break;
        const length = crash === 'torn' && i === count - 1 ? operation.bytes.length >> 1 : operation.bytes.length;
        const fd = fs.openSync(path, 'r+');
        if (fs.fstatSync(fd).size < operation.offset) fs.ftruncateSync(fd, operation.offset);
        fs.writeSync(fd, operation.bytes, 0, length, operation.offset);
        fs.closeSync(fd);
        break;
      }
      case 'truncate':
        if (crash === 'issued' || crash === 'torn' || isSynced(operation.path, i))
          fs.truncateSync(path, operation.length);
        break;
      case 'rename':
        if (crash === 'strict' && !isSynced(dirname(operation.to), i)) break;
        fs.renameSync(path, join(dir, operation.to));
        break;
      case 'index':
        fs.writeFileSync(path, operation.bytes);
        break;
      case 'sync':
        break;
      default:
        operation satisfies never;
    }
  }
}
