import { peerOfId } from '../grid/peers.ts';
import { isPgError, toErrorData } from '../mdm/error.ts';
import { startContainer } from './containers.ts';
import type { Landing } from './migrate-in.ts';
import { moveOut } from './migrate-out.ts';
import { isMoverAlive, readOwnership, changeOwnership, type Ownership } from './migrate-state.ts';
import { containerIds, shortId } from './names.ts';

/**
 * Finishes what a crash has cut in two; the daemon calls it when it starts and every few seconds.
 * - A container that came here and was to run, but the daemon died before it started it: it starts.
 * - A container whose mover died before the release: the move is void, and it runs again if it ran.
 * - A container that was released but never confirmed: the peer is asked again.
 */
export async function recoverMoves(landing: Landing): Promise<void> {
  for (const id of containerIds(landing.roots)) {
    let ownership: Ownership;
    try {
      ownership = readOwnership(landing.roots, id);
    } catch (error) {
      landing.log(toErrorData(error).message);
      continue;
    }
    if (ownership.role === 'owner' && ownership.startDue)
      await attempt(landing, id, 'start what came here', () => landing.start(id));
    else if (ownership.moving !== null && !isMoverAlive(ownership.moving)) await dropMove(landing, id, ownership);
    else if (ownership.role === 'released' && !ownership.settled) await settle(landing, id, ownership);
  }
}

async function attempt(landing: Landing, id: string, what: string, action: () => Promise<unknown>): Promise<void> {
  try {
    await action();
    landing.log(`container ${shortId(id)}: ${what}: done`);
  } catch (error) {
    landing.log(`container ${shortId(id)}: ${what}: ${toErrorData(error).message}`);
  }
}

async function dropMove({ roots, ...landing }: Landing, id: string, ownership: Ownership): Promise<void> {
  const dead = ownership.moving!;
  // Another command may have begun to move it since: then the move that is void is not the one that stands there.
  let dropped = false;
  changeOwnership(roots, id, ({ moving }) => {
    dropped = moving?.pid === dead.pid && moving.startTicks === dead.startTicks;
    return dropped ? { moving: null } : undefined;
  });
  if (!dropped || ownership.role !== 'owner' || !dead.wasRunning || landing.isRunning(id)) return;
  await attempt({ roots, ...landing }, id, `start it again, as its move to ${dead.to} was broken off`, () =>
    startContainer(roots, id),
  );
}

/** Silent while the peer cannot be reached: that may last, and `pg ps -a` shows it. */
async function settle(landing: Landing, id: string, ownership: Ownership): Promise<void> {
  const { roots, log } = landing;
  const peer = peerOfId(roots, ownership.peer!.id);
  if (peer === undefined) return;
  const silent = { start: (): void => undefined, advance: (): void => undefined, done: (): void => undefined };
  try {
    const options = { stopTimeoutSec: null, progress: silent, signal: new AbortController().signal, say: log };
    await moveOut({ roots, container: id, peer: peer.name, ...options });
    log(`container ${shortId(id)}: ${peer.name} has confirmed the move`);
  } catch (error) {
    if (!['PEER_UNREACHABLE', 'PEER_GONE', 'MOVE_UNDER_WAY'].some((code) => isPgError(error, code))) {
      log(`container ${shortId(id)}: settling its move to ${peer.name}: ${toErrorData(error).message}`);
    }
  }
}
