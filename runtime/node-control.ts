import { spawn } from 'node:child_process';
import { closeSync, fstatSync, mkdirSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { formatAddress } from '../grid/peers.ts';
import { fromErrorData, PgError, type PgErrorData } from '../mdm/error.ts';
import { nodeDir, type Roots } from '../store/paths.ts';
import { siblingModule } from '../store/threads.ts';
import { startTicksOf } from './migrate-state.ts';
import { nodeStatus, type NodeStatus } from './node.ts';

const START_MS = 15_000;
const STOP_MS = 15_000;
/** A log of more than this makes room for a new one at the next start. */
const LOG_MAX_BYTES = 4 << 20;

/** Where a detached daemon writes what happens; the one before has `.1` behind it. */
export const nodeLogPath = (roots: Roots): string => join(nodeDir(roots), 'node.log');

/** Starts the daemon in the background; resolves when it listens. Its errors are thrown here. */
export async function startDetached(roots: Roots, at: { host: string; port: number }): Promise<NodeStatus> {
  const running = nodeStatus(roots);
  if (running !== undefined) {
    throw new PgError(
      'NODE_RUNNING',
      `the node daemon runs already (pid ${running.pid}, ${formatAddress(running.address)})`,
      { hint: 'pg node stop' },
    );
  }
  mkdirSync(nodeDir(roots), { recursive: true, mode: 0o700 });
  const size = statSync(nodeLogPath(roots), { throwIfNoEntry: false })?.size ?? 0;
  if (size > LOG_MAX_BYTES) renameSync(nodeLogPath(roots), `${nodeLogPath(roots)}.1`);
  const log = openSync(nodeLogPath(roots), 'a', 0o600);
  const before = fstatSync(log).size;
  const entry = fileURLToPath(siblingModule(import.meta.url, './node-process'));
  const child = spawn(process.execPath, [entry, JSON.stringify(roots), formatAddress(at)], {
    detached: true,
    cwd: '/',
    stdio: ['ignore', log, log],
  });
  closeSync(log);
  child.unref();
  const deadline = performance.now() + START_MS;
  while (performance.now() < deadline) {
    const status = nodeStatus(roots);
    if (status?.pid === child.pid) return status!;
    if (child.exitCode !== null || child.signalCode !== null) break;
    await sleep(10);
  }
  const lastLine = readFileSync(nodeLogPath(roots)).subarray(before).toString().trimEnd().split('\n').at(-1) ?? '';
  throw (
    asError(lastLine) ??
    new PgError('NODE_DIED', `the node daemon did not start: ${lastLine}`, { hint: `see ${nodeLogPath(roots)}` })
  );
}

function asError(line: string): PgError | undefined {
  try {
    return fromErrorData(JSON.parse(line) as PgErrorData);
  } catch {
    return undefined;
  }
}

/** Ends the daemon; false when none runs. Containers go on running. */
export async function stopNode(roots: Roots): Promise<boolean> {
  const status = nodeStatus(roots);
  if (status === undefined) return false;
  process.kill(status.pid, 'SIGTERM');
  const deadline = performance.now() + STOP_MS;
  while (startTicksOf(status.pid) === status.startTicks) {
    if (performance.now() > deadline) {
      throw new PgError('NODE_STUCK', `the node daemon (pid ${status.pid}) does not end`, {
        hint: `kill -9 ${status.pid} does containers no harm`,
      });
    }
    await sleep(10);
  }
  return true;
}

/** Addresses under which others can reach a daemon that listens at `at`: for "every address", those of this host. */
export function reachableAt(at: { host: string; port: number }): string[] {
  if (at.host !== '0.0.0.0' && at.host !== '::') return [formatAddress(at)];
  return Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(
      ({ internal, family, address }) =>
        !internal && (at.host === '::' || family === 'IPv4') && !address.startsWith('fe80:'),
    )
    .map(({ address }) => formatAddress({ host: address, port: at.port }));
}
