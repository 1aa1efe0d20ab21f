/** A tree as text, one line a name, to compare what we made of an image with what others make of it. */
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { importImage } from '../../layers/import.ts';
import type { ImageRecord } from '../../layers/images.ts';
import { openTree, type Tree } from '../../layers/tree.ts';
import { S_IFDIR, S_IFLNK, S_IFMT, S_IFREG } from '../../layers/trie.ts';
import type { Store } from '../../store/store.ts';
import { readAll } from '../store/fixture.ts';
import { blobsOf, json, descriptor, type SampleImage } from './transport/samples.ts';

/** What is compared: the directories' times and the root's own attributes are not everybody's to keep. */
export interface ListingOptions {
  directoryTimes?: boolean;
  root?: boolean;
  xattrs?: boolean;
}

interface Facts {
  mode: number;
  uid: number;
  gid: number;
  nlink: number;
  mtime: string;
  rdev: number;
  target: string;
  content: string;
  xattrs: string;
  /** First name of the same inode. */
  twin: string;
}

function line(path: string, facts: Facts, options: ListingOptions): string {
  const isDirectory = (facts.mode & S_IFMT) === S_IFDIR;
  const parts = [
    facts.mode.toString(8),
    facts.uid,
    facts.gid,
    facts.nlink,
    facts.rdev,
    facts.target,
    facts.content,
    facts.twin,
  ];
  if (!isDirectory || options.directoryTimes) parts.push(facts.mtime);
  if (options.xattrs) parts.push(facts.xattrs);
  return `${path} ${parts.join(' ')}`;
}

const sha = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16);
const xattrText = (xattrs: Iterable<readonly [string, Uint8Array]>): string =>
  [...xattrs]
    .map(([name, value]) => `${name}=${Buffer.from(value).toString('hex')}`)
    .toSorted()
    .join(',');

/** Every name of an image tree. Checks on the way that lookup, entryAt, get and parentOf agree. */
export function treeListing(store: Store, tree: Tree, options: ListingOptions = {}): string[] {
  const lines: string[] = [];
  const first = new Map<number, string>();
  const visit = (ino: number, path: string): void => {
    const inode = tree.get(ino)!;
    if (inode.ino !== ino) throw new Error(`${path}: get(${ino}) has ino ${inode.ino}`);
    const isDirectory = (inode.mode & S_IFMT) === S_IFDIR;
    const hasTwins = !isDirectory && inode.nlink > 1;
    if (hasTwins && !first.has(ino)) first.set(ino, path);
    const facts: Facts = {
      ...inode,
      mtime: `${inode.mtimeSec}.${String(inode.mtimeNsec).padStart(9, '0')}`,
      target: inode.symlink === undefined ? '' : Buffer.from(inode.symlink).toString('latin1'),
      content: inode.content === undefined ? `${inode.size}` : sha(readAll(store, inode.content)),
      xattrs: xattrText(inode.xattrs ?? []),
      twin: hasTwins ? first.get(ino)! : '',
    };
    if ((inode.mode & S_IFMT) !== S_IFREG) facts.content = '';
    if (path !== '' || options.root) lines.push(line(path, facts, options));
    for (let i = 0; i < (inode.children ?? 0); i++) {
      const entry = tree.entryAt(ino, i)!;
      if (tree.lookup(ino, entry.name) !== entry.ino)
        throw new Error(`${path}/${entry.name}: lookup and entryAt differ`);
      visit(entry.ino, `${path}/${entry.name}`);
    }
  };
  visit(1, '');
  return lines;
}

/** The same of a directory on disk. */
export function diskListing(dir: string, options: ListingOptions = {}): string[] {
  const lines: string[] = [];
  const first = new Map<bigint, string>();
  const visit = (path: string): void => {
    const at = Buffer.from(dir + path, 'latin1');
    const stat = lstatSync(at, { bigint: true });
    const mode = Number(stat.mode);
    const isDirectory = (mode & S_IFMT) === S_IFDIR;
    const hasTwins = !isDirectory && stat.nlink > 1n;
    if (hasTwins && !first.has(stat.ino)) first.set(stat.ino, path);
    const isFile = (mode & S_IFMT) === S_IFREG;
    const names = isDirectory ? readdirSync(at, { encoding: 'latin1' }).toSorted() : [];
    const facts: Facts = {
      mode,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      nlink: isDirectory
        ? 2 + names.filter((name) => lstatSync(Buffer.from(`${dir}${path}/${name}`, 'latin1')).isDirectory()).length
        : Number(stat.nlink),
      rdev: Number(stat.rdev),
      mtime: `${stat.mtimeNs / 1_000_000_000n}.${String(stat.mtimeNs % 1_000_000_000n).padStart(9, '0')}`,
      target: (mode & S_IFMT) === S_IFLNK ? readlinkSync(at, 'latin1') : '',
      content: !isFile ? '' : stat.size === 0n ? '0' : sha(readFileSync(at)),
      xattrs: options.xattrs ? diskXattrs(at) : '',
      twin: hasTwins ? first.get(stat.ino)! : '',
    };
    if (path !== '' || options.root) lines.push(line(path, facts, options));
    for (const name of names) visit(`${path}/${name}`);
  };
  visit('');
  return lines;
}

function diskXattrs(path: Buffer): string {
  const text = execFileSync(
    'sh',
    ['-c', 'getfattr -h -d -m - -e hex --absolute-names "$0" 2>/dev/null || true', path.toString('latin1')],
    {
      encoding: 'latin1',
    },
  );
  const pairs = [...text.matchAll(/^([^#=\n]+)=0x([0-9a-f]*)$/gm)].map(
    (m) => [m[1]!, Buffer.from(m[2]!, 'hex')] as const,
  );
  return xattrText(
    pairs.filter(([name]) => !name.startsWith('trusted.overlay.') && !name.startsWith('security.selinux')),
  );
}

/** Writes an image as an OCI directory; returns the source to import it from. */
export async function writeLayout(dir: string, image: SampleImage): Promise<string> {
  for (const [digest, bytes] of blobsOf(image)) {
    const path = join(dir, 'blobs', digest.replace(':', '/'));
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, bytes);
  }
  const manifest = descriptor('application/vnd.oci.image.manifest.v1+json', image.manifest, {
    annotations: { 'org.opencontainers.image.ref.name': 'latest' },
  });
  await writeFile(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(dir, 'index.json'), json({ schemaVersion: 2, manifests: [manifest] }));
  return `oci:${dir}`;
}

/** Imports a sample and opens its tree. */
export async function importSample(
  store: Store,
  dir: string,
  image: SampleImage,
): Promise<{ image: ImageRecord; tree: Tree }> {
  const { image: record } = await importImage(store, await writeLayout(dir, image));
  return { image: record, tree: openTree(store, record.treeRoot) };
}
