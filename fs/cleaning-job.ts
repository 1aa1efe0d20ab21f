import { SECTOR_BYTES } from '../mdm/merkle.ts';
import type { CheckpointJob } from './checkpoint-job.ts';
import { isDiskFull } from './log/disk.ts';
import type { Log } from './log/log.ts';
import type { SyncRing } from './sync-ring.ts';
import type { Cleaner } from './view/cleaner.ts';
import type { CleaningReport, View } from './view/view.ts';

/** From this part of the space that a log should take at most, it is hashed though requests come. */
const HASH_PRESSURE = 0.5;
/**
 * From so much of it on, while something is being given back, a writer is slowed down: by so long for each MiB and each time that space again. What is written is
 * hashed before it can be given back, and whoever writes faster than that would fill the disk.
 */
const SLOW_PRESSURE = 1.25;
const SLOW_MS_PER_MIB = 16;
/** The debt is paid when it is worth a sleep, at most so much at once. */
const LEAST_PAUSE_MS = 2;
const MOST_PAUSE_MS = 10;
/** How long a run may take for which an operation waits, in slices of this; and how long none is tried after one that gave nothing back. */
const NOW_MS = 20_000;
const NOW_SLICE_MS = 50;
const IN_VAIN_MS = 5_000;
const NEVER = new Int32Array(new SharedArrayBuffer(4));

/**
 * Cleaning of a mount that is being served, in phases: the serving thread moves what is needed, a little at a time; two checkpoints, so that nothing before the
 * moves is needed to replay; the syncer hashes what it has not hashed yet; the controller gives the sectors back.
 */
export class CleaningJob {
  readonly #view: View;
  readonly #cleaner: Cleaner;
  readonly #log: Log;
  readonly #checkpoints: CheckpointJob;
  readonly #ring: SyncRing;
  readonly #giveBack: (sectors: number[]) => void;
  #phase: 'idle' | 'moving' | 'checkpoints' | 'hashing' | 'giving back' = 'idle';
  #giving = 0;
  #nothingUntil = 0;
  /** How long writers are still to be made to wait, and what they had written when that was reckoned. */
  #debtMs = 0;
  #writtenThen = 0;
  #waiting: ((result: CleaningReport | Error) => void)[] = [];
  /** Who came when a run had begun: they get another one. */
  readonly #next: ((result: CleaningReport | Error) => void)[] = [];

  constructor(
    view: View,
    cleaner: Cleaner,
    log: Log,
    checkpoints: CheckpointJob,
    ring: SyncRing,
    giveBack: (sectors: number[]) => void,
  ) {
    this.#view = view;
    this.#cleaner = cleaner;
    this.#log = log;
    this.#checkpoints = checkpoints;
    this.#ring = ring;
    this.#giveBack = giveBack;
  }

  /** Whether the serving thread has something to do for it. */
  get hasWork(): boolean {
    return this.#phase === 'moving';
  }

  /** Whether a run is under way. */
  get isActive(): boolean {
    return this.#phase !== 'idle';
  }

  /** Whether the log takes much more than it should: writers then have to wait for it, a little and often. */
  get isUrgent(): boolean {
    return this.#phase === 'moving' && this.#cleaner.pressure > 1;
  }

