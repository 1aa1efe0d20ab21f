import { openSync, readFileSync, rmSync } from 'node:fs';
import { PgError, type PgErrorData, toErrorData } from '../mdm/error.ts';
import { exitWithoutTeardown } from '../store/end-process.ts';
import type { Roots } from '../store/paths.ts';
import {
  type DaemonAnswer,
  type DaemonOptions,
  type MountRecord,
  mountRecordPath,
  programPath,
  startTicksOf,
  writeMountRecord,
} from './detached.ts';
import { IdleMemory } from './idle-memory.ts';
import { lockFile } from './log/disk.ts';
import { type Mount, startMount } from './mount.ts';

/**
 * The process behind `pg mount`: serves one mount until it is unmounted, by `pg umount`, umount(8) or a signal (SIGTERM, SIGINT: also when busy).
 */
async function serve(options: DaemonOptions): Promise<void> {
  const { roots, mountPoint, label } = options;
  const { treeRoot } = options;
  const record: MountRecord = { mountPoint, label, treeRoot, pid: process.pid, startTicks: startTicksOf(process.pid)! };
  const answer = (message: DaemonAnswer): Promise<unknown> =>
    new Promise((resolve) => (process.connected ? process.send!(message, resolve) : resolve(undefined)));
  let served = false;
  try {
    if (options.lockPath !== null) lockForLife(options.lockPath);
    const mount = await startMount({
      roots,
      treeRoot: options.treeRoot === null ? null : Buffer.from(options.treeRoot, 'hex'),
      logDir: options.logDir,
      ...(options.limit === null ? {} : { limit: options.limit }),
      readOnly: options.readOnly,
      noSuid: options.noSuid,
      noDev: options.noDev,
      mountPoint,
      label,
    });
    const recorded = (error?: PgErrorData): void =>
      writeMountRecord(roots, { ...record, serverPid: mount.serverPid, ...(error === undefined ? {} : { error }) });
    recorded();
    process.on(
      'SIGUSR2',
      () =>
        void replace(roots, mount)
          .then(recorded)
          .then(() => requestDone(roots, mountPoint)),
    );
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => void mount.unmount(true));
    await answer({ serving: true });
    served = true;
    new IdleMemory().busy();
    await mount.closed;
    rmSync(mountRecordPath(roots, mountPoint), { force: true });
  } catch (error) {
    console.error(error);
    if (served) writeMountRecord(roots, { ...record, error: toErrorData(error) });
    else await answer({ serving: false, error: toErrorData(error) });
    process.exitCode = 1;
  }
  if (process.connected) process.disconnect();
  process.exit();
}

/** Has the program that was asked for serve from now on; what went wrong. */
async function replace(roots: Roots, mount: Mount): Promise<PgErrorData | undefined> {
  try {
    await mount.replaceServer(
      JSON.parse(readFileSync(programPath(roots, mount.mountPoint), 'utf8')) as { node: string; script: string },
    );
    return undefined;
  } catch (error) {
    console.error(error);
    return toErrorData(error);
  }
}

function requestDone(roots: Roots, mountPoint: string): void {
  rmSync(programPath(roots, mountPoint), { force: true });
}

/** Never closed: it ends with this process. PgError('LOG_BUSY'). */
function lockForLife(path: string): void {
  if (lockFile(openSync(path, 'a', 0o600))) return;
  throw new PgError(
    'LOG_BUSY',
    `${path} is locked: what it belongs to runs, or is mounted, or another command is at work on it`,
    {
      hint: 'pg ps, grep fuse.pg /proc/mounts',
    },
  );
}

exitWithoutTeardown();
// Its messages go to a file, whose disk may be full: no reason to end.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
process.title = `pg mount ${process.argv[2] ?? ''}`;
process.once('message', (options) => void serve(options as DaemonOptions));
