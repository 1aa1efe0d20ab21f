import type { PgErrorData } from '../mdm/error.ts';
import type { Budget } from '../mdm/meter.ts';
import type { Roots } from '../store/paths.ts';
import type { Agreement } from './fuse/session.ts';
import type { FsChange, FsStats } from './mount.ts';
import type { Stale } from './view/merge.ts';
import type { CleaningReport } from './view/view.ts';

/**
 * What the holder of a mount (`mount-holder.ts`) and the process that serves it (`mount-process.ts`) say to each other: JSON, a message a line, over a socket. Bytes
 * are hex. A holder may be older than the server that it starts (`Mount.replaceServer`): a change that one of the two would not understand raises PROTOCOL.
 */
export const PROTOCOL = 2;

/** Descriptors that the server inherits: the socket, the FUSE device, the memory of the log's buffer (of a writable mount). */
export const CONTROL_FD = 3;
export const DEVICE_FD = 4;
export const MEMORY_FD = 5;

/** What the server is told first. */
export interface MountOrder {
  roots: Roots;
  treeRoot: string | null;
  logDir: string | null;
  readOnly: boolean;
  /** What of the log counts, when it is read-only. */
  limit: number | null;
  writeback: boolean;
  label: string;
  budget: Budget | null;
  /** Not null when another server has served the mount before: what it agreed on with the kernel. */
  agreement: Agreement | null;
}

/** What the holder may ask of the server, and what each verb answers. */
export interface Verbs {
  /** Writes everything and has it made durable and hashed: where that is. */
  commit: PositionData;
  position: PositionData;
  stats: Omit<FsStats, 'serverPid' | 'restarts'>;
  checkpoint: null;
  changes: FsChange[];
  /** Cleans the log; answered when that is done. */
  clean: CleaningReport;
  budget: null;
  /** Appends a claim about the files; where the log ends then, and the root there unless more was written meanwhile. */
  namespace: { size: number; root: string | null };
  /** Does what a clone has done; what the kernel does not know of then. */
  merge: Stale;
}

/** Of the verb `merge`: see `View.merge`. */
export interface CloneData {
  dir: string;
  from: number;
  firstIno: number;
}

export interface PositionData {
  epoch: number;
  size: number;
  root: string;
}

/** A NamespaceClaim. */
export interface ClaimData {
  size: number;
  epoch: number;
  root: string;
  label: string;
}

export interface ControlRequest {
  id: number;
  verb: keyof Verbs;
  /** Of the verb `namespace`. */
  claim?: ClaimData;
  clone?: CloneData;
  /** Of the verb `budget`. */
  budget?: Budget | null;
}

/** What the holder sends: the order, requests, what the kernel said, and the end of service: of the mount or of this process. */
export type ToServer =
  | { kind: 'mount'; order: MountOrder }
  | { kind: 'ask'; request: ControlRequest }
  | { kind: 'writtenBack'; seek: number }
  | { kind: 'gone'; inos: number[] }
  | { kind: 'stop' };

/** What the server sends: that its code is loaded, that it serves, answers, something to tell the user or to ask of the kernel, its end. */
export type ToHolder =
  | { kind: 'ready'; protocol: number }
  | { kind: 'serving' }
  | { kind: 'agreed'; agreement: Agreement }
  | { kind: 'answer'; id: number; value: Verbs[keyof Verbs] }
  | { kind: 'failure'; id: number; error: PgErrorData }
  | { kind: 'report'; message: string }
  | { kind: 'damage'; message: string }
  /** The dirty pages of this inode are wanted here. */
  | { kind: 'writeBack'; seek: number; ino: number }
  /** Which of these inodes does the kernel still hold? */
  | { kind: 'inUse'; inos: number[] }
  | { kind: 'ended'; error: PgErrorData | null };

/** What the syncer posts: the root of all that is durable, when it was asked for; that the log does not have a root that was recorded of it. */
export type RootMessage =
  | { kind: 'root'; size: number; root: Uint8Array }
  | { kind: 'noRoot'; error: PgErrorData }
  | { kind: 'damage'; message: string };
