import assert from 'node:assert';
import type { LiveSectors } from './live-sectors.ts';
import { deltaOf, isLog, logSource, PAYLOAD_LIMIT, payloadBytesOf, ZEROS } from './run-source.ts';

/**
 * Where a file's bytes are: runs in order of their place in the file, gaps between them are holes. Sorted chunks of runs in flat arrays: finding a run is
 * two binary searches, replacing one writes four numbers, inserting one moves at most a chunk.
 */

/** A run is four numbers: where it starts in the file, its length, where its bytes start, and its source. */
const START = 0;
const LENGTH = 1;
/** Log offset of the run's first byte, or its offset in the lower file, or 0. */
const PLACE = 2;
/** See run-source.ts. */
const SOURCE = 3;
const WIDTH = 4;

/** Runs of a full chunk: it is split in halves. */
const CHUNK_RUNS = 256;
const FIRST_RUNS = 2;

/** Whether the run is not the continuation of one before it. */
const isWholePayload = (source: number): boolean => isLog(source) && source < PAYLOAD_LIMIT;

/** Called for each run of a range: where it starts in the file, its length, place and source; false ends the walk. */
export type RunVisitor = (start: number, length: number, place: number, source: number) => boolean | void;

interface Chunk {
  runs: Float64Array;
  count: number;
  /** A frozen copy goes on to show it: it is copied before it changes. */
  isShared: boolean;
}

const newChunk = (runs: number): Chunk => ({ runs: new Float64Array(runs * WIDTH), count: 0, isShared: false });

export class Extents {
  /** Bytes that runs cover. */
  allocated = 0;
  /** In order; none is empty unless it is the only one. */
  #chunks: Chunk[] = [newChunk(FIRST_RUNS)];
  readonly #live: LiveSectors;

  /** `live` is told of every run that comes and goes. */
  constructor(live: LiveSectors) {
    this.#live = live;
  }

