import { join } from 'node:path';
import { closeLog, openToRead } from '../log/bases.ts';
import { CommitList } from '../log/commits.ts';
import { Hasher } from '../log/hasher.ts';
import { readHeader } from '../log/header.ts';
import { rootFromKept } from '../log/roots.ts';

/** The Merkle root (hex) of the first `size` bytes, a commit's end, of the log in `dir`: from what is hashed already where that goes, else from the bytes. */
export function rootAt(dir: string, size: number): string {
  const path = join(dir, 'log');
  const fd = openToRead(dir);
  try {
    const hasher = new Hasher(dir, fd, readHeader(fd, path).salt);
    try {
      const kept = rootFromKept(fd, hasher.roots, size);
      if (kept !== undefined) return Buffer.from(kept).toString('hex');
      if (hasher.size <= size) return Buffer.from(hasher.rootAt(size)).toString('hex');
    } finally {
      hasher.close();
    }
  } finally {
    closeLog(fd);
  }
  const list = new CommitList(dir, size, 'bytes');
  try {
    let root: Uint8Array = new Uint8Array(32);
    for (const commit of list.oldestFirst()) root = commit.root;
    return Buffer.from(root).toString('hex');
  } finally {
    list.close();
  }
}
