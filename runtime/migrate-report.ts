import type { PgError } from '../mdm/error.ts';
import type { ProgressSink } from '../layers/progress.ts';
import type { Roots } from '../store/paths.ts';
import type { LogEnd } from './migrate-log.ts';

/** What `moveOut` is asked to do. */
export interface MoveOptions {
  roots: Roots;
  /** Name or id of the container. */
  container: string;
  /** Name of the peer. */
  peer: string;
  /** Seconds that its process has to end before it is killed; null is what the container was created with. */
  stopTimeoutSec: number | null;
  progress: ProgressSink;
  /** Aborting before the hand-over undoes the move. */
  signal: AbortSignal;
  /** A line about what is going on. */
  say(line: string): void;
}

/** What a move would ship (`planMove`). */
export interface MovePlan {
  container: string;
  peer: string;
  running: boolean;
  sectors: number;
  contents: number;
  nodes: number;
  imageBytes: number;
  /** Bytes of the log that the peer lacks, and of the log. */
  logBytes: number;
  logSize: number;
  notes: string[];
}

/** What a move did. */
export interface MoveReport {
  container: string;
  peer: string;
  epoch: number;
  position: LogEnd;
  /** Everything sent, and received, by this side. */
  wireBytes: number;
  logBytes: number;
  sectors: number;
  rounds: number;
  /** From stopping it here to its running there; null when it did not run. */
  downtimeMs: number | null;
  /** What that time went to, in order: stopped, rooted, tail, sealed, handed over, started. Empty when it did not run. */
  downPhases: { name: string; ms: number }[];
  /** It runs there; or why not. */
  running: boolean;
  startError: PgError | null;
  notes: string[];
}
