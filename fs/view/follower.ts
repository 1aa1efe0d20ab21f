import type { Tree } from '../../layers/tree.ts';
import { PgError } from '../../mdm/error.ts';
import { isDiskFull } from '../log/disk.ts';
import { LogFollower } from '../log/follow.ts';
import { apply } from './apply.ts';
import { restoreState } from './checkpoint.ts';
import { FieldReader } from './entries.ts';
import { PastStates } from './past.ts';
import { State } from './state.ts';
import { serializeState } from './state-walk.ts';

/** With less than this behind its checkpoint a log is replayed in no time. */
const CHECKPOINT_BYTES = 1 << 20;

/**
 * The files that a growing copy of a log means, kept up with it while its owner still runs the container: every entry is replayed here before
 * the owner lets go, and a checkpoint written here saves the next mount from doing it again.
 */
export class Follower {
  readonly #log: LogFollower;
  readonly #state: State;
  readonly #fields = new FieldReader();
  readonly #dir: string;

  /** Of the copy in `dir` of a log over this image tree, whose root is `base`. Errors as `LogFollower`. */
  constructor(dir: string, tree: Tree, base: Uint8Array | undefined) {
    this.#dir = dir;
    this.#log = new LogFollower(dir, base);
    this.#state = new State(tree);
    if (this.#log.checkpoint !== undefined) restoreState(this.#state, this.#log.checkpoint.payload);
    this.#log.checkpoint = undefined;
  }

  /** Replays up to `size` (a durable commit's end). PgError LOG_CORRUPT for an entry that makes no sense where it is. */
  follow(size: number): void {
    const past = new PastStates(this.#state.tree, this.#dir, size);
    this.#state.past = (before) => past.at(before);
    this.#log.advance(size, (entry) => {
      try {
        apply(this.#state, entry, this.#fields);
      } catch (error) {
        const where = `the entry at byte ${entry.at} of ${this.#dir}/log`;
        throw new PgError('LOG_CORRUPT', `${where} does not fit what is before it`, { cause: error });
      }
    });
  }

  /** Writes a checkpoint of what has been replayed, if it would save a mount some time. A full disk leaves the old one. */
  checkpoint(): void {
    if (this.#log.sinceCheckpoint < CHECKPOINT_BYTES) return;
    try {
      this.#log.writeCheckpoint(serializeState(this.#state));
    } catch (error) {
      if (!isDiskFull(error)) throw error;
    }
  }

  close(): void {
    this.#log.close();
  }
}
