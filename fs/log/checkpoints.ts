import { join } from 'node:path';
import { isMarkOf, makeMark } from './recover.ts';
import { CHECKPOINT_MAGIC, type Mark, readMark, writeMark } from './sidecar.ts';

/** The checkpoints of a log (docs/formats/checkpoint.md): states that replay can start from. */
export class Checkpoints {
  readonly #dir: string;
  readonly #fd: number;
  readonly #salt: number;

  /** Of the log in `dir`, open as `fd`. */
  constructor(dir: string, fd: number, salt: number) {
    this.#dir = dir;
    this.#fd = fd;
    this.#salt = salt;
  }

  /** The checkpoint to start from, of a size up to `limit`; undefined when there is none that is whole and of this log. PgError LOG_VERSION. */
  trusted(limit: number): Mark | undefined {
    const mark = readMark(join(this.#dir, 'checkpoint'), CHECKPOINT_MAGIC, this.#salt);
    return mark !== undefined && mark.size <= limit && isMarkOf(this.#fd, mark) ? mark : undefined;
  }

  /** Writes the state at `size`, where the commit of this number ends and everything is durable. Durable on return; throws as `node:fs` does (ENOSPC). */
  write(size: number, sequence: number, pieces: readonly Uint8Array[]): void {
    const mark = makeMark(this.#fd, this.#salt, size, sequence);
    writeMark(join(this.#dir, 'checkpoint'), CHECKPOINT_MAGIC, mark, pieces);
  }
}
