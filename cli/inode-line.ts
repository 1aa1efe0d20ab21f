import type { LowerInode } from '../layers/tree.ts';
import { S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK } from '../layers/trie.ts';
import { wordOfPath } from './paths.ts';

/** How ls(1) and find(1) write a type of file. */
export const TYPE_LETTERS: ReadonlyMap<number, { ls: string; find: string }> = new Map([
  [S_IFREG, { ls: '-', find: 'f' }],
  [S_IFDIR, { ls: 'd', find: 'd' }],
  [S_IFLNK, { ls: 'l', find: 'l' }],
  [S_IFBLK, { ls: 'b', find: 'b' }],
  [S_IFCHR, { ls: 'c', find: 'c' }],
  [S_IFIFO, { ls: 'p', find: 'p' }],
  [S_IFSOCK, { ls: 's', find: 's' }],
]);

/** `rwxr-xr-x` with the setuid, setgid and sticky bits where ls(1) puts them. */
function permissions(mode: number): string {
  const letters = [...'rwxrwxrwx'].map((letter, i) => ((mode >> (8 - i)) & 1 ? letter : '-'));
  const special = (bit: number, at: number, set: string): void => {
    if (mode & bit) letters[at] = letters[at] === 'x' ? set : set.toUpperCase();
  };
  special(0o4000, 2, 's');
  special(0o2000, 5, 's');
  special(0o1000, 8, 't');
  return letters.join('');
}

/** The kernel's 32-bit device number (`new_decode_dev`). */
const device = (rdev: number): string => `${(rdev >>> 8) & 0xfff}, ${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`;

/** A line of `ls -l`: mode, links, owner and group as numbers, size (devices: their numbers), time, name, a symlink's target. */
export function describeInode(inode: LowerInode, name: string): string {
  const type = inode.mode & S_IFMT;
  const size = type === S_IFBLK || type === S_IFCHR ? device(inode.rdev) : String(inode.size);
  const time = new Date(inode.mtimeSec * 1000);
  const when = Number.isNaN(time.getTime()) ? `@${inode.mtimeSec}` : time.toISOString().slice(0, 19).replace('T', ' ');
  const target = inode.symlink === undefined ? '' : ` -> ${wordOfPath(Buffer.from(inode.symlink).toString('latin1'))}`;
  return [
    `${TYPE_LETTERS.get(type)?.ls ?? '?'}${permissions(inode.mode)}`,
    String(inode.nlink).padStart(3),
    String(inode.uid).padStart(5),
    String(inode.gid).padStart(5),
    size.padStart(10),
    when,
    `${wordOfPath(name)}${target}`,
  ].join(' ');
}
