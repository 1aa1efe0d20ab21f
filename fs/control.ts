import type { PgErrorData } from '../mdm/error.ts';
import type { Budget } from '../mdm/meter.ts';
import type { Roots } from '../store/paths.ts';
import type { CheckpointStep } from './checkpoint-sink.ts';
import type { NamedCheckpoint } from './log/checkpoint-entry.ts';
import type { NamespaceClaim } from './log/claim.ts';
import type { FsChange, FsStats } from './mount.ts';
import type { Stale } from './view/merge.ts';
import type { CleaningReport } from './view/view.ts';

/** What the thread that serves a mount is told first. */
export interface MountWorkerData {
  roots: Roots;
  treeRoot: Uint8Array | null;
  logDir: string | null;
  readOnly: boolean;
  /** What of the log counts, when it is read-only. */
  limit: number | null;
  writeback: boolean;
  /** The mounted FUSE device; the controller closes it when the thread has ended. */
  deviceFd: number;
  ring: SharedArrayBuffer;
  budget: Budget | null;
}

/** What the controller may ask of the serving thread, and what each verb answers. */
export interface Verbs {
  /** Writes everything and has it made durable; where that will be. */
  commit: { epoch: number; size: number };
  epoch: number;
  stats: FsStats;
  checkpoint: null;
  changes: FsChange[];
  /** Cleans the log; answered when that is done. */
  clean: CleaningReport;
  /** Tells that sectors were given back, or why not. */
  givenBack: null;
  /** Tells what has become of a checkpoint that was handed over. */
  checkpointed: null;
  budget: null;
  /** Appends a claim about the files; where the log ends then. */
  namespace: { epoch: number; size: number };
  /** Does what a clone has done; what the kernel does not know of then. */
  merge: Stale;
}

/** Of the verb `merge`: see `View.merge`. */
export interface CloneData {
  dir: string;
  from: number;
  firstIno: number;
}

export interface ControlRequest {
  id: number;
  verb: keyof Verbs;
  /** Of the verb `namespace`. */
  claim?: NamespaceClaim;
  clone?: CloneData;
  /** Of the verb `checkpointed`: what was installed, or why nothing was (null: it was abandoned). */
  checkpoint?: NamedCheckpoint | PgErrorData | null;
  /** Of the verb `givenBack`. */
  failure?: PgErrorData | null;
  /** Of the verb `budget`. */
  budget?: Budget | null;
}

/** What the serving thread posts: that it serves, answers, something to tell the user, its end. */
export type ControlMessage =
  | { kind: 'serving' }
  | { kind: 'answer'; id: number; value: Verbs[keyof Verbs] }
  | { kind: 'failure'; id: number; error: PgErrorData }
  | { kind: 'report'; message: string }
  | { kind: 'checkpoint'; step: CheckpointStep }
  | { kind: 'giveBack'; sectors: number[] }
  | { kind: 'damage'; message: string }
  | { kind: 'ended'; error: PgErrorData | null };

/** What the syncer posts: the root of all that is durable, when it was asked for; that the log does not have a root that was recorded of it. */
export type RootMessage =
  | { kind: 'root'; size: number; root: Uint8Array }
  | { kind: 'noRoot'; error: PgErrorData }
  | { kind: 'damage'; message: string };
