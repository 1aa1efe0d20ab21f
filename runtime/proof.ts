import { closeLog, openToRead } from '../fs/log/bases.ts';
import type { NamespaceClaim } from '../fs/log/claim.ts';
import { CommitList } from '../fs/log/commits.ts';
import { openLog } from '../fs/log/log.ts';
import { type CheckedClaim, checkClaims } from '../fs/proof/claims.ts';
import type { Namespace } from '../fs/proof/namespace.ts';
import { namespaceFor, prove, requireRange, resolveTarget } from '../fs/proof/prove.ts';
import { claimAtEnd, type Snapshot, takeSnapshot } from '../fs/proof/snapshot.ts';
import { logSource } from '../fs/proof/source.ts';
import type { Finding } from '../fs/proof/walk.ts';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import type { Store } from '../store/store.ts';
import { ask, lockStopped } from './containers.ts';
import { requireOwner } from './migrate-state.ts';
import { commitRunning, type End, findSubject, logEnd, type Subject, withStore } from './subject.ts';

/** The commits of the log of a container or a named mount; undefined when it has no log yet. The caller closes the list. */
export async function commitsOf(roots: Roots, ref: string): Promise<CommitList | undefined> {
  const subject = await findSubject(roots, ref);
  const { size } = await logEnd(roots, subject);
  return size === 0 ? undefined : new CommitList(subject.dir, size, 'kept');
}

/** What `verifyLog` found. */
export interface LogReport {
  claims: CheckedClaim[];
  /** The position last recorded of a container, and whether the log's bytes have that root there. */
  recorded: { size: number; root: string; holds: boolean } | undefined;
}

/** Replays a log from its beginning, checks every claim in it about the files, and its root where one was recorded. PgError LOG_CORRUPT. */
export async function verifyLog(roots: Roots, ref: string): Promise<LogReport> {
  const subject = await findSubject(roots, ref);
  const { dir, treeRoot, label, recorded } = subject;
  const { size, epoch } = await logEnd(roots, subject);
  const hasRoot = recorded !== null && recorded.size > 0;
  const report: LogReport = { claims: [], recorded: hasRoot ? { ...recorded, holds: false } : undefined };
  if (size === 0) return report;
  const list = new CommitList(dir, size, 'bytes');
  try {
    for (const { end, root } of list.oldestFirst())
      if (end === recorded?.size) report.recorded!.holds = Buffer.from(root).toString('hex') === recorded.root;
  } finally {
    list.close();
  }
  const labelBefore = (at: number): string | undefined => {
    const origin = subject.origins.find((one) => at < one.size);
    return origin === undefined ? undefined : `container/${origin.id}`;
  };
  const expected = { label, epoch, labelBefore };
  report.claims = await withStore(roots, (store) => checkClaims(store, treeRoot, dir, size, expected));
  return report;
}

export interface ProveOptions {
  /** In the container, latin1. */
  path: string;
  /** Bytes of the file, to its end when that is Infinity; 'all' of them when it is a file. */
  range: { start: number; end: number } | 'all';
  /** Go through symlinks to what they lead to. */
  follow: boolean;
}

/** A proof, in pieces one after another, and what it proves. */
export interface Proof {
  pieces: Uint8Array[];
  finding: Finding;
  root: Uint8Array;
  /** Where the path led. */
  path: string;
}

/**
 * Proves what a path of a container (or a named mount) leads to, and its bytes: has a claim about all files put at the end of the log unless there is one, and
 * shows the way from the log's root. A container may run, be stopped, or never have run. PgError NO_SUCH_CONTAINER, BAD_PATH, PROVE_SYMLINK, BAD_RANGE,
 * LOG_BUSY (a named mount that is mounted).
 */
export async function proveIn(roots: Roots, ref: string, options: ProveOptions): Promise<Proof> {
  const subject = await findSubject(roots, ref);
  const running = await commitRunning(roots, subject);
  return withStore(roots, (store) =>
    running === undefined
      ? proveStopped(roots, store, subject, options)
      : proveRunning(roots, store, subject, running, options),
  );
}

