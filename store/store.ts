import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { bufferRoot, rootOfRoots, SECTOR_BYTES, sectorRoot } from '../mdm/merkle.ts';
import { Catalog } from './catalog.ts';
import { collect, type CollectResult, type Reachable } from './collect.ts';
import {
  contentKey,
  type ContentRef,
  describeContent,
  type Extent,
  isZeroSector,
  mergeHoles,
  piecesOf,
  wholeSector,
} from './content.ts';
import { OpenContent, SectorCache, sectorKey } from './content-reader.ts';
import { type Index, openIndex } from './index-db.ts';
import { verifyHost } from './host/verify-host.ts';
import { keepIndexCopy, withIndexCopy } from './index-check.ts';
import { beginLease, type Lease } from './lease.ts';
import { leasesDir, type Roots, sectorsDir } from './paths.ts';
import { type PackResult, packSectors } from './pack.ts';
import { type RepackResult, repackSectors } from './repack.ts';
import { SectorBuilder, type SectorPlaces } from './sector-builder.ts';
import { mendEntries, SectorMender } from './mend.ts';
import { placeSectorFile } from './sector.ts';
import type { Table } from './table.ts';
import { diskBytesOf, type StoreUsage, usageOf } from './usage.ts';
import {
  type DamagedContent,
  damagedContents,
  type Problem,
  type VerifyProgress,
  type VerifyReport,
  type VerifyScope,
  verifyStore,
} from './verify.ts';
import { ContentWriter } from './writer.ts';

export type { ContentRef, Extent } from './content.ts';

/**
 * Opens the store below `roots.data`, making it if it is not there (unless `readOnly`). Takes a few ms; any number of
 * processes and threads may.
 */
export function openStore(roots: Roots, options: { readOnly?: boolean } = {}): Store {
  return new Store(roots, options.readOnly ?? false);
}

/** Sectors, contents and the index of one host (docs/formats/store.md). An instance belongs to one thread. */
export class Store {
  readonly roots: Roots;
  readonly readOnly: boolean;
  private readonly index: Index;
  private readonly catalog: Catalog;
  private readonly sectorFiles: SectorCache;

  constructor(roots: Roots, readOnly: boolean) {
    this.roots = roots;
    this.readOnly = readOnly;
    this.index = openIndex(roots, readOnly);
    this.catalog = new Catalog(this.index);
    this.sectorFiles = new SectorCache((root) => this.sectorPath(root));
  }

  /** Closes files and the index. Writers must have ended. */
  async close(): Promise<void> {
    this.sectorFiles.close();
    await this.index.close();
  }

  // --- records of other rooms ---

  /**
   * A table by name (made when it is not there). `contents`, `sectors`, `condemned` and `meta` are the store's own. In
   * `nodes`, `has` says no to what the collector has condemned, and `put` saves it: look with `has`, not `get`, whether
   * a node need be put.
   */
  table(name: string): Table {
    return this.index.table(name);
  }

  /**
   * Runs `action` as one transaction over all tables: all of its writes or, when it throws, none; durable on return.
   * May be nested. DISK_FULL.
   */
  transaction<T>(action: () => T): T {
    return this.index.transaction(action);
  }

  /** Begins a lease: see `Lease`. `purpose` is what `pg gc` says is in its way ("import nginx"). */
  lease(purpose: string): Lease {
    return beginLease(leasesDir(this.roots), purpose, () => this.index.counter('epoch', 0));
  }

  // --- contents ---

  /** Whether the content is here; under a lease this may be relied on: the collector will keep it. */
  hasContent(ref: ContentRef): boolean {
    if (ref.size === 0 || this.readOnly) return this.catalog.extents(ref) !== undefined;
    return this.catalog.claimContent(contentKey(ref)) !== undefined;
  }

  /** Where a content's bytes are, or undefined if it is not here. */
  contentExtents(ref: ContentRef): Extent[] | undefined {
    return this.catalog.extents(ref);
  }

