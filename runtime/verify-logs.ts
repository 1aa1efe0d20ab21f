import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describeDamage, verifyLog } from '../fs/log/verify.ts';
import { isPgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { commitContainer, isNotRunning, listContainers } from './containers.ts';
import { type ContainerState, logDirOf } from './record.ts';

/** Reads the logs of all containers and checks every checksum: their bytes, and what is wrong, a line each. */
export async function verifyLogs(roots: Roots): Promise<{ logs: number; bytes: number; problems: string[] }> {
  const problems: string[] = [];
  let [logs, bytes] = [0, 0];
  for (const { record, state } of await listContainers(roots, (error) => problems.push(error.message))) {
    const dir = logDirOf(roots, record.id);
    if (!existsSync(join(dir, 'log'))) continue;
    logs++;
    try {
      const running = state.shimPid === 0 ? undefined : await positionNow(roots, record.id);
      const found = verifyLog(dir, running?.size ?? state.position?.size ?? 0, running !== undefined);
      bytes += found.bytes;
      const damage = describeDamage(found);
      if (damage !== undefined) problems.push(`container ${record.name}: the log is damaged: ${damage}`);
    } catch (error) {
      if (!isPgError(error)) throw error;
      problems.push(`container ${record.name}: ${error.message}`);
    }
  }
  return { logs, bytes, problems };
}

/** Undefined when it has ended meanwhile. */
async function positionNow(roots: Roots, id: string): Promise<ContainerState['position'] | undefined> {
  try {
    return await commitContainer(roots, id);
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    return undefined;
  }
}
