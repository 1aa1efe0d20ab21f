import { contentKey, isZeroSector } from '../store/content.ts';
import { sectorKey } from '../store/content-reader.ts';
import type { Store } from '../store/store.ts';
import type { ImageRecord } from './images.ts';
import { imageReachable } from './reachable.ts';

/** Bytes of the store: as they are, and what they take on the disk, compressed as they lie there. */
export interface Bytes {
  plain: number;
  disk: number;
}

/** What one image takes of the store: the contents of its files and layers, each byte once, holes not counted. */
export interface ImageSpace {
  image: ImageRecord;
  total: Bytes;
  /** Of that what another of the images needs too, and what would come back with this one alone. */
  shared: Bytes;
  unique: Bytes;
  /** With which images it shares, and how much with each; the most first. */
  sharedWith: { image: ImageRecord; bytes: Bytes }[];
}

/** Stretches of one sector that an image needs: first byte, end, in no order. */
type Stretches = Map<string, number[]>;

/**
 * What the images take, and share with one another, down to the byte: two contents may have bytes in common. A sector's disk space is divided by bytes. Reads the images' tries
 * and recipes, no contents: a second or so for 100,000 files. Contents that are damaged are left out.
 */
export function spaceOf(store: Store, images: readonly ImageRecord[]): ImageSpace[] {
  const needs = images.map((image) => stretchesOf(store, image));
  /** Bytes by the images that need them, as numbers joined by commas. */
  const bySharers = new Map<string, Bytes>();
  for (const key of new Set(needs.flatMap((stretches) => [...stretches.keys()]))) {
    const root = Buffer.from(key, 'latin1');
    const used = store.sectorBytes(root) ?? 0;
    const perByte = used === 0 ? 0 : store.sectorDiskBytes(root) / used;
    for (const [sharers, plain] of overlaps(needs.map((stretches) => stretches.get(key) ?? []))) {
      const sum = bySharers.get(sharers) ?? { plain: 0, disk: 0 };
      bySharers.set(sharers, { plain: sum.plain + plain, disk: sum.disk + plain * perByte });
    }
  }
  return images.map((image, i) => spaceOfOne(image, i, images, bySharers));
}

function stretchesOf(store: Store, image: ImageRecord): Stretches {
  const stretches: Stretches = new Map();
  const seen = new Set<string>();
  for (const item of imageReachable(store, image)) {
    if (item.kind !== 'content') continue;
    const name = contentKey(item.ref).toString('latin1');
    if (seen.has(name)) continue;
    seen.add(name);
    for (const { sector, offset, length } of store.contentExtents(item.ref) ?? []) {
      if (isZeroSector(sector)) continue;
      const key = sectorKey(sector);
      const list = stretches.get(key);
      if (list) list.push(offset, offset + length);
      else stretches.set(key, [offset, offset + length]);
    }
  }
  return stretches;
}

/** How many bytes of a sector just these images need, for every set of images that there is. */
function overlaps(needs: readonly (readonly number[])[]): Map<string, number> {
  const edges = needs.flatMap((list, image) => list.map((at, i) => ({ at, image, change: i % 2 === 0 ? 1 : -1 })));
  edges.sort((a, b) => a.at - b.at);
  const open = needs.map(() => 0);
  const found = new Map<string, number>();
  let before = 0;
  for (const { at, image, change } of edges) {
    if (at > before) {
      const sharers = open.flatMap((count, i) => (count > 0 ? [i] : [])).join(',');
      if (sharers !== '') found.set(sharers, (found.get(sharers) ?? 0) + at - before);
    }
    before = at;
    open[image]! += change;
  }
  return found;
}

function spaceOfOne(
  image: ImageRecord,
  number: number,
  images: readonly ImageRecord[],
  bySharers: ReadonlyMap<string, Bytes>,
): ImageSpace {
  const space: ImageSpace = { image, total: zero(), shared: zero(), unique: zero(), sharedWith: [] };
  const others = images.map(zero);
  for (const [key, bytes] of bySharers) {
    const sharers = key.split(',').map(Number);
    if (!sharers.includes(number)) continue;
    add(space.total, bytes);
    add(sharers.length > 1 ? space.shared : space.unique, bytes);
    for (const other of sharers) if (other !== number) add(others[other]!, bytes);
  }
  space.sharedWith = others
    .map((bytes, i) => ({ image: images[i]!, bytes }))
    .filter(({ bytes }) => bytes.plain > 0)
    .toSorted((a, b) => b.bytes.plain - a.bytes.plain);
  return space;
}

const zero = (): Bytes => ({ plain: 0, disk: 0 });

function add(to: Bytes, { plain, disk }: Bytes): void {
  to.plain += plain;
  to.disk += disk;
}
