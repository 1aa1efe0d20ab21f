import type { ContainerState, RestartPolicy } from '../record.ts';

const FIRST_DELAY_MS = 100;
const LONGEST_DELAY_MS = 60_000;
/** One that ran this long has recovered: the delays begin anew. */
const HEALTHY_MS = 10_000;

/**
 * Whether and when the policy starts the container again: milliseconds to wait, doubling from 0.1 s to a minute, or null.
 * `restartCount` in the state counts the restarts so far; it is set back when the container had run long enough.
 */
export function restartDelayMs(policy: RestartPolicy, state: ContainerState, nowMs: number): number | null {
  if (state.stoppedByUser || policy.name === 'no') return null;
  if (policy.name === 'on-failure') {
    if (state.exitCode === 0) return null;
    if (policy.maximumRetries > 0 && state.restartCount >= policy.maximumRetries) return null;
  }
  const ranMs = nowMs - Date.parse(state.startedAt);
  const failures = ranMs > HEALTHY_MS ? 0 : state.restartCount;
  return Math.min(FIRST_DELAY_MS * 2 ** Math.min(failures, 20), LONGEST_DELAY_MS);
}
