import { S_IFDIR, S_IFMT, S_IFREG } from '../../../layers/trie.ts';
import type { StateAt } from '../../../fs/history/state-at.ts';

/** The files of a state as `dump` shows those of a view, read through its tree. */
export function dumpState({ tree, read }: StateAt): string[] {
  const lines: string[] = [];
  const first = new Map<number, string>();
  const visit = (ino: number, path: string): void => {
    const known = first.get(ino);
    if (known !== undefined) {
      lines.push(`${path} = ${known}`);
      return;
    }
    first.set(ino, path);
    const inode = tree.get(ino)!;
    const xattrs = [...(inode.xattrs ?? [])]
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => ` ${name}=${Buffer.from(value).toString('hex')}`);
    let body = '';
    if (inode.symlink !== undefined) body = ` -> ${Buffer.from(inode.symlink).toString('latin1')}`;
    if ((inode.mode & S_IFMT) === S_IFREG) {
      const bytes = Buffer.alloc(inode.size);
      read(ino, 0, bytes);
      body = ` ${bytes.toString('latin1')}`;
    }
    lines.push(
      `${path || '/'} ${inode.mode.toString(8)} ${inode.nlink} ${inode.uid}:${inode.gid} ${inode.rdev} ${inode.size}${xattrs.join('')}${body}`,
    );
    if ((inode.mode & S_IFMT) !== S_IFDIR) return;
    let subdirs = 0;
    for (let i = 0, entry; (entry = tree.entryAt(ino, i)) !== undefined; i++) {
      if ((entry.mode & S_IFMT) === S_IFDIR) subdirs++;
      if (tree.lookup(ino, entry.name) !== entry.ino || tree.get(entry.ino)!.mode !== entry.mode)
        lines.push(`${path}/${entry.name}: listing and lookup differ`);
      if ((entry.mode & S_IFMT) === S_IFDIR && tree.parentOf(entry.ino) !== ino)
        lines.push(`${path}/${entry.name}: has another parent`);
      visit(entry.ino, `${path}/${entry.name}`);
    }
    if (subdirs !== tree.subdirs(ino))
      lines.push(`${path || '/'}: has ${subdirs} directories, not ${tree.subdirs(ino)}`);
  };
  visit(1, '');
  return lines;
}

/** Path to what `compareTrees` looks at. */
export function pathsOf(at: StateAt): Map<string, string> {
  const found = new Map<string, string>();
  const visit = (ino: number, path: string): void => {
    const inode = at.tree.get(ino)!;
    const bytes = Buffer.alloc((inode.mode & 0o170000) === 0o100000 ? inode.size : 0);
    if (bytes.length > 0) at.read(ino, 0, bytes);
    const xattrs = [...(inode.xattrs ?? [])]
      .map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`)
      .toSorted();
    const link = Buffer.from(inode.symlink ?? '').toString('latin1');
    found.set(
      path,
      JSON.stringify([inode.mode, inode.uid, inode.gid, inode.rdev, xattrs, link, bytes.toString('latin1')]),
    );
    for (let i = 0, entry; (entry = at.tree.entryAt(ino, i)) !== undefined; i++)
      visit(entry.ino, path === '/' ? `/${entry.name}` : `${path}/${entry.name}`);
  };
  visit(1, '/');
  return found;
}
