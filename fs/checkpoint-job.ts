import type { CheckpointStep } from './checkpoint-sink.ts';
import type { NamedCheckpoint } from './log/checkpoint-entry.ts';
import type { SyncRing } from './sync-ring.ts';
import type { OnlineCheckpoint, View } from './view/view.ts';

/** How long the end of a mount waits for a checkpoint that is being written; without it the next mount replays more. */
const END_MS = 5000;

/**
 * A checkpoint of a mount that is being served: the serving thread writes down the state, a little at a time, and the controller writes the file.
 */
export class CheckpointJob {
  readonly #view: View;
  readonly #ring: SyncRing;
  readonly #hand: (step: CheckpointStep, transfer: ArrayBuffer[]) => void;
  #walking: OnlineCheckpoint | undefined;
  #isWriting = false;
  /** Who waits for this one, and who came when it had begun. */
  #waiting: ((error: Error | null) => void)[] = [];
  #next: ((error: Error | null) => void)[] = [];

  constructor(view: View, ring: SyncRing, hand: (step: CheckpointStep, transfer: ArrayBuffer[]) => void) {
    this.#view = view;
    this.#ring = ring;
    this.#hand = hand;
  }

  /** Whether one is under way. */
  get isActive(): boolean {
    return this.#walking !== undefined || this.#isWriting;
  }

  /** Whether the serving thread has something to do for it. */
  get hasWork(): boolean {
    return this.#walking !== undefined;
  }

  /** Begins one unless one is under way; `done` is called when one that began now or later is installed, or failed. */
  begin(done?: (error: Error | null) => void): void {
    if (this.isActive) {
      if (done !== undefined) this.#next.push(done);
      return;
    }
    if (done !== undefined) this.#waiting.push(done);
    try {
      this.#walking = this.#view.beginCheckpoint();
    } catch (error) {
      this.#settle(error as Error);
      return;
    }
    if (this.#walking === undefined) this.#settle(null);
    else this.#ring.sinkBusy = true;
  }

  /** Goes on for about so long. */
  step(budgetMs: number): void {
    const walking = this.#walking;
    if (walking === undefined) return;
    const isDone = walking.step(budgetMs);
    for (const bytes of walking.take()) this.#hand({ step: 'piece', bytes }, [bytes.buffer]);
    if (!isDone) return;
    this.#walking = undefined;
    this.#isWriting = true;
    this.#hand({ step: 'end', mark: walking.mark, rotates: walking.rotates }, []);
  }

  /** The controller has installed it, or could not. */
  ended(result: NamedCheckpoint | Error | null): void {
    this.#isWriting = false;
    let error = result instanceof Error ? result : null;
    try {
      this.#view.checkpointEnded(result instanceof Error ? null : result);
    } catch (thrown) {
      error = thrown as Error;
    }
    this.#settle(error);
    if (this.#next.length === 0) return;
    for (const done of this.#next.splice(0)) this.begin(done);
  }

  /** The mount ends. Whether the controller lets go of the files, so that they can be written here. */
  abandon(): boolean {
    if (this.#walking !== undefined) {
      this.#walking.stop();
      this.#walking = undefined;
      this.#hand({ step: 'abandon' }, []);
    }
    return this.#ring.awaitSink(END_MS);
  }

  #settle(error: Error | null): void {
    for (const done of this.#waiting.splice(0)) done(error);
  }
}