  /** The same runs, of which `live` is not told; not to be changed. What changes afterwards copies its chunk. */
  frozen(live: LiveSectors): Extents {
    const copy = new Extents(live);
    for (const chunk of this.#chunks) chunk.isShared = true;
    copy.#chunks = this.#chunks.slice();
    copy.allocated = this.allocated;
    return copy;
  }

  /** The file is no more: its runs go. */
  release(): void {
    for (const [, length, place, source] of this.runs()) this.#live.count(length, place, source, -1);
  }

  /** All runs in order: start in the file, length, place, source. One array, used again. */
  *runs(): Generator<[start: number, length: number, place: number, source: number]> {
    const run: [number, number, number, number] = [0, 0, 0, 0];
    for (const { runs, count } of this.#chunks) {
      for (let at = 0; at < count * WIDTH; at += WIDTH) {
        for (let i = 0; i < WIDTH; i++) run[i] = runs[at + i]!;
        yield run;
      }
    }
  }

  /** Runs held. */
  get count(): number {
    return this.#chunks.reduce((sum, chunk) => sum + chunk.count, 0);
  }

  /** Puts a run over whatever was in its range. */
  set(start: number, length: number, place: number, source: number): void {
    assert(length > 0);
    const last = this.#own(this.#chunks.length - 1);
    const end = last.count === 0 ? 0 : lastEnd(last);
    if (start >= end) {
      const joined = last.count > 0 && this.#join(last.runs, (last.count - 1) * WIDTH, start, length, place, source);
      if (!joined) this.#push(start, length, place, source);
      return;
    }
    if (isWholePayload(source) && this.#replace(start, length, place, source)) return;
    this.clear(start, length);
    this.#insert(start, length, place, source);
  }

  /** Makes [start, start + length) a hole. */
  clear(start: number, length: number): void {
    const end = start + length;
    for (let c = this.#chunkFor(start); c < this.#chunks.length;) {
      const chunk = this.#chunks[c]!;
      if (chunk.count === 0 || chunk.runs[START]! >= end) return;
      const from = firstEndingAfter(chunk, start);
      if (from === chunk.count) {
        c++;
        continue;
      }
      const at = from * WIDTH;
      const runStart = chunk.runs[at]!;
      const runEnd = runStart + chunk.runs[at + LENGTH]!;
      if (runStart >= end) return;
      if (runStart < start) {
        this.#cutInside(c, from, start, end, runEnd);
        if (runEnd > end) return;
        continue;
      }
      if (runEnd > end) return this.#cutFront(c, at, end - runStart);
      this.#removeRuns(c, from, firstEndingAfter(chunk, end));
    }
  }

  /** Makes everything from `size` on a hole. */
  truncate(size: number): void {
    this.clear(size, Infinity);
  }

  /** Allocates zeros where [start, start + length) is a hole. */
  fillGaps(start: number, length: number): void {
    const gaps: number[] = [];
    let at = start;
    this.visit(start, start + length, (runStart, runLength) => {
      if (runStart > at) gaps.push(at, runStart);
      at = runStart + runLength;
    });
    if (at < start + length) gaps.push(at, start + length);
    for (let i = 0; i < gaps.length; i += 2) this.set(gaps[i]!, gaps[i + 1]! - gaps[i]!, 0, ZEROS);
  }

  /** Visits the runs that touch [start, end), cut to it, in order; gaps are not visited. */
  visit(start: number, end: number, visitor: RunVisitor): void {
    for (let c = this.#chunkFor(start); c < this.#chunks.length; c++) {
      const chunk = this.#chunks[c]!;
      for (let i = firstEndingAfter(chunk, start); i < chunk.count; i++) {
        const at = i * WIDTH;
        const runStart = chunk.runs[at]!;
        if (runStart >= end) return;
        const cut = Math.max(0, start - runStart);
        const length = Math.min(runStart + chunk.runs[at + LENGTH]!, end) - runStart - cut;
        const source = chunk.runs[at + SOURCE]!;
        const more = visitor(
          runStart + cut,
          length,
          shiftPlace(chunk.runs[at + PLACE]!, source, cut),
          shiftSource(source, cut),
        );
        if (more === false) return;
      }
    }
  }

  /**
   * Whether the new run continues the one at `at`, which then grows: its bytes follow in the same payload, lower file or zeros.
   * A payload that is still in memory grows with it, so the new run's idea of its size is the right one.
   */
  #join(runs: Float64Array, at: number, start: number, length: number, place: number, source: number): boolean {
    const runLength = runs[at + LENGTH]!;
    const before = runs[at + SOURCE]!;
    if (runs[at]! + runLength !== start) return false;
    if (source !== ZEROS && runs[at + PLACE]! + runLength !== place) return false;
    if (isLog(source)) {
      if (!isLog(before) || deltaOf(before) + runLength !== deltaOf(source)) return false;
      this.#count(runs, at, -1);
      runs[at + SOURCE] = logSource(deltaOf(before), payloadBytesOf(source));
      runs[at + LENGTH] = runLength + length;
      this.#count(runs, at, 1);
    } else if (source !== before) {
      return false;
    }
    runs[at + LENGTH] = runLength + length;
    this.allocated += length;
    return true;
  }

  /** Whether there was a run of exactly this range, which now has the new place: what databases do most. */
  #replace(start: number, length: number, place: number, source: number): boolean {
    const c = this.#chunkFor(start);
    const i = firstEndingAfter(this.#chunks[c]!, start);
    if (i === this.#chunks[c]!.count) return false;
    const at = i * WIDTH;
    const { runs } = this.#chunks[c]!;
    if (runs[at] !== start || runs[at + LENGTH] !== length) return false;
    const chunk = this.#own(c);
    this.#count(chunk.runs, at, -1);
    chunk.runs[at + PLACE] = place;
    chunk.runs[at + SOURCE] = source;
    this.#count(chunk.runs, at, 1);
    return true;
  }

  #push(start: number, length: number, place: number, source: number): void {
    if (this.#chunks[this.#chunks.length - 1]!.count === CHUNK_RUNS) this.#chunks.push(newChunk(CHUNK_RUNS));
    const chunk = this.#own(this.#chunks.length - 1);
    grow(chunk);
    putRun(chunk, chunk.count++, start, length, place, source);
    this.#live.count(length, place, source, 1);
    this.allocated += length;
  }

  /** Inserts into a range that is a hole. */
  #insert(start: number, length: number, place: number, source: number): void {
    let c = this.#chunkFor(start);
    if (this.#chunks[c]!.count === CHUNK_RUNS) {
      this.#split(c);
      c = this.#chunkFor(start);
    }
    const chunk = this.#own(c);
    const i = firstEndingAfter(chunk, start);
    if (i > 0 && this.#join(chunk.runs, (i - 1) * WIDTH, start, length, place, source)) return;
    grow(chunk);
    chunk.runs.copyWithin((i + 1) * WIDTH, i * WIDTH, chunk.count * WIDTH);
    putRun(chunk, i, start, length, place, source);
    this.#live.count(length, place, source, 1);
    chunk.count++;
    this.allocated += length;
  }

  #split(c: number): void {
    const chunk = this.#own(c);
    const half = chunk.count >> 1;
    const upper = newChunk(CHUNK_RUNS);
    upper.runs.set(chunk.runs.subarray(half * WIDTH, chunk.count * WIDTH));
    upper.count = chunk.count - half;
    this.#chunks.splice(c + 1, 0, upper);
    chunk.count = half;
  }

  /** A run that starts before `start` keeps its front; what of it lies behind `end` becomes a run of its own. */
  #cutInside(c: number, i: number, start: number, end: number, runEnd: number): void {
    const chunk = this.#own(c);
    const at = i * WIDTH;
    const runStart = chunk.runs[at]!;
    const source = chunk.runs[at + SOURCE]!;
    const place = chunk.runs[at + PLACE]!;
    this.#count(chunk.runs, at, -1);
    chunk.runs[at + LENGTH] = start - runStart;
    this.#count(chunk.runs, at, 1);
    this.allocated -= runEnd - start;
    if (runEnd <= end) return;
    const cut = end - runStart;
    this.#insert(end, runEnd - end, shiftPlace(place, source, cut), shiftSource(source, cut));
  }

