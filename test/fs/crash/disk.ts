import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Action } from './trace.ts';

/**
 * A disk with ext4 on it whose power goes: what is left of a program's actions is what its syncs covered, and of the rest anything that the kernel may have written by
 * then. Names, sizes and allocation are the journal's, which keeps their order and is written whole up to some place; a page of data is written as it was at some moment, on
 * its own, and a page being written may be torn between sectors.
 */
const PAGE_BYTES = 4096;
const SECTOR_BYTES = 512;
const PUNCH = 2;
const ZERO = 16;
const KEEP = 1;

/** Numbers in [0, 1) that a seed gives. */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

type Change =
  Extract<Action, { kind: 'write' | 'truncate' | 'fallocate' }> | { kind: 'empty'; start: number; end: number };

interface File {
  /** In the order they ended. */
  changes: Change[];
  syncs: { start: number; end: number }[];
}

/** The names there are after some of the actions: each a file, or null for a directory. */
type Names = Map<string, File | null>;

/** Everything the journal keeps in order; anything else is data. */
const isJournalled = (action: { kind: string }): boolean =>
  !['write', 'sync', 'sync all', 'mark'].includes(action.kind);

export class Disk {
  readonly #actions: readonly Action[];

  constructor(actions: readonly Action[]) {
    this.#actions = actions.toSorted((a, b) => a.end - b.end);
  }

  /** Everything that was done, as if the power had never gone. Paths below the directory; null is a directory. */
  whole(): Map<string, Buffer | null> {
    return this.#rebuilt(Infinity, Infinity, () => 0);
  }

  /** What may be on the disk when the power went before line `at` of the trace. Every choice is `random`'s. */
  after(at: number, random: () => number): Map<string, Buffer | null> {
    const least = this.#journalAt(at);
    const journalled = this.#actions.filter(
      (action) => isJournalled(action) && action.start < at && action.end > least,
    );
    const upTo = Math.floor(random() * (journalled.length + 1));
    return this.#rebuilt(at, upTo === 0 ? least : journalled[upTo - 1]!.end, random);
  }

  /** The last line up to which the journal must have been written: syncs that were over by then wrote it up to the last change of their file or directory. */
  #journalAt(at: number): number {
    let least = -1;
    for (const sync of this.#actions) {
      if ((sync.kind !== 'sync' && sync.kind !== 'sync all') || sync.end >= at) continue;
      for (const action of this.#actions) {
        if (
          action.end < sync.start &&
          isJournalled(action) &&
          (sync.kind === 'sync all' || concerns(action, sync.path))
        )
          least = Math.max(least, action.end);
      }
    }
    return least;
  }

  #rebuilt(at: number, journal: number, random: () => number): Map<string, Buffer | null> {
    const everything = this.#names(at, Infinity);
    const names = at === Infinity ? everything : this.#names(at, journal);
    const found = new Map<string, Buffer | null>();
    for (const [path, file] of names) found.set(path, file === null ? null : contentsOf(file, at, journal, random));
    return found;
  }

  /** Names as of the journal's line `journal`; the files have every change that began before `at`, be the name that it went by there or not. */
  #names(at: number, journal: number): Names {
    const current: Names = new Map();
    const kept: Names = new Map();
    for (const action of this.#actions) {
      if (action.start >= at) continue;
      apply(current, action);
      if (isJournalled(action) && action.end <= journal) {
        kept.clear();
        for (const [path, file] of current) kept.set(path, file);
      }
    }
    return kept;
  }
}

/** Whether an fsync of this path makes that action of the journal durable. */
function concerns(action: Action, path: string): boolean {
  switch (action.kind) {
    case 'open':
    case 'unlink':
    case 'mkdir':
      return action.path === path || dirname(action.path) === path;
    case 'rename':
      return action.to === path || dirname(action.path) === path || dirname(action.to) === path;
    case 'truncate':
    case 'fallocate':
      return action.path === path;
    default:
      return false;
  }
}

function apply(names: Names, action: Action): void {
  switch (action.kind) {
    case 'open': {
      const file = names.get(action.path);
      if (file === undefined) names.set(action.path, { changes: [], syncs: [] });
      else if (file !== null && action.truncates)
        file.changes.push({ kind: 'empty', start: action.start, end: action.end });
      return;
    }
    case 'mkdir':
      names.set(action.path, null);
      return;
    case 'unlink':
      names.delete(action.path);
      return;
    case 'rename': {
      const moved = [...names].filter(([path]) => path === action.path || path.startsWith(`${action.path}/`));
      for (const [path] of moved) names.delete(path);
      for (const [path, file] of moved) names.set(action.to + path.slice(action.path.length), file);
      return;
    }
    case 'sync':
      names.get(action.path)?.syncs.push({ start: action.start, end: action.end });
      return;
    case 'sync all':
      for (const file of names.values()) file?.syncs.push({ start: action.start, end: action.end });
      return;
    case 'mark':
      return;
    default:
      // A file that was removed while it was open changes nothing that can be found again.
      names.get(action.path)?.changes.push(action);
  }
}

