import { OPCODE_NAMES } from './fuse/protocol.ts';
import type { Session } from './fuse/session.ts';
import type { Log } from './log/log.ts';
import type { FsStats } from './mount.ts';
import type { SyncRing } from './sync-ring.ts';
import type { View } from './view/view.ts';

/** What a mount has done since this process serves it. `log` is null, and `failure` too, as `FsStats` has them. */
export function mountStats(
  session: Session,
  ring: SyncRing,
  view: View,
  log: Log | null,
  failure: string | null,
): Omit<FsStats, 'serverPid' | 'restarts'> {
  const operations: Record<string, number> = {};
  for (const [opcode, count] of session.counts.entries()) if (count > 0) operations[OPCODE_NAMES[opcode]!] = count;
  const { syncs, requests } = ring.counters;
  return {
    operations,
    bytesRead: session.bytesRead,
    bytesWritten: session.bytesWritten,
    syncs,
    syncRequests: requests,
    dirty: log !== null && (view.dirty() || log.written > ring.syncedSize),
    spent: log?.meter.spent ?? null,
    failed: failure,
    kernelInodes: session.lookups.size,
    ...view.stats(),
  };
}