  #cutFront(c: number, at: number, cut: number): void {
    const chunk = this.#own(c);
    const source = chunk.runs[at + SOURCE]!;
    this.#count(chunk.runs, at, -1);
    chunk.runs[at] = chunk.runs[at]! + cut;
    chunk.runs[at + LENGTH] = chunk.runs[at + LENGTH]! - cut;
    chunk.runs[at + PLACE] = shiftPlace(chunk.runs[at + PLACE]!, source, cut);
    chunk.runs[at + SOURCE] = shiftSource(source, cut);
    this.#count(chunk.runs, at, 1);
    this.allocated -= cut;
  }

  #count(runs: Float64Array, at: number, sign: 1 | -1): void {
    this.#live.count(runs[at + LENGTH]!, runs[at + PLACE]!, runs[at + SOURCE]!, sign);
  }

  /** Removes runs [from, to) of a chunk, and the chunk when it becomes empty. `to` may point at a run that only ends later. */
  #removeRuns(c: number, from: number, to: number): void {
    const chunk = this.#own(c);
    for (let i = from; i < to; i++) {
      this.#count(chunk.runs, i * WIDTH, -1);
      this.allocated -= chunk.runs[i * WIDTH + LENGTH]!;
    }
    chunk.runs.copyWithin(from * WIDTH, to * WIDTH, chunk.count * WIDTH);
    chunk.count -= to - from;
    if (chunk.count === 0 && this.#chunks.length > 1) this.#chunks.splice(c, 1);
  }

  /** A chunk that may be changed. */
  #own(c: number): Chunk {
    const chunk = this.#chunks[c]!;
    if (!chunk.isShared) return chunk;
    return (this.#chunks[c] = { runs: chunk.runs.slice(), count: chunk.count, isShared: false });
  }

  /** The last chunk that starts at or before `start`. */
  #chunkFor(start: number): number {
    let low = 0;
    let high = this.#chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.#chunks[middle]!.runs[START]! <= start) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

const lastEnd = (chunk: Chunk): number =>
  chunk.runs[(chunk.count - 1) * WIDTH]! + chunk.runs[(chunk.count - 1) * WIDTH + LENGTH]!;

function putRun(chunk: Chunk, i: number, start: number, length: number, place: number, source: number): void {
  const at = i * WIDTH;
  chunk.runs[at] = start;
  chunk.runs[at + LENGTH] = length;
  chunk.runs[at + PLACE] = place;
  chunk.runs[at + SOURCE] = source;
}

function grow(chunk: Chunk): void {
  if (chunk.count * WIDTH < chunk.runs.length) return;
  const larger = new Float64Array(Math.min(CHUNK_RUNS * WIDTH, chunk.runs.length * 4));
  larger.set(chunk.runs);
  chunk.runs = larger;
}

/** Index of the first run that ends behind `offset`; `count` if none does. */
function firstEndingAfter(chunk: Chunk, offset: number): number {
  let low = 0;
  let high = chunk.count;
  while (low < high) {
    const middle = (low + high) >> 1;
    const at = middle * WIDTH;
    if (chunk.runs[at]! + chunk.runs[at + LENGTH]! > offset) high = middle;
    else low = middle + 1;
  }
  return low;
}

const shiftPlace = (place: number, source: number, by: number): number => (source === ZEROS ? 0 : place + by);
const shiftSource = (source: number, by: number): number => (isLog(source) ? source + by * PAYLOAD_LIMIT : source);
