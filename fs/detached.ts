import { type ChildProcess, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { fromErrorData, PgError, type PgErrorData } from '../mdm/error.ts';
import { withCodeCache } from '../store/code-cache.ts';
import type { Roots } from '../store/paths.ts';
import { siblingModule } from '../store/threads.ts';
import { unmountPath } from './fuse/device.ts';
import type { MountOptions } from './mount.ts';
import { isOfDeadMount } from './mount-point.ts';
import { ownProgram } from './server-process.ts';
import { hex32, nullable, optional, shaped, text, uint } from '../store/shape.ts';

/** What the daemon of a detached mount is told: MountOptions as JSON can carry them. */
export interface DaemonOptions {
  roots: Roots;
  /** Hex, or null. */
  treeRoot: string | null;
  logDir: string | null;
  limit: number | null;
  readOnly: boolean;
  noSuid: boolean;
  noDev: boolean;
  mountPoint: string;
  label: string;
  /** A file that is locked as long as the mount is there; null when nothing is written. */
  lockPath: string | null;
}

/** What the daemon answers once: it serves, or why not. */
export type DaemonAnswer = { serving: true } | { serving: false; error: PgErrorData };

/** `<run>/mounts/<id>.json`: there while a daemon serves; left behind with `error` when its end was a failure. */
export interface MountRecord {
  mountPoint: string;
  label: string;
  /** Root of the image's trie, hex; null is the empty image. */
  treeRoot: string | null;
  pid: number;
  /** Start of the process in clock ticks after boot (proc(5), stat field 22): tells it from a later one of the same number. */
  startTicks: string;
  /** The process that serves its files now; left out by daemons that cannot replace it. */
  serverPid?: number;
  /** Why the mount ended, or why its server was not replaced when that was last asked for. */
  error?: PgErrorData;
}

const RECORD = shaped({
  mountPoint: text,
  label: text,
  treeRoot: nullable(hex32),
  pid: uint,
  startTicks: text,
  serverPid: optional(uint),
  error: optional(shaped({ code: text, message: text })),
});

const mountsRunDir = (roots: Roots): string => join(roots.run, 'mounts');

/** File of the record of a mount, by its mount point. */
export function mountRecordPath(roots: Roots, mountPoint: string): string {
  const id = createHash('sha256').update(mountPoint).digest('hex').slice(0, 16);
  return join(mountsRunDir(roots), `${id}.json`);
}

/** Start of a process, or undefined when there is none of this number. */
export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** The path as the kernel names it, without looking at the directory itself: what is mounted there may be dead. */
export function canonicalMountPoint(path: string): string {
  return join(realpathSync(dirname(path)), basename(path));
}

/**
 * Mounts, served by a process of its own that outlives this one. Resolves when the mount answers; PgError as `startMount` has them.
 * What goes wrong later is written to `<run>/mounts/<id>.log`. `lockPath` is locked (flock(2)) as long as the mount is there: the log's own lock is the server's, and for a
 * moment nobody's when that is replaced. PgError('LOG_BUSY') when somebody else has it.
 */
export async function startDetachedMount(options: MountOptions, lockPath: string | null = null): Promise<void> {
  const { roots, mountPoint } = options;
  mkdirSync(mountsRunDir(roots), { recursive: true, mode: 0o700 });
  const log = openSync(mountRecordPath(roots, mountPoint).replace(/json$/, 'log'), 'a', 0o600);
  const daemon = fork(fileURLToPath(siblingModule(import.meta.url, './mount-daemon')), [options.label], {
    detached: true,
    cwd: '/',
    env: withCodeCache(process.env),
    // Little room for new objects before the collector looks: an idle server should take little memory.
    execArgv: ['--max-semi-space-size=4', '--expose-gc', '--no-warnings'],
    stdio: ['ignore', log, log, 'ipc'],
  });
  closeSync(log);
  daemon.send({
    roots,
    treeRoot: options.treeRoot === null ? null : Buffer.from(options.treeRoot).toString('hex'),
    logDir: options.logDir,
    limit: options.limit ?? null,
    readOnly: options.readOnly === true,
    noSuid: options.noSuid === true,
    noDev: options.noDev === true,
    mountPoint,
    label: options.label,
    lockPath,
  } satisfies DaemonOptions);
  const answer = await daemonAnswer(daemon);
  if (!answer.serving) throw fromErrorData(answer.error);
  daemon.disconnect();
  daemon.unref();
}

function daemonAnswer(daemon: ChildProcess): Promise<DaemonAnswer> {
  return new Promise((resolve, reject) => {
    daemon.once('message', (answer) => resolve(answer as DaemonAnswer));
    daemon.once('error', reject);
    daemon.once('exit', (code, signal) => {
      reject(
        new PgError('MOUNT_FAILED', `the mount's server ended before it served (${signal ?? `exit code ${code}`})`),
      );
    });
  });
}

/**
 * Takes a detached mount away: returns when its log is committed and checkpointed and its server has ended.
 * PgError('MOUNT_BUSY' | 'NOT_MOUNTED'), or what the server failed with at the end.
 */
export async function stopDetachedMount(roots: Roots, path: string): Promise<void> {
  const mountPoint = canonicalMountPoint(path);
  const record = readMountRecord(roots, mountPoint);
  const alive = record !== undefined && startTicksOf(record.pid) === record.startTicks;
  const error = await unmountPath(mountPoint, isDead(mountPoint));
  if (error === 'EBUSY') {
    throw new PgError('MOUNT_BUSY', `${mountPoint} is in use`, { hint: `see who uses it: fuser -vm ${mountPoint}` });
  }
  if (error !== undefined && !alive) {
    throw new PgError('NOT_MOUNTED', `nothing is mounted on ${mountPoint}`, {
      hint: 'see what is: grep fuse.pg /proc/mounts',
    });
  }
  if (record === undefined) return;
  while (startTicksOf(record.pid) === record.startTicks) await sleep(10);
  const last = readMountRecord(roots, mountPoint);
  rmSync(mountRecordPath(roots, mountPoint), { force: true });
  if (last?.error !== undefined) throw fromErrorData(last.error);
}

/** A request to a daemon: the program that is to serve its mount from now on. */
export const programPath = (roots: Roots, mountPoint: string): string =>
  mountRecordPath(roots, mountPoint).replace(/json$/, 'program');

/**
 * Has a new process, of this pg, serve a detached mount; programs that use it see a pause. Resolves when it does. PgError('NOT_MOUNTED' | 'MOUNT_BUSY'), and what kept the new one from
 * serving: then the old one goes on.
 */
export async function replaceDetachedServer(roots: Roots, path: string): Promise<void> {
  const mountPoint = canonicalMountPoint(path);
  const record = readMountRecord(roots, mountPoint);
  if (record === undefined || startTicksOf(record.pid) !== record.startTicks)
    throw new PgError('NOT_MOUNTED', `nothing of pg is mounted on ${mountPoint}`, {
      hint: 'see what is: grep fuse.pg /proc/mounts',
    });
  if (record.serverPid === undefined)
    throw new PgError('MOUNT_BUSY', `${mountPoint} was mounted by an older pg, whose server cannot be replaced`, {
      hint: `pg umount ${mountPoint}, and mount it again`,
    });
  writeFileSync(programPath(roots, mountPoint), JSON.stringify(ownProgram()));
  process.kill(record.pid, 'SIGUSR2');
  // The daemon takes the request away when it has done it.
  while (existsSync(programPath(roots, mountPoint)) && startTicksOf(record.pid) === record.startTicks) await sleep(10);
  const now = readMountRecord(roots, mountPoint);
  if (now?.error !== undefined) throw fromErrorData(now.error);
  if (now === undefined) throw new PgError('NOT_MOUNTED', `${mountPoint} has just been unmounted`);
}

/** Whether what is mounted there has lost its server. */
function isDead(mountPoint: string): boolean {
  try {
    statfsSync(mountPoint);
    return false;
  } catch (error) {
    return isOfDeadMount(error);
  }
}

function readMountRecord(roots: Roots, mountPoint: string): MountRecord | undefined {
  try {
    return parseMountRecord(readFileSync(mountRecordPath(roots, mountPoint), 'utf8'));
  } catch {
    return undefined;
  }
}

/** The record; undefined when the text is none. */
function parseMountRecord(json: string): MountRecord | undefined {
  try {
    const record = JSON.parse(json) as MountRecord;
    return RECORD(record) === undefined ? record : undefined;
  } catch {
    return undefined;
  }
}

/** Roots (hex) of the tries that are being served by detached mounts: they stay, even when their image is removed. */
export function mountedTrees(roots: Roots): string[] {
  let names: string[];
  try {
    names = readdirSync(mountsRunDir(roots));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names
    .filter((name) => name.endsWith('.json'))
    .map((name) => parseMountRecord(readFileSync(join(mountsRunDir(roots), name), 'utf8')))
    .filter((record) => record !== undefined)
    .filter(({ pid, startTicks, treeRoot }) => treeRoot !== null && startTicksOf(pid) === startTicks)
    .map(({ treeRoot }) => treeRoot!);
}

/** The daemon's own: leaves word of itself. */
export function writeMountRecord(roots: Roots, record: MountRecord): void {
  mkdirSync(mountsRunDir(roots), { recursive: true, mode: 0o700 });
  const path = mountRecordPath(roots, record.mountPoint);
  writeFileSync(`${path}.new`, `${JSON.stringify(record)}\n`);
  renameSync(`${path}.new`, path);
}
