// Records what a log does to its directory - writing, syncing, renaming, removing, giving back - and makes the disk that a crash after any of it would leave.
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { dirname, join, relative } from 'node:path';

type Operation =
  | { kind: 'create' | 'remove' | 'sync'; path: string }
  | { kind: 'write'; path: string; offset: number; bytes: Buffer }
  | { kind: 'truncate'; path: string; length: number }
  | { kind: 'punch'; path: string; offset: number; length: number }
  | { kind: 'rename'; path: string; to: string };

/** What of the operations reached the disk: all; only what was synced (punches excepted, which count at once); all, but half of the last write. */
export const CRASHES = ['issued', 'synced', 'torn'] as const;
export type Crash = (typeof CRASHES)[number];

/** The operations on files below `dir` while `action` runs; it is given what punches holes. */
export function record(
  dir: string,
  openFds: ReadonlyMap<number, string>,
  action: (punch: (fd: number, offset: number, length: number) => void) => void,
): Operation[] {
  const operations: Operation[] = [];
  const original = { ...fs };
  const pathOf = new Map(openFds);
  const add = (path: string | undefined, make: (path: string) => Operation): void => {
    if (path === undefined) return;
    const inside = relative(dir, path) || '.';
    if (!inside.startsWith('..')) operations.push(make(inside));
  };
  const patched = {
    openSync(path: string, flags: string | number = 'r', mode?: number): number {
      const makes = typeof flags === 'number' ? (flags & fs.constants.O_CREAT) !== 0 : /^[wa]/.test(flags);
      const fd = original.openSync(path, flags, mode);
      pathOf.set(fd, path);
      if (makes) add(path, (path) => ({ kind: 'create', path }));
      return fd;
    },
    writeSync(fd: number, bytes: Uint8Array, from: number, length: number, offset: number): number {
      const done = original.writeSync(fd, bytes, from, length, offset);
      const copy = Buffer.from(bytes.subarray(from, from + done));
      add(pathOf.get(fd), (path) => ({ kind: 'write', path, offset, bytes: copy }));
      return done;
    },
    ftruncateSync(fd: number, length: number): void {
      original.ftruncateSync(fd, length);
      add(pathOf.get(fd), (path) => ({ kind: 'truncate', path, length }));
    },
    fdatasyncSync(fd: number): void {
      add(pathOf.get(fd), (path) => ({ kind: 'sync', path }));
    },
    fsyncSync(fd: number): void {
      add(pathOf.get(fd), (path) => ({ kind: 'sync', path }));
    },
    renameSync(from: string, to: string): void {
      original.renameSync(from, to);
      add(from, (path) => ({ kind: 'rename', path, to: relative(dir, to) }));
    },
    rmSync(path: string, options: fs.RmOptions): void {
      original.rmSync(path, options);
      add(path, (path) => ({ kind: 'remove', path }));
    },
  };
  Object.assign(fs, patched);
  syncBuiltinESMExports();
  try {
    action((fd, offset, length) => add(pathOf.get(fd), (path) => ({ kind: 'punch', path, offset, length })));
  } finally {
    for (const name of Object.keys(patched) as (keyof typeof patched)[]) Object.assign(fs, { [name]: original[name] });
    syncBuiltinESMExports();
  }
  return operations;
}

/** Makes `dir`, a copy of the disk before, what it is after the first `count` operations and a crash. */
export function replay(operations: readonly Operation[], count: number, dir: string, crash: Crash): void {
  const done = operations.slice(0, count);
  const isSynced = (path: string, from: number): boolean =>
    crash !== 'synced' ||
    done.some(
      (operation, i) => i > from && operation.kind === 'sync' && pathsAfter(done, path, from).has(operation.path),
    );
  for (const [i, operation] of done.entries()) {
    const path = join(dir, operation.path);
    switch (operation.kind) {
      case 'create':
        if (!fs.existsSync(path) || !operation.path.endsWith('log')) fs.writeFileSync(path, '');
        break;
      case 'remove':
        fs.rmSync(path, { force: true });
        break;
      case 'write': {
        if (!isSynced(operation.path, i)) break;
        const length = crash === 'torn' && i === count - 1 ? operation.bytes.length >> 1 : operation.bytes.length;
        writeAt(path, operation.bytes.subarray(0, length), operation.offset);
        break;
      }
      case 'punch':
        writeAt(path, Buffer.alloc(operation.length), operation.offset);
        break;
      case 'truncate':
        if (isSynced(operation.path, i)) fs.truncateSync(path, operation.length);
        break;
      case 'rename':
        if (crash === 'synced' && !isSynced(dirname(operation.to), i)) break;
        fs.renameSync(path, join(dir, operation.to));
        break;
      case 'sync':
        break;
      default:
        operation satisfies never;
    }
  }
}

/** The names that a file goes by from operation `from` on. */
function pathsAfter(operations: readonly Operation[], path: string, from: number): Set<string> {
  const names = new Set([path]);
  let now = path;
  for (const operation of operations.slice(from))
    if (operation.kind === 'rename' && operation.path === now) names.add((now = operation.to));
  return names;
}

function writeAt(path: string, bytes: Buffer, offset: number): void {
  const fd = fs.openSync(path, 'r+');
  try {
    fs.writeSync(fd, bytes, 0, bytes.length, offset);
  } finally {
    fs.closeSync(fd);
  }
}
