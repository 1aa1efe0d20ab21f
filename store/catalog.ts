import { PgError } from '../mdm/error.ts';
import { type AnchorPlace, decodeAnchor, encodeAnchor } from './anchors.ts';
import { contentKey, type ContentRef, decodeExtents, encodeExtents, type Extent, isZeroSector } from './content.ts';
import type { Index } from './index-db.ts';
import type { Table } from './table.ts';

/** What the collector has put on a thing of the store (docs/formats/store.md, table `condemned`). */
export type Mark = 'c' /* content */ | 'n' /* node */ | 's' /* sector */ | 'x'; /* file to be unlinked */

/** How the file of a sector lies on the disk: as it was written, packed, or left as it is because packing it does not pay. */
export type SectorForm = (typeof FORMS)[number];
const FORMS = ['plain', 'packed', 'incompressible'] as const;

/** What the table `sectors` says of one. */
export interface SectorRecord {
  /** Bytes before its zero tail. */
  used: number;
  form: SectorForm;
}

export function encodeSectorRecord({ used, form }: SectorRecord): Buffer {
  const value = Buffer.allocUnsafe(5);
  value.writeUInt32LE(used);
  value[4] = FORMS.indexOf(form);
  return value;
}

/** What `encodeSectorRecord` encoded; CORRUPT_INDEX for what cannot be one. */
export function decodeSectorRecord(value: Buffer): SectorRecord {
  const form = FORMS[value[4] ?? FORMS.length];
  if (form === undefined)
    throw new PgError('CORRUPT_INDEX', `a sector's record of ${value.length} bytes is in the index`);
  return { used: value.readUInt32LE(0), form };
}

/** Key of a mark in the table `condemned`. */
export function markKey(mark: Mark, key: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(1 + key.length);
  out.write(mark, 0, 'latin1');
  out.set(key, 1);
  return out;
}

/**
 * The global lookup table: which contents and sectors are here. A look-up by someone who is going to rely on what it
 * found is `claimContent` or `claimSector`, under a lease: that also takes back what the collector has condemned.
 */
export class Catalog {
  private readonly index: Index;
  private readonly contents: Table;
  private readonly sectors: Table;
  private readonly anchors: Table;
  private readonly condemned: Table;

  constructor(index: Index) {
    this.index = index;
    this.contents = index.table('contents');
    this.sectors = index.table('sectors');
    this.anchors = index.table('anchors');
    this.condemned = index.table('condemned');
  }

  hasAnchors(): boolean {
    return [...this.anchors.keys({ limit: 1 })].length > 0;
  }

  /** For each of these anchors (`anchorKey`) where bytes with it may be: they are to be compared, and the sector may be gone. */
  anchorPlaces(keys: readonly Buffer[]): (AnchorPlace | undefined)[] {
    return this.anchors.getAll(keys).map((value) => value && decodeAnchor(value));
  }

  /** Notes where bytes with this anchor are, unless it is known of others. Call it inside a transaction. */
  putAnchor(key: Buffer, place: AnchorPlace): void {
    if (!this.anchors.has(key)) this.anchors.put(key, encodeAnchor(place));
  }

  extents(ref: ContentRef): Extent[] | undefined {
    if (ref.size === 0) return [];
    const value = this.contents.get(contentKey(ref));
    return value && decodeExtents(value);
  }

  hasSector(root: Uint8Array): boolean {
    return isZeroSector(root) || this.sectors.has(root);
  }

  /** Data bytes of a sector's file, or undefined if it is not here. */
  sectorBytes(root: Uint8Array): number | undefined {
    const value = this.sectors.get(root);
    return value && decodeSectorRecord(value).used;
  }

  /** The extents of the content with this key, to be relied on. */
  claimContent(key: Buffer): Extent[] | undefined {
    const value = this.contents.get(key);
    if (!value || !this.condemned.has(markKey('c', key))) return value && decodeExtents(value);
    return this.index.transaction(() => {
      const still = this.contents.get(key);
      if (!still) return undefined;
      const extents = decodeExtents(still);
      this.condemned.remove(markKey('c', key));
      for (const { sector } of extents) this.condemned.remove(markKey('s', sector));
      return extents;
    });
  }

  /** Whether the sector is here, to be relied on. */
  claimSector(root: Uint8Array): boolean {
    if (isZeroSector(root)) return true;
    if (!this.sectors.has(root)) return false;
    if (!this.condemned.has(markKey('s', root))) return true;
    return this.index.transaction(() => {
      if (!this.sectors.has(root)) return false;
      this.condemned.remove(markKey('s', root));
      return true;
    });
  }

  /**
   * To be called before a sector file is renamed into place: the collector may have been about to unlink an old one of
   * that name.
   */
  keepFile(root: Uint8Array): void {
    const key = markKey('x', root);
    if (this.condemned.has(key)) this.index.transaction(() => this.condemned.remove(key));
  }

  /** Records a sector whose file is in place. Call it inside a transaction. */
  putSector(root: Uint8Array, record: SectorRecord): void {
    this.condemned.remove(markKey('x', root));
    if (this.sectors.has(root)) {
      this.condemned.remove(markKey('s', root));
      return;
    }
    this.sectors.put(root, encodeSectorRecord(record));
  }

  /**
   * Records a content unless it is here already (then its older extents stay). Call it inside a transaction, after
   * `putSector` of what is new: MISSING_SECTOR if the content would lie in a sector that is not here.
   */
  putContent(key: Buffer, extents: readonly Extent[]): void {
    this.putContents([{ key, extents }]);
  }

  /** As `putContent` of each. */
  putContents(contents: readonly { readonly key: Buffer; readonly extents: readonly Extent[] }[]): void {
    const claimed = new Set<Uint8Array>();
    for (const { key, extents } of contents) {
      if (this.claimContent(key)) continue;
      for (const { sector } of extents) {
        if (claimed.has(sector)) continue;
        if (!this.claimSector(sector))
          throw new PgError('MISSING_SECTOR', `sector ${Buffer.from(sector).toString('hex')} is not in the store`);
        claimed.add(sector);
      }
      this.contents.put(key, encodeExtents(extents));
    }
  }
}
