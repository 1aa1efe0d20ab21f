import type { Cost } from '../mdm/cost.ts';
import type { Budget } from '../mdm/meter.ts';
import type { Roots } from '../store/paths.ts';
import type { NamespaceClaim } from './log/claim.ts';
import type { ServerProgram } from './server-process.ts';
import type { CleaningReport } from './view/view.ts';

/** What to mount, where. */
export interface MountOptions {
  roots: Roots;
  /** Root of the image's trie; null is the empty image `scratch`. */
  treeRoot: Uint8Array | null;
  /** Directory of the writable layer's log (made when missing); null mounts the image alone, read-only. */
  logDir: string | null;
  /** Of a mount that is read-only: the files as they were when the log had so many bytes, a commit's end. */
  limit?: number;
  /** An existing directory, absolute. A dead mount found there is detached first. */
  mountPoint: string;
  /** Refuse changes (EROFS) though there is a log. */
  readOnly?: boolean;
  /** Do not honour setuid bits and file capabilities, or device nodes; a container's root needs both. */
  noSuid?: boolean;
  noDev?: boolean;
  /** What may be spent on I/O (`docs/metering.md`), counted from the log's beginning: EDQUOT when it is exhausted. */
  budget?: Budget | null;
  /** Shows as the source in /proc/mounts, and names the mount in messages: a container's or an image's name. */
  label: string;
  /** Keep written pages in the kernel and write them back in large pieces; the default is true. */
  writeback?: boolean;
  /** Takes what an errno cannot tell (a corrupt sector, a failing disk); the default writes it to stderr. */
  report?: (message: string) => void;
}

/** A durable point in the history of a writable layer; `root` is the Merkle root of the log's first `size` bytes. */
export interface Position {
  epoch: number;
  size: number;
  root: Uint8Array;
}

/** What a mount has done since it started. */
export interface FsStats {
  /** FUSE requests by operation name (`LOOKUP`, `WRITE`, ...), those never seen left out. */
  operations: Record<string, number>;
  bytesRead: number;
  bytesWritten: number;
  /** fdatasync calls, and the FSYNC-like requests that they answered together. */
  syncs: number;
  syncRequests: number;
  /** Whether there are entries that no fdatasync covers yet. */
  dirty: boolean;
  /** What everything done with the log, and with the image through it, has cost since the log was made; null without a log. */
  spent: Cost | null;
  /** Set once writing the log failed: the mount is read-only since then, and why. */
  failed: string | null;
  /** Inodes that the kernel refers to. */
  kernelInodes: number;
  /** Inodes held in memory, unlinked ones still in use, bytes of the log, and those a mount after a crash would replay. */
  inodes: number;
  orphans: number;
  logBytes: number;
  bytesSinceCheckpoint: number;
  /** The process that serves now, and how often another was put in its place; operations, bytes and syncs above are of it alone. */
  serverPid: number;
  restarts: number;
}

/** One path that differs from the image: as `docker diff` has it, A added, C changed, D deleted. `path` is latin1 bytes, absolute in the container. */
export interface FsChange {
  kind: 'A' | 'C' | 'D';
  path: string;
}

/**
 * A running mount. This process holds it, and it ends with this process; another one serves it, which is replaced when it ends before its time: whoever uses the files
 * sees a pause, and nothing that was acknowledged is lost.
 */
export interface Mount {
  readonly mountPoint: string;
  /** The process that serves it now. */
  readonly serverPid: number;
  /** What of the log was found not to be as it was written, in words; null when nothing was. */
  readonly damage: string | null;
  /**
   * Makes everything acknowledged so far durable and hashed, and says where that is. Dirty pages still in the kernel are
   * the caller's to flush first (syncfs). For a read-only mount without a log: size 0, the empty root.
   * Throws PgError('MOUNT_FAILED') when the log cannot be written.
   */
  commit(): Promise<Position>;
  /** The last position that was committed and hashed. */
  position(): Promise<Position>;
  stats(): Promise<FsStats>;
  /** Writes a checkpoint, so that the next mount replays only what comes after it. */
  checkpoint(): Promise<void>;
  /** Moves what is needed out of sparse sectors of the log, and gives back what is not needed; it is done anyway when it pays. FsError EROFS when nothing is written here. */
  clean(): Promise<CleaningReport>;
  /** What the writable layer changed against the image, in path order. */
  changes(): Promise<FsChange[]>;
  /**
   * Appends a claim of what the files were at some size of the log, as a commit of its own; durable on return. Where that ends, and the root there unless
   * more was written meanwhile.
   */
  appendNamespace(claim: NamespaceClaim): Promise<{ size: number; root: Uint8Array | null }>;
  /**
   * Does here, as one batch, what the clone of the log in `dir` has done since `from`, where it began; durable on return, and the kernel knows. Nobody uses the mount meanwhile.
   * PgError, or an error with an errno's name: see `mergeClone`.
   */
  merge(dir: string, from: number, firstIno: number): Promise<void>;
  /** Changes what may be spent on I/O. */
  setBudget(budget: Budget | null): Promise<void>;
  /**
   * Has another process serve from now on, of this program or of another pg's; resolves when it does. PgError('MOUNT_BUSY') when it cannot be, and the old one goes
   * on.
   */
  replaceServer(program?: ServerProgram): Promise<void>;
  /** Commits, takes the mount away (`lazy`: also when busy; the server goes on until the last user has left) and ends the server. */
  unmount(lazy?: boolean): Promise<void>;
  /** Ends the server though the mount is in use, when everything is committed: whoever is in it still gets ENOTCONN from then on. */
  end(): Promise<void>;
  /** Resolves when the mount has ended, whoever ended it; rejects with a PgError when its server failed. */
  readonly closed: Promise<void>;
}

/**
 * Mounts an image, or an image with its writable layer, on `options.mountPoint` and has a process of its own serve it.
 * Resolves once the root directory answers. Needs root (or CAP_SYS_ADMIN) and /dev/fuse.
 * Errors: PgError('NOT_ROOT' | 'NO_FUSE' | 'MOUNT_POINT' | 'MOUNT_FAILED').
 * Nothing in this process may touch the mount point synchronously in the thread that holds it: that thread has to start the next server.
 */
export async function startMount(options: MountOptions): Promise<Mount> {
  const { mountAndServe } = await import('./mount-holder.ts');
  return mountAndServe(options);
}

/**
 * For a process that will mount something writable as soon as it hears what: the server is started now and loads its code meanwhile,
 * which takes longer than the mount itself. The returned function is `startMount`, to be called once.
 */
export async function prepareMount(): Promise<(options: MountOptions) => Promise<Mount>> {
  const { mountAndServe, prepareServer } = await import('./mount-holder.ts');
  const prepared = prepareServer(true);
  return (options) => mountAndServe(options, prepared);
}
