import { SECTOR_BYTES } from '../../mdm/merkle.ts';
import { isPgError } from '../../mdm/error.ts';
import { isDiskFull } from '../log/disk.ts';
import { CHECK_BYTES } from '../log/entry.ts';
import type { Log } from '../log/log.ts';
import * as E from './entries.ts';
import { isFsError } from './error.ts';
import type { Extents } from './extents.ts';
import type { Journal } from './journal.ts';
import type { Node } from './node.ts';
import { deltaOf, isLog, payloadBytesOf } from './run-source.ts';
import type { State } from './state.ts';

/** With fewer dead bytes than this nothing is done. */
export const FLOOR_BYTES = 32 << 20;
/** The same where the disk is short: giving back what is dead would double what is free of it. Then also less of what is live may be dead. */
const SCARCE_FLOOR_BYTES = 2 * SECTOR_BYTES;
const SCARCE_SHARE = 0.25;
/** What a run leaves of the space that is the log's own, for entries that remove something. */
const KEPT_BYTES = 1 << 20;
/** After a run another one is begun when so much was written, or died, since. */
const AGAIN_BYTES = 16 << 20;
/** A checkpoint, of which a run writes two, costs disk time too: no run for fewer dead bytes than some times its size. */
const CHECKPOINT_RATIO = 4;
/** A run moves what is needed out of sectors until the dead bytes that are left are at most this part of the live ones. */
const DEAD_SHARE = 0.5;
/** Sectors of which more is needed are left alone. */
const MOST_LIVE_BYTES = 0.85 * SECTOR_BYTES;
/** One entry moves at most this. */
const PIECE_BYTES = 256 << 10;

/** What a run has done so far. */
export interface Cleaned {
  /** Bytes of files that were written again, at the end of the log. */
  movedBytes: number;
  /** Runs whose bytes are damaged: they stay where they are. */
  damaged: number;
}

/**
 * Moves what is needed out of sectors of the log of which little is, so that they can be given back (fs/log/reclaim.ts): the bytes are appended as MOVE entries,
 * which change where a file's bytes are and nothing else. A little at a time, between requests.
 */
export class Cleaner {
  readonly #state: State;
  readonly #journal: Journal;
  readonly #log: Log;
  #victims = new Set<number>();
  #nodes: Iterator<Node> | undefined;
  #node: Node | undefined;
  /** Up to where the file in hand is done. */
  #cursor = 0;
  /** Where runs that several files share went, by the place that they were at. */
  readonly #moved = new Map<string, { place: number; source: number }>();
  readonly #bytes = Buffer.allocUnsafeSlow(PIECE_BYTES);
  #done: Cleaned = { movedBytes: 0, damaged: 0 };
  #sizeThen = 0;
  #liveThen = 0;
  /** Whether the last run gave something back, and whether the one under way is short of space. */
  #gaveBack = false;
  #isScarce = false;

  constructor(state: State, journal: Journal, log: Log) {
    this.#state = state;
    this.#journal = journal;
    this.#log = log;
  }

  /** Bytes of the log's file that are there, and how many of them the files need; neither of what clones share, which stays as it is. */
  usage(): { presentBytes: number; liveBytes: number } {
    const { live } = this.#state;
    const { reclaimer, size } = this.#log;
    const presentBytes = Math.max(0, size - reclaimer.absentBytes());
    const liveBytes = live.total - live.before(reclaimer.fixedSectors);
    return { presentBytes, liveBytes: Math.min(presentBytes, liveBytes) };
  }

  /** How far the log is beyond what it should take: at 1 it has twice what is needed, and the floor. */
  get pressure(): number {
    const { presentBytes, liveBytes } = this.usage();
    return presentBytes / (2 * liveBytes + FLOOR_BYTES);
  }

