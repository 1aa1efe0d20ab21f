import { SECTOR_BYTES } from '../mdm/merkle.ts';
import { ANCHOR_NUMBERS, anchorKey, type AnchorPlace, WINDOW_BYTES } from './anchors.ts';
import type { Catalog } from './catalog.ts';
import type { Extent } from './content.ts';
import { sectorKey } from './content-reader.ts';
import { type Match, type MatchItem, type MatchSector, NOWHERE } from './matcher.ts';
import type { Item, Pack } from './packer.ts';
import type { SectorPool } from './sector-pool.ts';

/** Less is not taken out of a sector: it would be hashed again for that. */
export const TOLERATED_BYTES = SECTOR_BYTES / 64;

/** The part of a pack that must be known for it to be hashed again without that: 10 ms for a full one. */
const WORTH = 1 / 8;
/** Sectors that one pack is compared with: what is read of each stays in memory until that is done. */
const SECTORS_AT_ONCE = 24;

/** An anchor of this import: its checksums, and its place. */
interface Noted {
  first: number;
  second: number;
  sector: number;
  offset: number;
}

/** Has no name of its own: it is a stretch of a content that is in parts. */
const NAMELESS = new Uint8Array(0);
const NOBODY = { itemHashed: () => undefined };

/** Finds again, in contents that are new, what the store or this import has already. One for each writer. */
export class Reuse {
  private readonly catalog: Catalog;
  private readonly pool: SectorPool;
  private readonly pathOf: (root: Uint8Array) => string;
  /** The sectors of this import that have been written, and their anchors. */
  private readonly sectors: MatchSector[] = [];
  private readonly noted: Noted[] = [];
  /** By 53 bits of the checksums. */
  private readonly byChecks = new Map<number, number>();
  private readonly claimed = new Map<string, boolean>();
  private storeHasAnchors: boolean | undefined;

  constructor(catalog: Catalog, pool: SectorPool, pathOf: (root: Uint8Array) => string) {
    this.catalog = catalog;
    this.pool = pool;
    this.pathOf = pathOf;
  }

  /** What of the `fresh` items of a pack is to be stored: themselves, or of those that are found to be known in part, the rest of them. */
  async find(pack: Pack, fresh: readonly Item[]): Promise<Item[]> {
    const sectors: MatchSector[] = [];
    const numbers = new Map<string, number>();
    const numberOf = (root: Uint8Array, paths: () => readonly string[]): number => {
      const key = sectorKey(root);
      let number = numbers.get(key);
      if (number === undefined) {
        if (sectors.length === SECTORS_AT_ONCE) return NOWHERE;
        numbers.set(key, (number = sectors.length));
        sectors.push({ root: Uint8Array.from(root), paths: paths() });
      }
      return number;
    };
    const asked: Item[] = [];
    const items: MatchItem[] = [];
    for (const item of fresh) {
      const anchors = this.lookUp(item, numberOf);
      if (!anchors) continue;
      asked.push(item);
      items.push({ offset: item.offset, size: item.size, anchors });
    }
    if (items.length === 0) return [...fresh];
    const { matches = [] } = await this.pool.run({ kind: 'match', buffer: pack.slot.buffer, items, sectors });
    const known = matches.flat().reduce((sum, { length }) => sum + length, 0);
    if (known < Math.max(TOLERATED_BYTES, pack.used * WORTH)) return [...fresh];
    asked.forEach((item, i) => {
      if (matches[i]!.length > 0) item.parts = partsOf(item, matches[i]!, sectors);
    });
    return fresh.flatMap((item) => item.parts?.filter(isItem) ?? [item]);
  }

