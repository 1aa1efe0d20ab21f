import assert from 'node:assert/strict';
import fc from 'fast-check';
import { isFsError } from '../../../fs/view/error.ts';
import type { View } from '../../../fs/view/view.ts';
import { dump, type ImageFile, ROOT_CALLER } from './fixture.ts';
import { Model, type ModelNode, node, Refusal } from './model.ts';

/** Random programs of file operations, run on a view and on the model side by side. */

const bytes = (length: number, seed: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, i) => 97 + ((seed * 7 + i * 3) % 26)));

/** The image below: small, and with one of everything. */
export const IMAGE: readonly ImageFile[] = [
  { path: 'a', kind: 'file', mode: 0o644, data: bytes(9000, 1), xattrs: { 'security.capability': Buffer.from('cap') } },
  { path: 'b', kind: 'file', mode: 0o6755, data: bytes(100, 2) },
  { path: 'd', kind: 'dir', mode: 0o2755 },
  { path: 'd/a', kind: 'file', mode: 0o600, data: bytes(5000, 3), xattrs: { 'user.x': Buffer.from('lower') } },
  { path: 'd/b', kind: 'symlink', target: '../a' },
  { path: 'd/c', kind: 'link', to: 'a' },
  { path: 'd/d', kind: 'dir', mode: 0o755 },
  { path: 'd/d/a', kind: 'file', mode: 0o644, data: bytes(0, 4) },
  { path: 'e', kind: 'dir', mode: 0o700 },
];

/** The model of the image alone. */
export function modelOfImage(files: readonly ImageFile[]): Model {
  const model = new Model();
  const nodes = new Map<string, ModelNode>([['', model.root]]);
  for (const file of files) {
    const slash = file.path.lastIndexOf('/');
    const parent = nodes.get(file.path.slice(0, Math.max(0, slash)))!;
    const name = file.path.slice(slash + 1);
    if (file.kind === 'link') {
      model.link(nodes.get(file.to)!, parent, name);
      continue;
    }
    const made = node(
      file.kind === 'dir' ? 0o040000 : file.kind === 'file' ? 0o100000 : 0o120000,
      file.kind === 'symlink' ? 0o777 : file.mode,
      file.kind === 'dir' ? 2 : 1,
    );
    if (file.kind === 'dir') {
      made.parent = parent;
      parent.nlink++;
    }
    if (file.kind === 'file') {
      made.data = Buffer.from(file.data);
      made.xattrs = new Map(Object.entries(file.xattrs ?? {}));
    }
    if (file.kind === 'symlink') made.target = file.target;
    parent.names.set(name, made);
    nodes.set(file.path, made);
  }
  return model;
}

export type Op =
  | { op: 'mknod'; dir: number; name: string; mode: number; uid: number }
  | { op: 'device'; dir: number; name: string; rdev: number }
  | { op: 'mkdir'; dir: number; name: string; mode: number }
  | { op: 'symlink'; dir: number; name: string; target: string }
  | { op: 'link'; dir: number; name: string; to: number; newName: string }
  | { op: 'tmpfile'; dir: number; name: string; data: number }
  | { op: 'unlink' | 'rmdir'; dir: number; name: string }
  | { op: 'rename'; dir: number; name: string; to: number; newName: string; flags: number }
  | { op: 'write'; dir: number; name: string; offset: number; length: number; seed: number }
  | { op: 'append'; dir: number; name: string; lengths: number[] }
  | { op: 'truncate'; dir: number; name: string; size: number }
  | { op: 'chmod'; dir: number; name: string; mode: number }
  | { op: 'chown'; dir: number; name: string; uid: number; gid: number }
  | { op: 'fallocate'; dir: number; name: string; mode: number; offset: number; length: number }
  | {
      op: 'copy';
      dir: number;
      name: string;
      offset: number;
      to: number;
      newName: string;
      newOffset: number;
      length: number;
    }
  | { op: 'setxattr'; dir: number; name: string; key: string; value: number; flags: number }
  | { op: 'removexattr'; dir: number; name: string; key: string }
  | { op: 'flush' };