  /**
   * Records a content whose sectors are here already, durable on return (inside a transaction: with it). Reads what
   * does not fill a sector to check the root: BAD_CONTENT if it is another. For many, `ContentWriter.putExtents` checks
   * on all cores.
   */
  putContentExtents(ref: ContentRef, extents: readonly Extent[]): void {
    for (const { sector } of extents) {
      if (!this.hasSector(sector))
        throw new PgError('MISSING_SECTOR', `${describeContent(ref)} needs sector ${hex(sector)}, which is not here`);
    }
    const roots = piecesOf(ref, extents).map((piece) => {
      const whole = wholeSector(piece);
      if (whole) return whole;
      const bytes = Buffer.alloc(piece.reduce((sum, { length }) => sum + length, 0));
      let at = 0;
      for (const { sector, offset, length } of piece) {
        this.readSectorAt(sector, bytes.subarray(at, at + length), offset);
        at += length;
      }
      return bufferRoot(bytes);
    });
    if (Buffer.compare(rootOfRoots(roots), ref.root) !== 0) {
      throw new PgError('BAD_CONTENT', `the extents given for ${describeContent(ref)} hold something else`);
    }
    if (ref.size > 0) this.transaction(() => this.catalog.putContent(contentKey(ref), mergeHoles(extents)));
  }

  /** Opens a content for reading in this thread; UNKNOWN_CONTENT if it is not here. */
  openContent(ref: ContentRef): OpenContent {
    const extents = this.catalog.extents(ref);
    if (!extents)
      throw new PgError('UNKNOWN_CONTENT', `${describeContent(ref)} is not in the store`, { hint: "run 'pg verify'" });
    return new OpenContent(ref, extents, this.sectorFiles, () => this.catalog.extents(ref));
  }

  /** `openContent(ref).readAt(into, offset)`, for one read only. */
  readContentAt(ref: ContentRef, into: Uint8Array, offset: number): number {
    return this.openContent(ref).readAt(into, offset);
  }

  // --- sectors ---

  /**
   * Whether the sector is here (the all-zero sector always is); under a lease this may be relied on: the collector will
   * keep it.
   */
  hasSector(root: Uint8Array): boolean {
    return this.readOnly ? this.catalog.hasSector(root) : this.catalog.claimSector(root);
  }

  /**
   * Bytes of the sector before its zero tail, at most 4 MiB: what need be sent to someone who lacks it. Undefined if it
   * is not here.
   */
  sectorBytes(root: Uint8Array): number | undefined {
    return isZeroSector(root) ? 0 : this.catalog.sectorBytes(root);
  }

  /** What a sector takes on the disk, as du(1) counts; 0 if it is not here. */
  sectorDiskBytes(root: Uint8Array): number {
    return isZeroSector(root) ? 0 : diskBytesOf(this.sectorPath(root));
  }

  /** Where the file of a sector is, or would be. The all-zero sector has none. */
  sectorPath(root: Uint8Array): string {
    const name = hex(root);
    return join(sectorsDir(this.roots), name.slice(0, 2), name);
  }

  /** The 4 MiB of a sector, checked block by block; MISSING_SECTOR, CORRUPT_SECTOR. */
  readSector(root: Uint8Array): Buffer {
    const data = Buffer.alloc(SECTOR_BYTES);
    if (!isZeroSector(root)) this.sectorFiles.read(sectorKey(root), root, data, 0, 0, SECTOR_BYTES);
    return data;
  }

  /**
   * Fills `into` with the bytes of a sector from `offset` on, all within its 4 MiB, checked block by block;
   * MISSING_SECTOR, CORRUPT_SECTOR.
   */
  readSectorAt(root: Uint8Array, into: Uint8Array, offset: number): void {
    if (isZeroSector(root)) into.fill(0);
    else this.sectorFiles.read(sectorKey(root), root, into, 0, offset, into.length);
  }

  /**
   * Stores a sector (up to 4 MiB, zeros follow), durable on return; BAD_SECTOR if its root is another. Nothing if it is
   * here already. For many, `ContentWriter.putSector` hashes on all cores and syncs in the background.
   */
  putSector(root: Uint8Array, data: Uint8Array): void {
    const whole = data.length === SECTOR_BYTES ? data : Buffer.concat([data], SECTOR_BYTES);
    const got = sectorRoot(whole);
    if (Buffer.compare(got, root) !== 0)
      throw new PgError('BAD_SECTOR', `a sector that should have root ${hex(root)} has ${hex(got)}`);
    const lease = this.lease('store a sector');
    try {
      if (this.catalog.claimSector(root)) return;
      placeSectorFile(join(this.temporaryDir(), lease.id), this.sectorPath(root), whole, data.length, () =>
        this.catalog.keepFile(root),
      );
      this.transaction(() => this.catalog.putSector(root, { used: data.length, form: 'plain' }));
    } finally {
      lease.release();
    }
  }