/** A file's bytes: what was synced, a moment of each page, and a size that some moment had. */
function contentsOf(file: File, at: number, journal: number, random: () => number): Buffer {
  const { changes } = file;
  const synced =
    at === Infinity ? at : Math.max(-1, ...file.syncs.filter((sync) => sync.end < at).map((sync) => sync.start));
  const reaches = (change: Change): boolean => change.kind === 'write' || change.end <= journal;
  // A write behind a cut or a hole that is not in the journal went to blocks that nothing leads to.
  const lastLost = changes.findLastIndex((change) => !reaches(change) && cuts(change));
  const open = changes
    .map((change, i) => ({ change, i }))
    .filter(({ change, i }) => change.kind === 'write' && change.end > synced && (lastLost < 0 || i < lastLost));
  const lastSized = open[Math.floor(random() * (open.length + 1)) - 1]?.i ?? -1;
  const keep = [0, 0.1, 0.5, 0.9, 1][Math.floor(random() * 5)]!;
  const moments = new Map<number, number[]>();
  const momentOf = (sector: number): number => {
    const page = Math.floor((sector * SECTOR_BYTES) / PAGE_BYTES);
    let choice = moments.get(page);
    if (choice === undefined) {
      const one = random() < keep ? changes.length : Math.floor(random() * changes.length);
      const other = random() < 0.8 ? one : Math.floor(random() * changes.length);
      moments.set(page, (choice = [one, other]));
    }
    return choice[0] === choice[1] || random() < 0.5 ? choice[0]! : choice[1]!;
  };
  let bytes = Buffer.alloc(0);
  const grow = (size: number): void => {
    if (size > bytes.length) bytes = Buffer.concat([bytes, Buffer.alloc(size - bytes.length)]);
  };
  const torn = new Map<number, number>();
  for (const [i, change] of changes.entries()) {
    if (!reaches(change)) continue;
    switch (change.kind) {
      case 'empty':
        bytes = Buffer.alloc(0);
        break;
      case 'truncate':
        bytes = Buffer.from(bytes.subarray(0, change.size));
        grow(change.size);
        break;
      case 'fallocate':
        if ((change.mode & KEEP) === 0) grow(change.offset + change.length);
        if ((change.mode & (PUNCH | ZERO)) !== 0) bytes.fill(0, change.offset, change.offset + change.length);
        break;
      case 'write': {
        const safe = change.end <= synced;
        if (!safe && lastLost >= 0 && i > lastLost) break;
        if (safe || i <= lastSized) grow(change.offset + change.bytes.length);
        write(bytes, change.offset, change.bytes, (sector) => {
          if (safe) return true;
          let moment = torn.get(sector);
          if (moment === undefined) torn.set(sector, (moment = momentOf(sector)));
          return i < moment;
        });
      }
    }
  }
  return bytes;
}

const cuts = (change: Change): boolean =>
  change.kind === 'empty' ||
  change.kind === 'truncate' ||
  (change.kind === 'fallocate' && (change.mode & (PUNCH | ZERO)) !== 0);

/** Copies the sectors that `has` says are on the disk, as far as the file reaches. */
function write(into: Buffer, offset: number, bytes: Buffer, has: (sector: number) => boolean): void {
  for (let at = 0; at < bytes.length;) {
    const sector = Math.floor((offset + at) / SECTOR_BYTES);
    const length = Math.min(bytes.length - at, (sector + 1) * SECTOR_BYTES - offset - at);
    if (offset + at < into.length && has(sector)) bytes.copy(into, offset + at, at, at + length);
    at += length;
  }
}

/** Writes what a disk held below `from` to a new directory. */
export function materialize(found: Map<string, Buffer | null>, from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const [path, bytes] of found) {
    if (path === from) continue;
    assert.ok(path.startsWith(`${from}/`), path);
    const place = join(to, path.slice(from.length));
    if (bytes === null) mkdirSync(place, { recursive: true });
    else {
      mkdirSync(dirname(place), { recursive: true });
      writeFileSync(place, bytes);
    }
  }
}
