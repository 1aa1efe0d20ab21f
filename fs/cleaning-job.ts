import { SECTOR_BYTES } from '../mdm/merkle.ts';
import type { CheckpointJob } from './checkpoint-job.ts';
import type { Log } from './log/log.ts';
import type { SyncRing } from './sync-ring.ts';
import type { Cleaner } from './view/cleaner.ts';
import type { CleaningReport } from './view/view.ts';

/** From this part of the space that a log should take at most, it is hashed though requests come. */
const HASH_PRESSURE = 0.6;

/**
 * Cleaning of a mount that is being served, in phases: the serving thread moves what is needed, a little at a time; two checkpoints, so that nothing before the
 * moves is needed to replay; the syncer hashes what it has not hashed yet; the controller gives the sectors back.
 */
export class CleaningJob {
  readonly #cleaner: Cleaner;
  readonly #log: Log;
  readonly #checkpoints: CheckpointJob;
  readonly #ring: SyncRing;
  readonly #giveBack: (sectors: number[]) => void;
  #phase: 'idle' | 'moving' | 'checkpoints' | 'hashing' | 'giving back' = 'idle';
  #giving = 0;
  #waiting: ((result: CleaningReport | Error) => void)[] = [];
  /** Who came when a run had begun: they get another one. */
  readonly #next: ((result: CleaningReport | Error) => void)[] = [];

  constructor(
    cleaner: Cleaner,
    log: Log,
    checkpoints: CheckpointJob,
    ring: SyncRing,
    giveBack: (sectors: number[]) => void,
  ) {
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

  /** Whether the log takes much more than it should: writers then have to wait for it, a little and often. */
  get isUrgent(): boolean {
    return this.#phase === 'moving' && this.#cleaner.pressure > 1;
  }

  /** Begins a run if one pays, and looks whether one that waits can go on. */
  tick(checkpointBytes: number): void {
    // What will be given back must be hashed: not only when it is time.
    if (this.#phase === 'idle' && this.#cleaner.pressure > HASH_PRESSURE) this.#wantHashed(this.#log.durable);
    if (this.#phase === 'hashing') this.#afterHashing();
    else if (this.#phase === 'idle' && this.#log.failure === undefined && this.#cleaner.isDue(checkpointBytes))
      this.begin();
  }

  /** Begins a run, after the one that is under way; `done` is called when it is over. */
  begin(done?: (result: CleaningReport | Error) => void): void {
    if (this.#phase !== 'idle') {
      if (done !== undefined) this.#next.push(done);
      return;
    }
    if (done !== undefined) this.#waiting.push(done);
    this.#cleaner.begin();
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

  #checkpoint(count: number): void {
    this.#checkpoints.begin((error) => {
      if (error !== null) this.#end(error);
      else if (count > 1) this.#checkpoint(count - 1);
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
    const result = error ?? { ...this.#cleaner.finish(), givenBackBytes };
    if (error !== null) this.#cleaner.finish();
    for (const done of this.#waiting.splice(0)) done(result);
    for (const done of this.#next.splice(0)) this.begin(done);
  }
}
