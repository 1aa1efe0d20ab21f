import type { CheckpointStep } from './checkpoint-sink.ts';
import { keepRoom } from './log/checkpoint-room.ts';
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
  /** Directory of the log; null where nothing is written. */
  readonly #dir: string | null;
  readonly #hand: (step: CheckpointStep, transfer: ArrayBuffer[]) => void;
  #walking: OnlineCheckpoint | undefined;
  #isWriting = false;
  /** Space of the disk that is kept for the next one, as far as it was to be had. */
  #room = 0;
  /** Of a disk that is full: less is tried again only when it must be more than this. */
  #roomWanted = 0;
  /** Who waits for this one, and who came when it had begun. */
  #waiting: ((error: Error | null) => void)[] = [];
  #next: ((error: Error | null) => void)[] = [];

  constructor(
    view: View,
    ring: SyncRing,
    dir: string | null,
    hand: (step: CheckpointStep, transfer: ArrayBuffer[]) => void,
  ) {
    this.#view = view;
    this.#dir = dir;
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

  /** Looks whether one is due, and keeps space for it. Now and then. */
  tick(): void {
    if (this.isActive) return;
    this.#keepRoom();
    if (this.#view.checkpointDue()) this.begin();
  }

  #keepRoom(): void {
    const bytes = this.#view.nextCheckpointBytes;
    if (this.#dir === null || bytes <= Math.max(this.#room, this.#roomWanted)) return;
    this.#room = keepRoom(this.#dir, bytes);
    this.#roomWanted = bytes;
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
      // At once: the next one may follow, and what the one that went took is free now.
      this.#room = this.#roomWanted = 0;
      this.#keepRoom();
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
