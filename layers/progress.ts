/**
 * Where the slow work of this floor tells how far it is. The caller (the CLI) draws bars, or nothing at all.
 *
 * A task has an id, unique while it runs (a blob's digest, say). `advance` counts on from what was told before.
 */
export interface ProgressSink {
  /** All tasks together will have so many bytes; those that are passed over count as done. */
  total?(bytes: number): void;
  /** A task begins. `label` is for people; `totalBytes` is what `advance` will add up to, when it is known. */
  start(id: string, label: string, totalBytes?: number): void;
  /** `bytes` more of task `id` are done. */
  advance(id: string, bytes: number): void;
  /** Task `id` is over; `note` says in a word or two how ("already here"). */
  done(id: string, note?: string): void;
}
