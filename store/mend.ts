import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isPgError } from '../mdm/error.ts';
import { bufferRoot, ROOT_BYTES, SECTOR_BYTES, sectorRoot } from '../mdm/merkle.ts';
import { encodeSectorRecord } from './catalog.ts';
import { contentKey, type ContentRef, decodeExtents, type Extent } from './content.ts';
import { sectorKey } from './content-reader.ts';
import type { Index } from './index-db.ts';
import { decodeSectorFile, placeSectorFile, usedBytes } from './sector.ts';
import type { Problem } from './verify.ts';

/** Where sectors are and are made. */
interface Places {
  pathOf(root: Uint8Array): string;
  temporaryDir: string;
}

/** A sector that is to be put together again: what its file still has of it, and what others give. Nothing is believed but the root. */
export class SectorDraft {
  readonly root: Uint8Array;
  /** The 4 MiB as far as they are known; zeros where the file has none. */
  readonly bytes: Buffer;
  private readonly places: Places;

  constructor(root: Uint8Array, places: Places) {
    this.root = root;
    this.places = places;
    this.bytes = Buffer.alloc(SECTOR_BYTES);
    try {
      const path = places.pathOf(root);
      if (existsSync(path)) decodeSectorFile(readFileSync(path), this.bytes);
    } catch {
      this.bytes.fill(0); // what cannot be read is not there
    }
  }

  /** Takes `bytes` to lie at `offset`. */
  overlay(offset: number, bytes: Uint8Array): void {
    this.bytes.set(bytes, offset);
  }

  isWhole(): boolean {
    return Buffer.compare(sectorRoot(this.bytes), this.root) === 0;
  }

  /**
   * Puts the sector, which must be whole, in its place: a plain file and its entry, durable on return. Who has the damaged file open goes on with that.
   * DISK_FULL, DISK_ERROR.
   */
  place(index: Index): void {
    const used = usedBytes(this.bytes);
    const temporary = join(this.places.temporaryDir, `mend-${process.pid}`);
    const path = this.places.pathOf(this.root);
    // The collector unlinks files in transactions: it sees the entry, or takes the file after this.
    index.transaction(() => {
      placeSectorFile(temporary, path, this.bytes, used, () => {});
      index.table('sectors').put(this.root, encodeSectorRecord({ used, form: 'plain' }));
    });
  }
}

/** Extents of damaged contents in a sector, with the part of the content that lies there. */
interface Lost {
  key: string;
  offset: number;
  length: number;
  /** Where the piece begins in the content. */
  start: number;
}

/** Sectors of 4 MiB, not whole yet, that are held at one time; pieces of further ones are passed over, and found when all is tried again. */
const DRAFTS_MAX = 32;

/**
 * Damaged sectors on their way to be mended. Whoever has a copy of something gives it (`giveSector`, `giveBytes`); as soon as the root of a sector comes out right, the sector
 * takes its place.
 */
export class SectorMender {
  /** Sectors not mended yet, and the lost pieces of contents in each. */
  private readonly open = new Map<string, { root: Uint8Array; lost: Lost[] }>();
  private readonly drafts = new Map<string, SectorDraft>();
  private readonly index: Index;
  private readonly places: Places;
  private readonly onMended: (root: Uint8Array, by: string) => void;

  constructor(index: Index, places: Places, onMended: (root: Uint8Array, by: string) => void) {
    this.index = index;
    this.places = places;
    this.onMended = onMended;
  }

  /** A damaged sector and the damaged contents that lie in it. */
  add(root: Uint8Array, contents: readonly { ref: ContentRef; extents: readonly Extent[] }[]): void {
    const lost: Lost[] = [];
    for (const { ref, extents } of contents) {
      let start = 0;
      for (const { sector, offset, length } of extents) {
        if (Buffer.compare(sector, root) === 0)
          lost.push({ key: contentKey(ref).toString('latin1'), offset, length, start });
        start += length;
      }
    }
    this.open.set(sectorKey(root), { root, lost });
  }

  /** Sectors that nobody could give yet. */
  get missing(): Uint8Array[] {
    return [...this.open.values()].map(({ root }) => root);
  }