const dir = fc.nat(5);
const name = fc.constantFrom('a', 'b', 'c', 'd', 'e');
const offset = fc.oneof(fc.nat(20_000), fc.constantFrom(0, 4096, 8192, 100));
const length = fc.oneof(fc.nat(9000), fc.constantFrom(1, 4096, 8192));
const mode = fc.constantFrom(0o644, 0o755, 0o4755, 0o2755, 0o6711, 0o2644, 0);
const id = fc.constantFrom(0, 1000);
const key = fc.constantFrom('user.x', 'user.y', 'trusted.z', 'security.capability');

export const operation: fc.Arbitrary<Op> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ op: fc.constant('mknod' as const), dir, name, mode, uid: id }) },
  fc.record({ op: fc.constant('device' as const), dir, name, rdev: fc.nat(0xffffffff) }),
  { weight: 2, arbitrary: fc.record({ op: fc.constant('mkdir' as const), dir, name, mode }) },
  fc.record({
    op: fc.constant('symlink' as const),
    dir,
    name,
    target: fc.constantFrom('x', '\xff\x80', 'long'.repeat(300)),
  }),
  { weight: 2, arbitrary: fc.record({ op: fc.constant('link' as const), dir, name, to: dir, newName: name }) },
  fc.record({ op: fc.constant('tmpfile' as const), dir, name, data: fc.nat(5000) }),
  { weight: 3, arbitrary: fc.record({ op: fc.constantFrom('unlink' as const, 'rmdir' as const), dir, name }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('rename' as const),
      dir,
      name,
      to: dir,
      newName: name,
      flags: fc.constantFrom(0, 0, 0, 1, 2, 4, 5, 6),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({ op: fc.constant('write' as const), dir, name, offset, length, seed: fc.nat(100) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('append' as const),
      dir,
      name,
      lengths: fc.array(length, { maxLength: 4 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('truncate' as const), dir, name, size: offset }) },
  fc.record({ op: fc.constant('chmod' as const), dir, name, mode }),
  fc.record({ op: fc.constant('chown' as const), dir, name, uid: id, gid: id }),
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('fallocate' as const),
      dir,
      name,
      mode: fc.constantFrom(0, 1, 3, 16, 17, 2, 8),
      offset,
      length: length.map((n) => n + 1),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('copy' as const),
      dir,
      name,
      offset,
      to: dir,
      newName: name,
      newOffset: offset,
      length,
    }),
  },
  fc.record({
    op: fc.constant('setxattr' as const),
    dir,
    name,
    key,
    value: fc.nat(300),
    flags: fc.constantFrom(0, 0, 1, 2),
  }),
  fc.record({ op: fc.constant('removexattr' as const), dir, name, key }),
  fc.record({ op: fc.constant('flush' as const) }),
);

/** A view and the model of what it should be. */
export class Pair {
  view: View;
  readonly model: Model;

  constructor(view: View, model: Model) {
    this.view = view;
    this.model = model;
  }

  /** Does `op` to both, and demands the same answer. */
  run(op: Op): void {
    const ours = answer(() => this.onView(op));
    const theirs = answer(() => this.onModel(op));
    assert.equal(ours, theirs, JSON.stringify(op));
  }

  check(): void {
    assert.deepEqual(dump(this.view), this.model.dump());
  }

  /** The view's inode of the directory that the model has at this index. */
  private inoOf(target: ModelNode): number {
    const path: string[] = [];
    for (let at = target; at.parent !== undefined; at = at.parent) {
      path.unshift([...at.parent.names].find(([, child]) => child === at)![0]);
    }
    return path.reduce((ino, part) => this.view.lookup(ino, part).ino, 1);
  }

  private pick(index: number): ModelNode {
    const all = this.model.directories();
    return all[index % all.length]!;
  }

