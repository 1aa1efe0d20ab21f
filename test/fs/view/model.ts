/** A filesystem in plain objects, as POSIX has it: what the view is compared with. It knows nothing of images, logs or extents. */
export interface ModelNode {
  type: number;
  mode: number;
  uid: number;
  gid: number;
  rdev: number;
  nlink: number;
  data: Buffer;
  target: string;
  xattrs: Map<string, Buffer>;
  names: Map<string, ModelNode>;
  parent: ModelNode | undefined;
}

const DIR = 0o040000;
const REG = 0o100000;
const LNK = 0o120000;
const CHR = 0o020000;

/** A refusal, by errno name. */
export class Refusal extends Error {}

const refuse = (code: string): never => {
  throw new Refusal(code);
};

export class Model {
  root: ModelNode = node(DIR, 0o755, 2);

  /** Every directory that can be reached, in byte order of paths. */
  directories(): ModelNode[] {
    const found: ModelNode[] = [];
    const visit = (at: ModelNode): void => {
      found.push(at);
      for (const name of [...at.names.keys()].toSorted())
        if (at.names.get(name)!.type === DIR) visit(at.names.get(name)!);
    };
    visit(this.root);
    return found;
  }

  create(
    dir: ModelNode,
    name: string,
    type: number,
    mode: number,
    extra: { target?: string; rdev?: number; uid?: number; gid?: number },
  ): ModelNode {
    if (dir.names.has(name)) refuse('EEXIST');
    const made = node(type, mode, type === DIR ? 2 : 1);
    made.uid = extra.uid ?? 0;
    made.gid = dir.mode & 0o2000 ? dir.gid : (extra.gid ?? 0);
    if (dir.mode & 0o2000 && type === DIR) made.mode |= 0o2000;
    made.rdev = extra.rdev ?? 0;
    if (type === LNK) made.target = extra.target ?? '';
    if (type === DIR) {
      made.parent = dir;
      dir.nlink++;
    }
    dir.names.set(name, made);
    return made;
  }

  get(dir: ModelNode, name: string): ModelNode {
    return dir.names.get(name) ?? refuse('ENOENT');
  }

  link(target: ModelNode, dir: ModelNode, name: string): void {
    if (target.type === DIR) refuse('EPERM');
    if (dir.names.has(name)) refuse('EEXIST');
    dir.names.set(name, target);
    target.nlink++;
  }

  unlink(dir: ModelNode, name: string): void {
    const found = this.get(dir, name);
    if (found.type === DIR) refuse('EISDIR');
    dir.names.delete(name);
    found.nlink--;
  }

  rmdir(dir: ModelNode, name: string): void {
    const found = this.get(dir, name);
    if (found.type !== DIR) refuse('ENOTDIR');
    if (found.names.size > 0) refuse('ENOTEMPTY');
    dir.names.delete(name);
    dir.nlink--;
    found.nlink = 0;
  }

  rename(dir: ModelNode, name: string, to: ModelNode, newName: string, flags: number): void {
    if (flags & 2 && flags & 5) refuse('EINVAL');
    const found = this.get(dir, name);
    const target = to.names.get(newName);
    if (flags & 2 && !target) refuse('ENOENT');
    if (flags & 1 && target) refuse('EEXIST');
    if (target === found) return;
    if (found.type === DIR && isAbove(found, to)) refuse('EINVAL');
    if (flags & 2) return this.exchange(dir, name, to, newName, found, target!);
    if (target) {
      if (target.type === DIR) {
        if (isAbove(target, dir)) refuse('ENOTEMPTY');
        if (found.type !== DIR) refuse('EISDIR');
        if (target.names.size > 0) refuse('ENOTEMPTY');
        to.nlink--;
        target.nlink = 0;
      } else {
        if (found.type === DIR) refuse('ENOTDIR');
        target.nlink--;
      }
    }
    dir.names.delete(name);
    to.names.set(newName, found);
    this.moved(found, dir, to);
    if (flags & 4) dir.names.set(name, node(CHR, 0, 1));
  }

  private exchange(
    dir: ModelNode,
    name: string,
    to: ModelNode,
    newName: string,
    found: ModelNode,
    target: ModelNode,
  ): void {
    if (target.type === DIR && isAbove(target, dir)) refuse('EINVAL');
    dir.names.set(name, target);
    to.names.set(newName, found);
    this.moved(found, dir, to);
    this.moved(target, to, dir);
  }