  /** How long whoever writes is to wait now, `bytesWritten` having been written so far: 0 mostly. */
  pauseMs(bytesWritten: number): number {
    const bytes = bytesWritten - this.#writtenThen;
    this.#writtenThen = bytesWritten;
    if (bytes === 0) return 0;
    const excess = this.#phase === 'idle' ? 0 : this.#cleaner.pressure - SLOW_PRESSURE;
    if (excess <= 0) return (this.#debtMs = 0);
    this.#debtMs += (bytes / (1 << 20)) * excess * SLOW_MS_PER_MIB;
    if (this.#debtMs < LEAST_PAUSE_MS) return 0;
    const pause = Math.min(this.#debtMs, MOST_PAUSE_MS);
    this.#debtMs = 0;
    return pause;
  }

  /** Begins a run if one pays, and looks whether one that waits can go on. */
  tick(): void {
    // What will be given back must be hashed: not only when it is time.
    if (this.#phase === 'idle' && this.#cleaner.pressure > HASH_PRESSURE) this.#wantHashed(this.#log.durable);
    if (this.#phase === 'hashing') this.#afterHashing();
    else if (this.#phase === 'idle' && this.#log.failure === undefined && this.#isDue()) this.begin();
  }

  #isDue(): boolean {
    return this.#cleaner.isDue(this.#view.checkpointBytes, this.#view.freeBytes());
  }

  /** Begins a run, after the one that is under way; `done` is called when it is over. */
  begin(done?: (result: CleaningReport | Error) => void): void {
    if (this.#phase !== 'idle') {
      if (done !== undefined) this.#next.push(done);
      return;
    }
    if (done !== undefined) this.#waiting.push(done);
    this.#cleaner.begin(this.#view.freeBytes());
    this.#phase = 'moving';
  }

  /** Moves on for about so long. */
  step(budgetMs: number): void {
    if (this.#phase !== 'moving') return;
    try {
      if (!this.#cleaner.step(budgetMs)) return;
    } catch (error) {
      this.#end(error as Error);
      return;
    }
    this.#phase = 'checkpoints';
    this.#checkpoint(2);
  }

  /**
   * A run at once, while nobody is served, because there is no space for what removes something. `hear` takes what the other threads have done. Whether there is
   * more space now: sectors that were given back, or smaller checkpoints.
   */
  runNow(hear: () => void): boolean {
    if (performance.now() < this.#nothingUntil) return false;
    const end = performance.now() + NOW_MS;
    const free = this.#view.freeBytes();
    const results: (CleaningReport | Error)[] = [];
    this.begin((result) => void results.push(result));
    while (results.length === 0 && performance.now() < end) {
      if (this.#checkpoints.hasWork) this.#checkpoints.step(NOW_SLICE_MS);
      else if (this.hasWork) this.step(NOW_SLICE_MS);
      else Atomics.wait(NEVER, 0, 0, 1);
      hear();
      this.tick();
    }
    // Else every name of a tree that is removed would wait in vain.
    if (this.#view.freeBytes() > free) return true;
    this.#nothingUntil = performance.now() + IN_VAIN_MS;
    return false;
  }

  #checkpoint(count: number): void {
    this.#checkpoints.begin((error) => {
      // With no space for another checkpoint there may be sectors that those before do not need.
      if (error !== null && !isDiskFull(error)) this.#end(error);
      else if (error === null && count > 1) this.#checkpoint(count - 1);
      else {
        this.#phase = 'hashing';
        this.#wantHashed(this.#log.reclaimer.horizon());
        this.#afterHashing();
      }
    });
  }

  #wantHashed(size: number): void {
    this.#ring.wantedHash = Math.floor(size / SECTOR_BYTES) * SECTOR_BYTES;
  }

  #afterHashing(): void {
    if (this.#ring.failed || this.#ring.damaged) return this.#end(null);
    if (this.#ring.hashedSize < this.#ring.wantedHash) return;
    const sectors = this.#cleaner.candidates();
    this.#giving = sectors.length;
    this.#phase = 'giving back';
    if (sectors.length === 0) this.#end(null);
    else this.#giveBack(sectors);
  }

  /** The controller has given them back, or could not. */
  givenBack(error: Error | null): void {
    this.#log.reclaimer.refresh();
    this.#end(error);
  }

  #end(error: Error | null): void {
    const givenBackBytes = this.#phase === 'giving back' && error === null ? this.#giving * SECTOR_BYTES : 0;
    this.#phase = 'idle';
    const cleaned = this.#cleaner.finish(givenBackBytes / SECTOR_BYTES);
    const result = error ?? { ...cleaned, givenBackBytes };
    for (const done of this.#waiting.splice(0)) done(result);
    for (const done of this.#next.splice(0)) this.begin(done);
    // With what came back more may be had, though nobody asks for anything.
    if (givenBackBytes > 0) this.tick();
  }
}