  private onView(op: Op): unknown {
    const { view } = this;
    if (op.op === 'flush') return void view.flush();
    const parent = this.inoOf(this.pick(op.dir));
    const find = (): number => view.lookup(parent, op.name).ino;
    const other = (): number => this.inoOf(this.pick((op as { to: number }).to));
    switch (op.op) {
      case 'mknod':
        return void view.mknod(parent, op.name, 0o100000 | op.mode, 0, { ...ROOT_CALLER, uid: op.uid });
      case 'device':
        return void view.mknod(parent, op.name, 0o020600, op.rdev, ROOT_CALLER);
      case 'mkdir':
        return void view.mkdir(parent, op.name, op.mode, ROOT_CALLER);
      case 'symlink':
        return void view.symlink(parent, op.name, Buffer.from(op.target, 'latin1'), ROOT_CALLER);
      case 'link':
        return void view.link(find(), other(), op.newName);
      case 'tmpfile': {
        const { ino } = view.tmpfile(parent, 0o600, ROOT_CALLER);
        view.open(ino, false);
        view.write(ino, 0, bytes(op.data, 9), false);
        try {
          view.link(ino, parent, op.name);
        } finally {
          view.release(ino);
          view.forget(ino);
        }
        return;
      }
      case 'unlink':
        return view.unlink(parent, op.name);
      case 'rmdir':
        return view.rmdir(parent, op.name);
      case 'rename':
        return view.rename(parent, op.name, other(), op.newName, op.flags, ROOT_CALLER);
      case 'write':
        return void view.write(find(), op.offset, bytes(op.length, op.seed), false);
      case 'append':
        return op.lengths.forEach((n, i) => {
          const ino = find();
          view.write(ino, view.getattr(ino).size, bytes(n, i), false);
        });
      case 'truncate':
        return void view.setattr(find(), { size: op.size }, ROOT_CALLER);
      case 'chmod':
        return void view.setattr(find(), { mode: op.mode }, ROOT_CALLER);
      case 'chown':
        return void view.setattr(find(), { uid: op.uid, gid: op.gid }, ROOT_CALLER);
      case 'fallocate':
        return view.fallocate(find(), op.mode, op.offset, op.length);
      case 'copy':
        return view.copyFileRange(find(), op.offset, view.lookup(other(), op.newName).ino, op.newOffset, op.length);
      case 'setxattr':
        return view.setxattr(find(), op.key, bytes(op.value, 3), op.flags);
      case 'removexattr':
        return view.removexattr(find(), op.key);
    }
  }

  private onModel(op: Op): unknown {
    const { model } = this;
    if (op.op === 'flush') return;
    const parent = this.pick(op.dir);
    const find = (): ModelNode => model.get(parent, op.name);
    const other = (): ModelNode => this.pick((op as { to: number }).to);
    switch (op.op) {
      case 'mknod':
        return void model.create(parent, op.name, 0o100000, op.mode, { uid: op.uid });
      case 'device':
        return void model.create(parent, op.name, 0o020000, 0o600, { rdev: op.rdev });
      case 'mkdir':
        return void model.create(parent, op.name, 0o040000, op.mode, {});
      case 'symlink':
        return void model.create(parent, op.name, 0o120000, 0o777, { target: op.target });
      case 'link':
        return model.link(find(), other(), op.newName);
      case 'tmpfile':
        return model.write(model.create(parent, op.name, 0o100000, 0o600, {}), 0, bytes(op.data, 9));
      case 'unlink':
        return model.unlink(parent, op.name);
      case 'rmdir':
        return model.rmdir(parent, op.name);
      case 'rename':
        return model.rename(parent, op.name, other(), op.newName, op.flags);
      case 'write': {
        const file = find();
        return op.length === 0 ? undefined : model.write(file, op.offset, bytes(op.length, op.seed));
      }
      case 'append':
        return op.lengths.forEach((n, i) => {
          const file = find();
          if (n > 0) model.write(file, file.data.length, bytes(n, i));
        });
      case 'truncate':
        return model.truncate(find(), op.size);
      case 'chmod':
        return model.chmod(find(), op.mode);
      case 'chown':
        return model.chown(find(), op.uid, op.gid);
      case 'fallocate':
        return model.fallocate(find(), op.mode, op.offset, op.length);
      case 'copy':
        return model.copy(find(), op.offset, model.get(other(), op.newName), op.newOffset, op.length);
      case 'setxattr':
        return model.setxattr(find(), op.key, bytes(op.value, 3), op.flags);
      case 'removexattr':
        return model.removexattr(find(), op.key);
    }
  }
}

function answer(action: () => unknown): string {
  try {
    return `${action() ?? 'done'}`;
  } catch (error) {
    if (isFsError(error)) return error.code;
    if (error instanceof Refusal) return error.message;
    throw error;
  }
}