  private moved(found: ModelNode, from: ModelNode, to: ModelNode): void {
    if (found.type !== DIR || from === to) return;
    found.parent = to;
    from.nlink--;
    to.nlink++;
  }

  write(file: ModelNode, offset: number, bytes: Buffer): void {
    checkFile(file);
    if (bytes.length === 0) return;
    this.grow(file, offset + bytes.length);
    bytes.copy(file.data, offset);
    file.xattrs.delete('security.capability');
  }

  truncate(file: ModelNode, size: number): void {
    checkFile(file);
    if (size <= file.data.length) file.data = Buffer.from(file.data.subarray(0, size));
    else this.grow(file, size);
    file.xattrs.delete('security.capability');
  }

  chmod(file: ModelNode, mode: number): void {
    file.mode = mode;
  }

  chown(file: ModelNode, uid: number, gid: number): void {
    file.uid = uid;
    file.gid = gid;
    if (file.type !== DIR) file.mode &= ~0o4000 & (file.mode & 0o10 ? ~0o2000 : ~0);
    file.xattrs.delete('security.capability');
  }

  fallocate(file: ModelNode, mode: number, offset: number, length: number): void {
    if (file.type === DIR) refuse('EISDIR');
    if (file.type !== REG) refuse('ENXIO');
    if (![0, 1, 3, 16, 17].includes(mode)) refuse('EOPNOTSUPP');
    if (!(mode & 1)) this.grow(file, offset + length);
    if (mode & 18) file.data.fill(0, Math.min(offset, file.data.length), Math.min(offset + length, file.data.length));
    file.xattrs.delete('security.capability');
  }

  copy(from: ModelNode, fromOffset: number, to: ModelNode, toOffset: number, length: number): number {
    if (from.type === DIR || to.type === DIR) refuse('EISDIR');
    if (from.type !== REG || to.type !== REG) refuse('EINVAL');
    const bytes = Math.min(length, from.data.length - fromOffset);
    if (bytes <= 0) return 0;
    if (from === to && fromOffset < toOffset + bytes && toOffset < fromOffset + bytes) refuse('EINVAL');
    this.write(to, toOffset, Buffer.from(from.data.subarray(fromOffset, fromOffset + bytes)));
    return bytes;
  }

  setxattr(file: ModelNode, name: string, value: Buffer, flags: number): void {
    if (flags & 1 && file.xattrs.has(name)) refuse('EEXIST');
    if (flags & 2 && !file.xattrs.has(name)) refuse('ENODATA');
    file.xattrs.set(name, value);
  }

  removexattr(file: ModelNode, name: string): void {
    if (!file.xattrs.delete(name)) refuse('ENODATA');
  }

  /** The same lines as `dump` of a view without times. */
  dump(): string[] {
    const lines: string[] = [];
    const first = new Map<ModelNode, string>();
    const visit = (at: ModelNode, path: string): void => {
      const known = first.get(at);
      if (known !== undefined) {
        lines.push(`${path} = ${known}`);
        return;
      }
      first.set(at, path);
      const size = at.type === REG ? at.data.length : at.target.length;
      const xattrs = [...at.xattrs]
        .toSorted(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, value]) => ` ${name}=${value.toString('hex')}`);
      const body = at.type === LNK ? ` -> ${at.target}` : at.type === REG ? ` ${at.data.toString('latin1')}` : '';
      lines.push(
        `${path || '/'} ${(at.type | at.mode).toString(8)} ${at.nlink} ${at.uid}:${at.gid} ${at.rdev} ${size}${xattrs.join('')}${body}`,
      );
      for (const name of [...at.names.keys()].toSorted()) visit(at.names.get(name)!, `${path}/${name}`);
    };
    visit(this.root, '');
    return lines;
  }

  private grow(file: ModelNode, size: number): void {
    if (size > file.data.length) file.data = Buffer.concat([file.data, Buffer.alloc(size - file.data.length)]);
  }
}

export function node(type: number, mode: number, nlink: number): ModelNode {
  return {
    type,
    mode,
    uid: 0,
    gid: 0,
    rdev: 0,
    nlink,
    data: Buffer.alloc(0),
    target: '',
    xattrs: new Map(),
    names: new Map(),
    parent: undefined,
  };
}

function checkFile(file: ModelNode): void {
  if (file.type === DIR) refuse('EISDIR');
  if (file.type !== REG) refuse('EINVAL');
}

function isAbove(upper: ModelNode, below: ModelNode): boolean {
  for (let at: ModelNode | undefined = below; at !== undefined; at = at.parent) if (at === upper) return true;
  return false;
}
