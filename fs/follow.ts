import { Worker } from 'node:worker_threads';
import { fromErrorData, PgError, type PgErrorData } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { siblingModule } from '../store/threads.ts';

/** What the thread that follows a copy of a log is told first. */
export interface FollowWorkerData {
  roots: Roots;
  /** Root of the image's trie (null: the empty image); it must be in the store. */
  treeRoot: Uint8Array | null;
  /** Directory of the copy. */
  logDir: string;
}

/** Replay up to `size`, then write a checkpoint if that is worth while. */
export interface FollowRequest {
  size: number;
  checkpoint: boolean;
}

export interface FollowAnswer {
  error: PgErrorData | null;
}

/** A thread that replays a growing copy of a log (`fs/view/follower.ts`), away from the thread that receives it. */
export class FollowerThread {
  readonly #worker: Worker;
  readonly #waiting: { resolve(): void; reject(error: Error): void }[] = [];
  readonly #ended: Promise<void>;
  #failure: Error | undefined;

  constructor(data: FollowWorkerData) {
    this.#worker = new Worker(siblingModule(import.meta.url, './follow-worker'), {
      name: 'pg-follow',
      workerData: data,
    });
    this.#worker.on('message', ({ error }: FollowAnswer) => {
      const waiter = this.#waiting.shift();
      if (error === null) waiter?.resolve();
      else waiter?.reject(fromErrorData(error));
    });
    this.#worker.on('error', (error) => this.#fail(error));
    this.#ended = new Promise((resolve) =>
      this.#worker.on('exit', () => {
        this.#fail(new PgError('LOG_BUSY', `nothing follows the log in ${data.logDir} any more`));
        resolve();
      }),
    );
  }

  /**
   * Replays up to `size`, a commit's end that is durable; with `checkpoint`, a mount will not need to do that again. Calls are served in order.
   * PgError LOG_CORRUPT, LOG_BASE, LOG_VERSION: this copy cannot be mounted.
   */
  follow(size: number, checkpoint: boolean): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#worker.postMessage({ size, checkpoint } satisfies FollowRequest);
    });
  }

  /** Ends the thread once it has done what it was asked. */
  close(): Promise<void> {
    if (this.#failure === undefined) this.#worker.postMessage(null);
    return this.#ended;
  }

  /** Ends the thread at once. A checkpoint in the making comes to nothing. */
  async terminate(): Promise<void> {
    await this.#worker.terminate();
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}
