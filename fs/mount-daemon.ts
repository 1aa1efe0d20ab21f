import { rmSync } from 'node:fs';
import { toErrorData } from '../mdm/error.ts';
import { exitWithoutTeardown } from '../store/end-process.ts';
import {
  type DaemonAnswer,
  type DaemonOptions,
  type MountRecord,
  mountRecordPath,
  startTicksOf,
  writeMountRecord,
} from './detached.ts';
import { startMount } from './mount.ts';

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
    writeMountRecord(roots, record);
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => void mount.unmount(true));
    await answer({ serving: true });
    served = true;
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

exitWithoutTeardown();
// Its messages go to a file, whose disk may be full: no reason to end.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
process.title = `pg mount ${process.argv[2] ?? ''}`;
process.once('message', (options) => void serve(options as DaemonOptions));
