import { PgError } from '../mdm/error.ts';
import { bufferRoot, LEAF_BYTES, rootOfRoots } from '../mdm/merkle.ts';
import { type ContentRef, describeContent, type Extent, isZeroSector, piecesOf, wholeSector } from './content.ts';
import { sectorKey } from './content-reader.ts';
import type { SectorPool } from './sector-pool.ts';

/** A content and where it is said to be. */
export interface PlacedContent {
  ref: ContentRef;
  extents: readonly Extent[];
}

/** A piece whose root is to be found by reading its sector, and what to do with the root. */
interface Wanted {
  offset: number;
  length: number;
  found(root: Uint8Array): void;
}

/** A piece that lies in several places. */
export interface Scattered {
  extents: readonly Extent[];
  found(root: Uint8Array): void;
}

/**
 * Gathers pieces of contents by the sector they are in, so that each sector is read once for all of them; pieces that lie in several places are left over. A content's
 * root is known when the sectors of all its pieces have been looked at.
 */
export class RootCheck {
  /** The pieces that `sectors` does not lead to: whoever checks sees to each. */
  readonly scattered: Scattered[] = [];
  private readonly bySector = new Map<string, Wanted[]>();
  private readonly zeroRoots = new Map<number, Uint8Array>();

  /**
   * `done` is told the content's root as soon as it is known; never, if a sector of it cannot be read. Pieces in sectors that are not `isOurs` are left
   * over, too. BAD_CONTENT for extents that cannot be right.
   */
  add(
    { ref, extents }: PlacedContent,
    done: (root: Uint8Array) => void,
    isOurs: (sector: Uint8Array) => boolean = () => true,
  ): void {
    const pieces = piecesOf(ref, extents);
    const roots: Uint8Array[] = [];
    let missing = pieces.length;
    const found = (i: number, root: Uint8Array): void => {
      roots[i] = root;
      if (--missing === 0) done(pieces.length === 1 ? root : rootOfRoots(roots));
    };
    if (pieces.length === 0) done(new Uint8Array(32));
    pieces.forEach((piece, i) => {
      // A piece that is a whole sector has the sector's root.
      const whole = wholeSector(piece);
      const { sector, offset, length } = piece[0]!;
      const tell = (root: Uint8Array): void => found(i, root);
      if (whole) tell(whole);
      else if (piece.length > 1 || offset % LEAF_BYTES !== 0 || !(isZeroSector(sector) || isOurs(sector)))
        this.scattered.push({ extents: piece, found: tell });
      else if (isZeroSector(sector)) tell(this.zeroRoot(length));
      else this.wanted(sector).push({ offset, length, found: tell });
    });
  }

  /** Pairs (offset, length) of the pieces in this sector, for the pool. */
  spansIn(sector: Uint8Array): Uint32Array {
    return Uint32Array.from(this.wanted(sector).flatMap(({ offset, length }) => [offset, length]));
  }

  /** The roots that the pool found for `spansIn(sector)`. */
  foundIn(sector: Uint8Array, roots: readonly Uint8Array[]): void {
    this.wanted(sector).forEach((piece, i) => piece.found(roots[i]!));
    this.bySector.delete(sectorKey(sector));
  }

  /** The sectors that pieces are in. */
  *sectors(): Generator<Uint8Array> {
    for (const key of this.bySector.keys()) yield Buffer.from(key, 'latin1');
  }

  private wanted(sector: Uint8Array): Wanted[] {
    const key = sectorKey(sector);
    let list = this.bySector.get(key);
    if (!list) this.bySector.set(key, (list = []));
    return list;
  }

  private zeroRoot(length: number): Uint8Array {
    let root = this.zeroRoots.get(length);
    if (!root) this.zeroRoots.set(length, (root = bufferRoot(new Uint8Array(length))));
    return root;
  }
}

/** Has the pool find the root of a scattered piece. CORRUPT_SECTOR, MISSING_SECTOR. */
export async function checkScattered(
  { extents, found }: Scattered,
  pool: SectorPool,
  pathOf: (sector: Uint8Array) => string,
): Promise<void> {
  const pieces = extents.map(({ sector, offset, length }) => ({
    root: sector,
    path: isZeroSector(sector) ? undefined : pathOf(sector),
    offset,
    length,
  }));
  found((await pool.run({ kind: 'assemble', pieces })).root);
}

/**
 * Checks that contents have the roots they are said to have, reading each sector once in the pool. MISSING_SECTOR if
 * `isHere` does not know one, CORRUPT_SECTOR if a block fails its checksum, BAD_CONTENT for a wrong root.
 */
export async function checkExtents(
  contents: readonly PlacedContent[],
  pool: SectorPool,
  isHere: (sector: Uint8Array) => boolean,
  pathOf: (sector: Uint8Array) => string,
): Promise<void> {
  const check = new RootCheck();
  let wrong: ContentRef | undefined;
  for (const content of contents) {
    for (const { sector } of content.extents) {
      if (isHere(sector)) continue;
      throw new PgError(
        'MISSING_SECTOR',
        `${describeContent(content.ref)} needs sector ${Buffer.from(sector).toString('hex')}, which is not here`,
      );
    }
    check.add(content, (root) => {
      if (Buffer.compare(root, content.ref.root) !== 0) wrong ??= content.ref;
    });
  }
  await Promise.all(
    [...check.sectors()].map(async (sector) => {
      const path = pathOf(sector);
      const { contentRoots, bad } = await pool.run({ kind: 'check', path, spans: check.spansIn(sector) });
      if (bad?.length)
        throw new PgError(
          'CORRUPT_SECTOR',
          `sector ${Buffer.from(sector).toString('hex')}: block ${bad[0]} does not have its checksum (${path})`,
        );
      check.foundIn(sector, contentRoots);
    }),
  );
  await Promise.all(check.scattered.map(async (piece) => checkScattered(piece, pool, pathOf)));
  if (wrong) throw new PgError('BAD_CONTENT', `the extents given for ${describeContent(wrong)} hold something else`);
}
