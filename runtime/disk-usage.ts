import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { logSpace } from '../fs/log/space-of.ts';
import { listImages } from '../layers/images.ts';
import { spaceOf } from '../layers/space.ts';
import { isPgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import type { Store } from '../store/store.ts';
import { readRecord } from './record.ts';

/** What an image takes of the store. Bytes of the disk; a sector's are divided by what is needed of it. */
export interface ImageUsage {
  name: string;
  id: string;
  totalBytes: number;
  /** Of that what another image needs too, and what would come back with this one alone. */
  sharedBytes: number;
  uniqueBytes: number;
}

/** What a container, or a named mount, takes: bytes of the disk, sparse files by their blocks. */
export interface LogUsage {
  name: string;
  id: string;
  /** All its files; those that it shares with clones are counted here for each. */
  totalBytes: number;
  /** The log's files. */
  logBytes: number;
  /** What of the log its files needed at its last checkpoint, and everything written since; the rest is dead. */
  liveBytes: number;
  deadBytes: number;
  /** Checkpoints, snapshots, roots, records, output: all that is not the log. */
  overheadBytes: number;
  sharedBytes: number;
  uniqueBytes: number;
}

/** What an installation takes on the disk. The parts add up to `totalBytes`, and that to what `du -sx` says of the data directory. */
export interface DiskUsage {
  images: ImageUsage[];
  containers: LogUsage[];
  mounts: LogUsage[];
  /** Sector files, and what of them contents need. */
  sectorBytes: number;
  liveSectorBytes: number;
  indexBytes: number;
  /** All files of containers and of named mounts, each once. */
  containerBytes: number;
  mountBytes: number;
  /** Everything else: the node's identity, directories, what is at work. */
  otherBytes: number;
  totalBytes: number;
}

/** A file or directory below the data directory. */
interface Found {
  path: string;
  bytes: number;
  inode: number;
}

/** Measures the installation. Takes a stat(2) of every file, and a look through the images' tries. */
export function diskUsage(roots: Roots, store: Store): DiskUsage {
  const found = [...filesBelow(roots.data, lstatSync(roots.data).dev)];
  const ofArea = new Map<string, number>();
  const counted = new Set<number>();
  for (const { path, bytes, inode } of found) {
    if (counted.has(inode)) continue;
    counted.add(inode);
    const area = relative(roots.data, path).split('/')[0]!;
    ofArea.set(area, (ofArea.get(area) ?? 0) + bytes);
  }
  const total = [...ofArea.values()].reduce((sum, bytes) => sum + bytes, 0);
  const of = (area: string): number => ofArea.get(area) ?? 0;
  const parts = {
    sectorBytes: of('sectors'),
    indexBytes: of('index'),
    containerBytes: of('containers'),
    mountBytes: of('mounts'),
  };
  const { sectorBytes, usedBytes, diskBytes } = store.usage();
  return {
    ...parts,
    images: imageUsage(store),
    containers: logUsage(roots, found, 'containers'),
    mounts: logUsage(roots, found, 'mounts'),
    liveSectorBytes: sectorBytes === 0 ? 0 : Math.round((diskBytes * usedBytes) / sectorBytes),
    otherBytes: total - parts.sectorBytes - parts.indexBytes - parts.containerBytes - parts.mountBytes,
    totalBytes: total,
  };
}

/** Files and directories on this device, as du(1) meets them. What goes away meanwhile is not counted. */
function* filesBelow(path: string, device: number): Generator<Found> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined || stat.dev !== device) return;
  yield { path, bytes: stat.blocks * 512, inode: stat.ino };
  if (!stat.isDirectory()) return;
  let names: string[];
  try {
    names = readdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  for (const name of names) yield* filesBelow(join(path, name), device);
}

function imageUsage(store: Store): ImageUsage[] {
  // A damaged record is for `pg images` to tell of.
  const spaces = spaceOf(
    store,
    listImages(store, () => undefined),
  );
  return spaces.map(({ image, total, shared, unique }) => ({
    name: image.names[0] ?? '<none>',
    id: image.id,
    totalBytes: Math.round(total.disk),
    sharedBytes: Math.round(shared.disk),
    uniqueBytes: Math.round(unique.disk),
  }));
}

function logUsage(roots: Roots, found: readonly Found[], area: 'containers' | 'mounts'): LogUsage[] {
  const home = join(roots.data, area);
  const holders = new Map<number, Set<string>>();
  const owned = new Map<string, Found[]>();
  for (const file of found) {
    const [id, ...rest] = relative(home, file.path).split('/');
    if (id === undefined || id === '' || id === '..') continue;
    // A directory that is being made, or a lock, belongs to nobody in the list.
    if (rest.length === 0 && !existsSync(join(file.path, area === 'containers' ? 'container.json' : 'mount.json')))
      continue;
    if (rest.length > 0 && !owned.has(id)) continue;
    owned.set(id, [...(owned.get(id) ?? []), file]);
    holders.set(file.inode, (holders.get(file.inode) ?? new Set()).add(id));
  }
  return [...owned].map(([id, files]) => usageOfOne(roots, area, id, files, (inode) => holders.get(inode)!.size > 1));
}

function usageOfOne(
  roots: Roots,
  area: 'containers' | 'mounts',
  id: string,
  files: readonly Found[],
  isShared: (inode: number) => boolean,
): LogUsage {
  const dir = join(roots.data, area, id, 'log');
  const once = [...new Map(files.map((file) => [file.inode, file])).values()];
  const sum = (some: readonly Found[]): number => some.reduce((bytes, file) => bytes + file.bytes, 0);
  const totalBytes = sum(once);
  const logBytes = sum(
    once.filter(({ path }) => path.startsWith(`${dir}/`) && /^(log|base-\d+)$/.test(relative(dir, path))),
  );
  const liveBytes = Math.min(logBytes, logSpace(dir)?.liveBytes ?? 0);
  const sharedBytes = sum(once.filter(({ inode }) => isShared(inode)));
  return {
    name: area === 'mounts' ? id : nameOf(roots, id),
    id,
    totalBytes,
    logBytes,
    liveBytes,
    deadBytes: logBytes - liveBytes,
    overheadBytes: totalBytes - logBytes,
    sharedBytes,
    uniqueBytes: totalBytes - sharedBytes,
  };
}

/** A damaged record is for `pg ps` to tell of: its files take space all the same. */
function nameOf(roots: Roots, id: string): string {
  try {
    return readRecord(roots, id).name;
  } catch (error) {
    if (!isPgError(error)) throw error;
    return id.slice(0, 12);
  }
}