async function proveRunning(
  roots: Roots,
  store: Store,
  subject: Subject,
  end: End,
  options: ProveOptions,
): Promise<Proof> {
  const snapshot = takeSnapshot(store, subject.treeRoot, subject.dir, end.size);
  return proveFrom(store, subject, snapshot, options, async (claim) => {
    if (claim === undefined) return end;
    const request = { ...claim, root: Buffer.from(claim.root).toString('hex') };
    return (await ask(roots, subject.id!, { op: 'namespace', claim: request })) as Omit<End, 'epoch'>;
  });
}

async function proveStopped(roots: Roots, store: Store, subject: Subject, options: ProveOptions): Promise<Proof> {
  const { id, name, dir, treeRoot } = subject;
  const lock = id === undefined ? undefined : await lockStopped(roots, id);
  try {
    if (id !== undefined) requireOwner(roots, id, name);
    const open = () => openLog(dir, { create: true, ...(treeRoot === null ? {} : { base: treeRoot }) });
    open().close();
    return await proveFrom(store, subject, takeSnapshot(store, treeRoot, dir), options, (claim) => {
      const log = open();
      try {
        if (claim !== undefined) log.appendNamespace(claim);
        const { size, root } = log.position();
        return { size, root: Buffer.from(root).toString('hex') };
      } finally {
        log.close();
      }
    });
  } finally {
    lock?.release();
  }
}

/** `end` puts a claim at the end of the log, durably, unless there is none to put, and says where the log ends then. */
async function proveFrom(
  store: Store,
  { dir, label }: Subject,
  snapshot: Snapshot,
  options: ProveOptions,
  end: (claim: NamespaceClaim | undefined) => Omit<End, 'epoch'> | Promise<Omit<End, 'epoch'>>,
): Promise<Proof> {
  const { state, tree, size, epoch } = snapshot;
  const target = resolveTarget(state, options.path, options.follow);
  const namespace = namespaceFor(state, target);
  const isThere = isClaimed(dir, snapshot, namespace, label);
  const inode = target.inos.length > target.names.length ? state.peek(target.inos.at(-1)!) : undefined;
  const range = rangeIn(inode, options.range);
  const at = await end(isThere ? undefined : { size, epoch, root: namespace.root, label });
  const fd = openToRead(dir);
  try {
    const proved = prove({ store, tree, state, namespace, log: logSource(fd, at.size, dir) }, target, range);
    const root = Buffer.from(proved.root).toString('hex');
    if (at.root !== null && at.root !== root) throw rotten(dir, at.size, root, at.root);
    return { ...proved, path: `/${target.names.join('/')}` };
  } finally {
    closeLog(fd);
  }
}

/** A proof of bytes that are not those that were written would hold, and be of no use. */
const rotten = (dir: string, size: number, root: string, written: string): PgError =>
  new PgError('LOG_CORRUPT', `${dir}/log has root ${root} at byte ${size}; when it was written it was ${written}`, {
    hint: 'the disk is failing: take the container from a replica',
  });

/** The bytes that are meant of what was found. BAD_RANGE. */
function rangeIn(
  inode: { mode: number; size: number } | undefined,
  wanted: ProveOptions['range'],
): { start: number; end: number } | undefined {
  const isFile = inode !== undefined && (inode.mode & 0o170000) === 0o100000;
  if (wanted === 'all') return isFile ? { start: 0, end: inode.size } : undefined;
  const range = { start: wanted.start, end: wanted.end === Infinity && isFile ? inode.size : wanted.end };
  requireRange(inode, range);
  return range;
}

/** Whether the log ends with this very claim already: nothing was written since. */
function isClaimed(dir: string, { size, epoch }: Snapshot, { root }: Namespace, label: string): boolean {
  const last = claimAtEnd(dir, size)?.claim;
  return last !== undefined && last.label === label && last.epoch === epoch && Buffer.compare(last.root, root) === 0;
}