  /** Contents of which a piece is wanted: size, root and key. */
  get wanted(): ReadonlySet<string> {
    return new Set([...this.open.values()].flatMap(({ lost }) => lost.map(({ key }) => key)));
  }

  /** Where the bytes are right and only their checksums are not: those are computed anew. */
  mendChecksums(): void {
    for (const { root } of this.open.values()) {
      const draft = new SectorDraft(root, this.places);
      if (draft.isWhole()) this.finish(draft, 'its checksums are computed anew');
    }
  }

  /** All bytes of a sector before its zero tail, from somebody who may be wrong. Whether they were right. */
  giveSector(root: Uint8Array, bytes: Uint8Array, by: string): boolean {
    if (!this.open.has(sectorKey(root)) || bytes.length > SECTOR_BYTES) return false;
    const draft = new SectorDraft(root, this.places);
    draft.bytes.fill(0);
    draft.overlay(0, bytes);
    if (!draft.isWhole()) return false;
    this.finish(draft, by);
    return true;
  }

  /** Bytes of content `ref`, whose root has been checked, from `start` on. */
  giveBytes(ref: ContentRef, start: number, bytes: Uint8Array, by: string): void {
    const key = contentKey(ref).toString('latin1');
    const end = start + bytes.length;
    for (const [name, { root, lost }] of this.open) {
      const pieces = lost.filter(
        (piece) => piece.key === key && piece.start < end && start < piece.start + piece.length,
      );
      const draft = pieces.length === 0 ? undefined : this.draft(name, root);
      if (draft === undefined) continue;
      for (const piece of pieces) {
        const [from, to] = [Math.max(start, piece.start), Math.min(end, piece.start + piece.length)];
        draft.overlay(piece.offset + from - piece.start, bytes.subarray(from - start, to - start));
      }
      if (draft.isWhole()) this.finish(draft, by);
    }
  }

  private draft(name: string, root: Uint8Array): SectorDraft | undefined {
    let draft = this.drafts.get(name);
    if (draft === undefined && this.drafts.size < DRAFTS_MAX) {
      draft = new SectorDraft(root, this.places);
      this.drafts.set(name, draft);
    }
    return draft;
  }

  private finish(draft: SectorDraft, by: string): void {
    draft.place(this.index);
    this.drafts.delete(sectorKey(draft.root));
    this.open.delete(sectorKey(draft.root));
    this.onMended(draft.root, by);
  }
}

/**
 * Puts back entries of the index from a copy of it (or any other that has them), each only if it is what its key says. `mended` is told of each. Names
 * and records of images are as they were when the copy was made.
 */
export function mendEntries(
  index: Index,
  copy: Index,
  problems: readonly Problem[],
  mended: (problem: Problem) => void,
): void {
  for (const problem of problems) {
    const place = entryOf(problem);
    if (place === undefined) continue;
    const value = valueIn(copy, place.table, place.key);
    if (value === undefined || !isRight(place.table, place.key, value)) continue;
    index.transaction(() => index.table(place.table).put(place.key, value));
    mended(problem);
  }
}

function entryOf(problem: Problem): { table: string; key: Uint8Array } | undefined {
  switch (problem.kind) {
    case 'content':
      return { table: 'contents', key: contentKey(problem.ref) };
    case 'node':
      return { table: 'nodes', key: problem.hash };
    case 'entry':
      // What a collection or the host's files have become since the copy was made is not to be undone.
      return /^(images|names|layers|sectors)$/.test(problem.table) ? problem : undefined;
    case 'sector':
    case 'host':
      return undefined;
    default:
      return problem satisfies never;
  }
}

function valueIn(copy: Index, table: string, key: Uint8Array): Buffer | undefined {
  try {
    return copy.table(table).get(key);
  } catch (error) {
    if (isPgError(error, 'CORRUPT_INDEX')) return undefined;
    throw error;
  }
}

/** Nodes are named by their root; the bytes of contents are compared with theirs whenever everything is read again. */
function isRight(table: string, key: Uint8Array, value: Buffer): boolean {
  if (table === 'nodes') return Buffer.compare(bufferRoot(value), key) === 0;
  if (table !== 'contents') return true;
  const size = decodeExtents(value).reduce((sum, { length }) => sum + length, 0);
  return size === Number(Buffer.from(key).readBigUInt64BE(ROOT_BYTES));
}
