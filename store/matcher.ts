import { SECTOR_BYTES } from '../mdm/merkle.ts';
import { ANCHOR_NUMBERS } from './anchors.ts';
import { UNIT_BYTES, UnitCache } from './packed.ts';
import { SectorFile } from './sector.ts';

/** Fewer bytes are not worth an extent of their own. */
const LEAST_BYTES = 4096;
/** All matches of a content together: less is not worth its being in pieces. */
const LEAST_IN_ALL = 16_384;
/** Where the bytes went on as in a sector and then differ, they are looked at again this far on, and again. */
const STEP_BYTES = 2048;
/** ... but no further than this behind the last match: what comes there is found by its own anchors. */
const RESYNC_BYTES = 128 * 1024;
/** Bytes compared at once. */
const STRIDE = 4096;

/** For an anchor that no sector is known to have. */
export const NOWHERE = 0xffffffff;

/** A content that may have bytes in common with sectors. */
export interface MatchItem {
  /** Where it lies in the buffer. */
  readonly offset: number;
  readonly size: number;
  /** For each anchor: its position in the content, the number of a sector or NOWHERE, and a place there. */
  readonly anchors: Uint32Array;
}

/** A sector to compare with, and where its file may be: it may be getting its name just now. */
export interface MatchSector {
  readonly root: Uint8Array;
  readonly paths: readonly string[];
}

/** Bytes of a content that a sector has. */
export interface Match {
  /** Position in the content. */
  from: number;
  length: number;
  sector: number;
  offset: number;
}

/**
 * For each item the stretches of its bytes, in order, that the sectors have. Every byte has been compared; a sector that cannot be read has nothing. Reads no more of the
 * sectors than is compared.
 */
export function findMatches(bytes: Buffer, items: readonly MatchItem[], sectors: readonly MatchSector[]): Match[][] {
  const views = new Map<number, SectorView>();
  const viewOf = (sector: number): SectorView => {
    let view = views.get(sector);
    if (!view) views.set(sector, (view = new SectorView(sectors[sector]!)));
    return view;
  };
  try {
    return items.map((item) => matchItem(bytes.subarray(item.offset, item.offset + item.size), item.anchors, viewOf));
  } finally {
    for (const view of views.values()) view.close();
  }
}

function matchItem(bytes: Buffer, anchors: Uint32Array, viewOf: (sector: number) => SectorView): Match[] {
  const matches: Match[] = [];
  let done = 0;
  let last: Match | undefined;
  const attempt = (at: number, sector: number, offset: number): Match | undefined => {
    const found = sector === NOWHERE ? undefined : viewOf(sector).around(bytes, done, at, offset);
    return found && found.length >= LEAST_BYTES ? { ...found, sector } : undefined;
  };
  const take = (match: Match | undefined): void => {
    if (!match) return;
    matches.push(match);
    last = match;
    done = match.from + match.length;
  };
  /** As if the bytes went on where the last match did: an edit in place moves nothing. */
  const onward = (at: number): Match | undefined =>
    last && at < done + RESYNC_BYTES && at - last.from + last.offset < SECTOR_BYTES
      ? attempt(at, last.sector, at - last.from + last.offset)
      : undefined;
  let tried = 0;
  const resync = (end: number): void => {
    for (let step = nextStep(); step < Math.min(end, done + RESYNC_BYTES); step = nextStep()) {
      tried = step;
      take(onward(step));
    }
  };
  const nextStep = (): number => Math.max(tried, done) + STEP_BYTES;
  for (let i = 0; i < anchors.length; i += ANCHOR_NUMBERS) {
    const at = anchors[i]!;
    if (last) resync(at);
    if (at < done) continue;
    const hit = attempt(at, anchors[i + 1]!, anchors[i + 2]!);
    const on = onward(at);
    take(on && (!hit || on.length > hit.length) ? on : hit);
  }
  if (last) resync(bytes.length);
  return matches.reduce((sum, { length }) => sum + length, 0) < LEAST_IN_ALL ? [] : matches;
}

/** The bytes of a sector, read in units as they are needed. */
class SectorView {
  private readonly bytes = Buffer.allocUnsafeSlow(SECTOR_BYTES);
  private readonly loaded = new Uint8Array(SECTOR_BYTES / UNIT_BYTES);
  private file: SectorFile | undefined;

  constructor(sector: MatchSector) {
    for (const path of sector.paths) {
      try {
        this.file = new SectorFile(path, sector.root, new UnitCache(1));
        return;
      } catch {
        // perhaps under another name
      }
    }
  }

  close(): void {
    this.file?.close();
  }

  /** The longest stretch, not before `least`, in which `bytes` around `at` are the sector's around `offset`. */
  around(
    bytes: Buffer,
    least: number,
    at: number,
    offset: number,
  ): { from: number; length: number; offset: number } | undefined {
    try {
      const end = this.forward(bytes, at, offset);
      const start = this.backward(bytes, Math.max(least, at - offset), at, offset);
      return { from: start, length: end - start, offset: offset - (at - start) };
    } catch {
      this.file?.close();
      this.file = undefined; // it cannot be read: the bytes are stored anew
      return undefined;
    }
  }

  private forward(bytes: Buffer, at: number, offset: number): number {
    const limit = Math.min(bytes.length, at + SECTOR_BYTES - offset);
    const shift = offset - at;
    let i = at;
    while (i < limit) {
      const next = Math.min(i + STRIDE, limit);
      this.load(i + shift, next + shift);
      if (bytes.compare(this.bytes, i + shift, next + shift, i, next) !== 0) break;
      i = next;
    }
    const end = Math.min(i + STRIDE, limit);
    while (i < end && bytes[i] === this.bytes[i + shift]) i++;
    return i;
  }

  private backward(bytes: Buffer, limit: number, at: number, offset: number): number {
    const shift = offset - at;
    let i = at;
    while (i > limit) {
      const next = Math.max(i - STRIDE, limit);
      this.load(next + shift, i + shift);
      if (bytes.compare(this.bytes, next + shift, i + shift, next, i) !== 0) break;
      i = next;
    }
    const end = Math.max(i - STRIDE, limit);
    while (i > end && bytes[i - 1] === this.bytes[i - 1 + shift]) i--;
    return i;
  }

  private load(from: number, to: number): void {
    if (!this.file) throw new Error('no file');
    for (let unit = Math.floor(from / UNIT_BYTES); unit * UNIT_BYTES < to; unit++) {
      if (this.loaded[unit] === 1) continue;
      this.file.read(this.bytes, unit * UNIT_BYTES, unit * UNIT_BYTES, UNIT_BYTES);
      this.loaded[unit] = 1;
    }
  }
}