  /**
   * Whether a run pays: more than half of the log is dead, and it was not just so after the last run; less where of the disk no more is free (`freeBytes`) than is
   * dead. `checkpointBytes`: what one takes.
   */
  isDue(checkpointBytes: number, freeBytes: number): boolean {
    this.#log.reclaimer.refreshSharing();
    const { presentBytes, liveBytes } = this.usage();
    const dead = presentBytes - liveBytes;
    this.#isScarce = freeBytes < dead;
    const least = this.#isScarce
      ? Math.max(SCARCE_SHARE * liveBytes, SCARCE_FLOOR_BYTES)
      : Math.max(liveBytes, FLOOR_BYTES, CHECKPOINT_RATIO * checkpointBytes);
    if (dead <= least) return false;
    if (this.#isScarce && this.#gaveBack) return true;
    const again = this.#isScarce ? SCARCE_FLOOR_BYTES : AGAIN_BYTES;
    return this.#log.size - this.#sizeThen >= again || this.#liveThen - this.#state.live.total >= again;
  }

  /** Begins a run. Of the disk so many bytes are free. */
  begin(freeBytes: number): void {
    this.#victims = this.#choose(freeBytes);
    this.#nodes = this.#victims.size === 0 ? undefined : this.#state.nodes();
    this.#node = undefined;
    this.#moved.clear();
    this.#done = { movedBytes: 0, damaged: 0 };
  }

  /** Moves on for about so long; true when nothing more is to be moved. */
  step(budgetMs: number): boolean {
    const end = performance.now() + budgetMs;
    while (this.#nodes !== undefined) {
      try {
        this.#next();
      } catch (error) {
        if (!isFsError(error) && !isDiskFull(error)) throw error;
        // No space, or no budget, for what would be moved: what can be given back without is.
        this.#nodes = undefined;
      }
      if (performance.now() >= end) break;
    }
    return this.#nodes === undefined;
  }

  /** The sectors that can be given back now. */
  candidates(): number[] {
    return this.#log.reclaimer.candidates((sector) => this.#state.live.of(sector) > 0);
  }

  /** The run is over, and has given so many sectors back; what it did. */
  finish(sectors: number): Cleaned {
    this.#gaveBack = sectors > 0;
    this.#nodes = undefined;
    this.#moved.clear();
    this.#sizeThen = this.#log.size;
    this.#liveThen = this.#state.live.total;
    return this.#done;
  }

  /** The sectors of which least is needed, as many as it takes and as there is space to move out of. Those of which nothing is need no moving. */
  #choose(freeBytes: number): Set<number> {
    const { live } = this.#state;
    const { reclaimer, size } = this.#log;
    const sparse: { sector: number; bytes: number }[] = [];
    let [dead, empty] = [0, 0];
    for (let sector = 1; (sector + 1) * SECTOR_BYTES <= size; sector++) {
      const bytes = live.of(sector);
      if (!reclaimer.isThere(sector)) continue;
      if (bytes === 0) empty += SECTOR_BYTES;
      if (bytes === 0) continue;
      dead += Math.max(0, SECTOR_BYTES - bytes);
      if (bytes < MOST_LIVE_BYTES) sparse.push({ sector, bytes });
    }
    const victims = new Set<number>();
    // What is written over in order dies in whole sectors: then there is more to be had without moving anything.
    if (empty > dead) return victims;
    const share = this.#isScarce ? SCARCE_SHARE / 2 : DEAD_SHARE;
    let room = freeBytes / 2 + this.#log.space.spareBehind(this.#log.size) - KEPT_BYTES;
    for (const { sector, bytes } of sparse.toSorted((a, b) => a.bytes - b.bytes)) {
      // A run at a sector's edge has a part in the next one, which moves along.
      room -= bytes + PIECE_BYTES;
      if (dead <= share * live.total || room < 0) break;
      victims.add(sector);
      dead -= SECTOR_BYTES - bytes;
    }
    return victims;
  }

  /** Moves one piece, or passes to the next file. */
  #next(): void {
    if (this.#node === undefined) {
      const { value, done } = this.#nodes!.next();
      if (done === true) this.#nodes = undefined;
      else if (value.extents !== undefined) this.#node = value;
      this.#cursor = 0;
      return;
    }
    const node = this.#node;
    const piece = node.extents === undefined ? undefined : this.#find(node.extents);
    if (piece === undefined || this.#state.node(node.ino) !== node) {
      this.#node = undefined;
      return;
    }
    this.#cursor = piece.start + piece.length;
    this.#move(node, piece.start, piece.length, piece.place, piece.source);
  }

  /** The first stretch behind the cursor of which a victim holds something: of one run, not longer than a piece, and of whole blocks where it can be. */
  #find(extents: Extents): { start: number; length: number; place: number; source: number } | undefined {
    let found: { start: number; length: number; place: number; source: number } | undefined;
    extents.visit(this.#cursor, Infinity, (start, length, place, source) => {
      if (!isLog(source) || !this.#isInVictim(length, place, source)) return true;
      const odd = deltaOf(source) % CHECK_BYTES;
      found = { start, length: Math.min(length, PIECE_BYTES - odd), place, source };
      return false;
    });
    return found;
  }

  #isInVictim(length: number, place: number, source: number): boolean {
    const delta = deltaOf(source);
    const payloadAt = place - delta;
    // Generously: the whole payload with its checksums. A few runs more are moved than need be.
    const first = Math.floor((payloadAt - 4) / SECTOR_BYTES);
    const payloadBytes = payloadBytesOf(source);
    const last = Math.floor((payloadAt + payloadBytes + payloadBytes / 1024 + 4) / SECTOR_BYTES);
    if (delta + length > payloadBytes) return false;
    for (let sector = first; sector <= last; sector++) if (this.#victims.has(sector)) return true;
    return false;
  }

  #move(node: Node, start: number, length: number, place: number, source: number): void {
    const key = `${place} ${length}`;
    const shared = this.#moved.get(key);
    if (shared !== undefined) return this.#append(node, start, length, shared, undefined);
    const bytes = this.#bytes.subarray(0, length);
    const delta = deltaOf(source);
    try {
      this.#log.readPayload(place - delta, payloadBytesOf(source), delta, bytes, 0, length);
    } catch (error) {
      if (!isPgError(error, 'LOG_DAMAGED')) throw error;
      this.#done.damaged++;
      return;
    }
    this.#append(node, start, length, undefined, bytes);
    this.#done.movedBytes += length;
    const { entry } = this.#journal;
    this.#moved.set(key, { place: entry.payloadAt, source: length });
  }

  /** To bytes of its own, or to where the same bytes went before. */
  #append(
    node: Node,
    start: number,
    length: number,
    to: { place: number; source: number } | undefined,
    bytes: Uint8Array | undefined,
  ): void {
    const fields = this.#journal.begin(E.MOVE, bytes === undefined ? 0 : E.WRITE_FLAGS);
    fields.u64(node.ino);
    fields.u64(start);
    fields.u64(length);
    fields.u64(to?.place ?? 0);
    fields.u32(to?.source ?? 0);
    this.#journal.appendNow(bytes);
  }
}