  /**
   * Begins an import. The writer holds a lease until it ends; whoever makes records after that needs one of his own
   * that began before. `packLevel`: zstd's level to pack sectors at where that pays; null: `pack` does that later.
   */
  writer(purpose = 'import', packLevel: number | null = null): ContentWriter {
    return new ContentWriter(
      new SectorBuilder(this.index, this.catalog, this.places(), this.lease(purpose), packLevel),
    );
  }

  // --- housekeeping ---

  /**
   * Removes what nothing reaches. `mark` names everything that must stay (contents, nodes, sectors); it is called once
   * or twice, and must read the records anew each time. What a living lease may rely on stays for a later run.
   */
  async collect(mark: () => Iterable<Reachable> | AsyncIterable<Reachable>): Promise<CollectResult> {
    return collect(
      this.index,
      {
        leasesDir: leasesDir(this.roots),
        sectorsDir: sectorsDir(this.roots),
        temporaryDir: this.temporaryDir(),
        pathOf: (root) => this.sectorPath(root),
      },
      mark,
    );
  }

  /** Reads everything and checks every checksum and root, on all cores. Problems are reported, not thrown. */
  async verify(onProgress?: (progress: VerifyProgress) => void, scope?: VerifyScope): Promise<VerifyReport> {
    // What it has listed stays where it is until it has been read.
    const lease = this.readOnly ? undefined : this.lease('verify the store');
    const pathOf = (root: Uint8Array): string => this.sectorPath(root);
    const report = await verifyStore(this.index, pathOf, onProgress, scope).finally(() => lease?.release());
    if (scope === undefined) report.problems.push(...verifyHost(this));
    return report;
  }

  /** The contents that cannot be read for these problems. */
  damagedContents(problems: readonly Problem[]): DamagedContent[] {
    return damagedContents(this.index, problems);
  }

  /** Something to mend damaged sectors with; `onMended` is told of each, and by what. */
  mender(onMended: (root: Uint8Array, by: string) => void): SectorMender {
    const places = { pathOf: (root: Uint8Array) => this.sectorPath(root), temporaryDir: this.temporaryDir() };
    return new SectorMender(this.index, places, onMended);
  }

  /** Puts back damaged entries of the index from the copy that is kept of it, if there is a whole one; `mended` is told of each. */
  async mendFromCopy(problems: readonly Problem[], mended: (problem: Problem) => void): Promise<void> {
    await withIndexCopy(this.roots, (copy) => mendEntries(this.index, copy, problems, mended));
  }

  /** Keeps a copy of the index, which has been verified, beside it. */
  async keepIndexCopy(): Promise<void> {
    await keepIndexCopy(this.roots, this.index);
  }

  /** What is in the store and what of it no content uses. Reads the whole contents table. */
  usage(): StoreUsage {
    return usageOf(this.index, (root) => this.sectorPath(root));
  }

  /**
   * Packs what nobody has tried to pack yet, with so many threads (default: all processors). Safe beside anything, and stopped at any moment. DISK_FULL.
   */
  async pack(threads?: number, signal?: AbortSignal): Promise<PackResult> {
    return packSectors(this.index, this.places(), () => this.lease('pack sectors'), threads, signal);
  }

  /**
   * Copies what is needed of sectors that are dead in part into new ones; a collection before it says what is needed, one after it gives the space back. DISK_FULL.
   */
  async repack(signal?: AbortSignal): Promise<RepackResult> {
    return repackSectors(this.index, this.catalog, this.places(), () => this.lease('repack sectors'), signal);
  }

  private places(): SectorPlaces {
    return { pathOf: (root) => this.sectorPath(root), temporaryDir: this.temporaryDir() };
  }

  private temporaryDir(): string {
    const dir = join(sectorsDir(this.roots), 'tmp');
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    return dir;
  }
}

const hex = (root: Uint8Array): string => Buffer.from(root).toString('hex');