  /** Places that may have an item's anchors, as the matcher takes them; undefined if there are none at all. */
  private lookUp(
    item: Item,
    numberOf: (root: Uint8Array, paths: () => readonly string[]) => number,
  ): Uint32Array | undefined {
    const { anchors } = item;
    if (anchors === undefined || anchors.length === 0) return undefined;
    const stored = this.storedPlaces(anchors);
    let places: Uint32Array | undefined;
    for (let i = 0; i < anchors.length; i += ANCHOR_NUMBERS) {
      const own = this.byChecks.get(checks(anchors[i + 1]!, anchors[i + 2]!));
      const there = stored?.[i / ANCHOR_NUMBERS];
      let place: { number: number; offset: number } | undefined;
      if (own !== undefined) {
        const { sector, offset } = this.noted[own]!;
        const { root, paths } = this.sectors[sector]!;
        place = { number: numberOf(root, () => paths), offset };
      } else if (there && this.isHere(there)) {
        place = { number: numberOf(there.sector, () => [this.pathOf(there.sector)]), offset: there.offset };
      }
      if (!place) continue;
      places ??= Uint32Array.from(anchors, (value, j) => (j % ANCHOR_NUMBERS === 0 ? value : NOWHERE));
      places[i + 1] = place.number;
      places[i + 2] = place.offset;
    }
    return places;
  }

  /** Where the store has these anchors; nothing if it has none at all, as before its first import. */
  private storedPlaces(anchors: Uint32Array): (AnchorPlace | undefined)[] | undefined {
    if (!(this.storeHasAnchors ??= this.catalog.hasAnchors())) return undefined;
    const keys: Buffer[] = [];
    for (let i = 0; i < anchors.length; i += ANCHOR_NUMBERS) keys.push(anchorKey(anchors[i + 1]!, anchors[i + 2]!));
    return this.catalog.anchorPlaces(keys);
  }

  /** Whether the sector is here, and kept by the collector from now on. */
  private isHere({ sector }: AnchorPlace): boolean {
    const key = sectorKey(sector);
    let here = this.claimed.get(key);
    if (here === undefined) this.claimed.set(key, (here = this.catalog.claimSector(sector)));
    return here;
  }

  /** These items lie in the sector, whose file has been written at `temporary`, and which will get its name. */
  note(items: readonly Item[], root: Uint8Array, temporary: string): void {
    const path = this.pathOf(root);
    const sector = this.sectors.length;
    this.sectors.push({ root, paths: [path, temporary, path] });
    for (const { anchors = new Uint32Array(0), offset, size } of items) {
      for (let i = 0; i < anchors.length; i += ANCHOR_NUMBERS) {
        if (anchors[i]! + WINDOW_BYTES > size) continue;
        const [first, second] = [anchors[i + 1]!, anchors[i + 2]!];
        const key = checks(first, second);
        if (this.byChecks.has(key)) continue;
        this.byChecks.set(key, this.noted.length);
        this.noted.push({ first, second, sector, offset: offset + anchors[i]! });
      }
    }
  }

  /** Records the anchors of this import; call it in the transaction that records its sectors. */
  record(): void {
    for (const { first, second, sector, offset } of this.noted)
      this.catalog.putAnchor(anchorKey(first, second), { sector: this.sectors[sector]!.root, offset });
  }
}

const checks = (first: number, second: number): number => first * 2 ** 21 + (second >>> 11);
const isItem = (part: Extent | Item): part is Item => 'owner' in part;

/** The item as a row of what is known and what lies between, which becomes items where they lie. */
function partsOf(item: Item, matches: readonly Match[], sectors: readonly MatchSector[]): (Extent | Item)[] {
  const parts: (Extent | Item)[] = [];
  let at = 0;
  const rest = (to: number): void => {
    if (to > at) parts.push(stretch(item, at, to - at));
  };
  for (const { from, length, sector, offset } of matches) {
    rest(from);
    parts.push({ sector: sectors[sector]!.root, offset, length });
    at = from + length;
  }
  rest(item.size);
  return parts;
}

function stretch(item: Item, from: number, size: number): Item {
  const { anchors = new Uint32Array(0) } = item;
  const kept: number[] = [];
  for (let i = 0; i < anchors.length; i += ANCHOR_NUMBERS) {
    if (anchors[i]! >= from && anchors[i]! + WINDOW_BYTES <= from + size)
      kept.push(anchors[i]! - from, anchors[i + 1]!, anchors[i + 2]!);
  }
  return {
    size,
    offset: item.offset + from,
    filled: size,
    root: NAMELESS,
    anchors: Uint32Array.from(kept),
    owner: NOBODY,
  };
}
