import { constants, fstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { baseBytes, closeLog, openWithBases } from './bases.ts';
import { CHECKPOINT, KEPT_STATES, OLDER_CHECKPOINT, removeNewCheckpoint } from './checkpoints.ts';
import { punchHole } from './disk.ts';
import { readHeader } from './header.ts';
import { retainedSizes } from './retention.ts';
import { RootsFile, type SectorRoot, sectorOf } from './roots.ts';
import { forgetShared, sharedEnd } from './sharing.ts';
import { CHECKPOINT_MAGIC, readMarkHeader } from './sidecar.ts';
import { neededSectors } from './needed.ts';

/** Sectors that are flagged and given back in one go. */
const GROUP = 64;

/**
 * Gives sectors of a log back to the disk that no state which is kept needs. The state now, the two checkpoints, and whatever lies in `snapshots` are kept;
 * entries behind the older checkpoint are, so that replay can start there.
 */
export class Reclaimer {
  readonly #dir: string;
  readonly #fd: number;
  readonly #salt: number;
  readonly #roots: RootsFile;
  #goneSectors: number | undefined;

  /** Of the log in `dir`, open as `fd` with this salt. */
  constructor(dir: string, fd: number, salt: number) {
    this.#dir = dir;
    this.#fd = fd;
    this.#salt = salt;
    this.#roots = new RootsFile(dir, salt);
  }

  /** Sectors from the first on that this log cannot give back, as of the last `refreshSharing`: they lie in other logs' files, or clones share them. */
  get fixedSectors(): number {
    return (this.#fixedSectors ??= this.#countFixed());
  }
  #fixedSectors: number | undefined;

  #countFixed(): number {
    return sectorOf(Math.max(baseBytes(this.#dir), Math.min(sharedEnd(this.#dir, this.#fd), fstatSync(this.#fd).size)));
  }

  /** Looks whether somebody has made a clone, or removed one. */
  refreshSharing(): void {
    const fixed = this.#countFixed();
    if (fixed !== this.#fixedSectors) this.#goneSectors = undefined;
    this.#fixedSectors = fixed;
  }

  /** Bytes of the log that are given back, or cannot be (`fixedSectors`). */
  absentBytes(): number {
    const own = (): SectorRoot[] => this.#roots.all().slice(this.fixedSectors);
    this.#goneSectors ??= own().reduce((sum, { isGone }) => sum + (isGone ? 1 : 0), 0);
    return (this.#goneSectors + this.fixedSectors) * SECTOR_BYTES;
  }

  /** Whether a sector's bytes are in the log's own file, and nobody shares them. */
  isThere(sector: number): boolean {
    return sector >= this.fixedSectors && this.#roots.get(sector)?.isGone !== true;
  }

  /** Entries from here on stay; 0 while there are not two checkpoints. */
  horizon(): number {
    const sizes = [CHECKPOINT, OLDER_CHECKPOINT].map(
      (name) => readMarkHeader(join(this.#dir, name), CHECKPOINT_MAGIC, this.#salt)?.size ?? 0,
    );
    return Math.min(...sizes, ...retainedSizes(this.#dir, KEPT_STATES));
  }

  /** The sectors that can be given back, as far as their roots are kept; `isLive` tells what the state now needs. */
  candidates(isLive: (sector: number) => boolean): number[] {
    const end = sectorOf(this.horizon());
    if (end === 0) return [];
    const isKept = keptByOthers(this.#dir, this.#fd, this.#salt);
    const found: number[] = [];
    for (const [sector, { isGone }] of this.#roots.all().slice(0, end).entries())
      if (sector >= sectorOf(baseBytes(this.#dir)) && !isGone && !isLive(sector) && !isKept(sector)) found.push(sector);
    // The first sector has the log's header.
    return found.filter((sector) => sector > 0);
  }

  /** Notes that these sectors are gone, durably, and then gives them back. */
  giveBack(sectors: readonly number[]): void {
    giveBack(this.#dir, this.#fd, this.#salt, sectors, punchHole);
    this.#goneSectors = undefined;
  }

  /** Opening to write: what a crash left of a checkpoint in the making goes, and what was noted to be gone is given back again, unless somebody needs it by now. */
  finishInterrupted(): void {
    removeNewCheckpoint(this.#dir);
    forgetShared(this.#dir, this.#fd);
    const kept = this.#roots.all();
    if (!kept.some(({ isGone }) => isGone)) return;
    const isKept = keptByOthers(this.#dir, this.#fd, this.#salt);
    for (let from = 0; from < kept.length;) {
      let to = from;
      while (kept[to]?.isGone === true && !isKept(to)) to++;
      if (to > from) punchHole(this.#fd, from * SECTOR_BYTES, (to - from) * SECTOR_BYTES);
      from = to + 1;
    }
  }

  /** Somebody else gave some back. */
  refresh(): void {
    this.#goneSectors = undefined;
  }

  /** PgError LOG_CLEANED when some of [from, to) is not there because it was given back. */
  requireNotGone(from: number, to: number): void {
    const isGone = this.#roots
      .all()
      .slice(sectorOf(from), sectorOf(to) + 1)
      .some((sector) => sector.isGone);
    if (!isGone) return;
    throw new PgError(
      'LOG_CLEANED',
      `the state at byte ${to} of ${this.#dir}/log is not there any more: it was cleaned`,
      {
        hint: `states from byte ${this.horizon()} on are there, and snapshots: pg log, pg snapshot ls`,
      },
    );
  }

  close(): void {
    this.#roots.close();
  }
}

/**
 * Whether a sector must stay for others than the state now: the checkpoints, the states that are kept by name, and clones that share the file up to some place. As
 * it is at this moment: any process may keep a state or make a clone.
 */
function keptByOthers(dir: string, fd: number, salt: number): (sector: number) => boolean {
  const shared = sharedEnd(dir, fd);
  const needed = new Set<number>();
  for (const path of [CHECKPOINT, OLDER_CHECKPOINT, ...keptFiles(dir)]) {
    const sectors = neededSectors(join(dir, path), salt);
    // What cannot be read might need anything.
    if (sectors === undefined) return () => true;
    for (const { sector } of sectors) needed.add(sector);
  }
  return (sector) => sector * SECTOR_BYTES < shared || needed.has(sector);
}

/** Files of the states that are kept by name, as paths in the log's directory; those in the making are not. */
function keptFiles(dir: string): string[] {
  try {
    const names = readdirSync(join(dir, KEPT_STATES)).filter((name) => !name.endsWith('.new'));
    return names.map((name) => join(KEPT_STATES, name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/**
 * As `Reclaimer.giveBack`, by anyone; `punch` gives [offset, offset + length) of a file back. Done again after a crash it does no harm. Whoever keeps a state or makes
 * a clone does that first, and then looks at what is noted; here it is noted first, and then looked at who keeps what. So one of the two sees the other.
 */
export function giveBack(
  dir: string,
  fd: number,
  salt: number,
  sectors: readonly number[],
  punch: (fd: number, offset: number, length: number) => void,
): void {
  const roots = new RootsFile(dir, salt);
  try {
    for (let from = 0; from < sectors.length; from += GROUP) {
      const group = sectors.slice(from, from + GROUP);
      for (const sector of group) roots.put(sector, { root: roots.get(sector)!.root, isGone: true });
      roots.sync();
      const isKept = keptByOthers(dir, fd, salt);
      for (const sector of group.filter(isKept)) roots.put(sector, { root: roots.get(sector)!.root, isGone: false });
      for (const sector of group)
        if (roots.get(sector)?.isGone === true) punch(fd, sector * SECTOR_BYTES, SECTOR_BYTES);
    }
  } finally {
    roots.close();
  }
}

/** `giveBack` of the log in `dir`, for whoever has not got it open. */
export function giveBackIn(dir: string, sectors: readonly number[]): void {
  const path = join(dir, 'log');
  const fd = openWithBases(path, constants.O_RDWR);
  try {
    giveBack(dir, fd, readHeader(fd, path).salt, sectors, punchHole);
  } finally {
    closeLog(fd);
  }
}
