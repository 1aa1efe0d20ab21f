/** Trying again, with patience: what may pass by itself (a cut, an overload) is tried again later and later. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Tries in a row that may fail before the failure is final. */
export const ATTEMPTS_MAX = 6;
const FIRST_PAUSE_MS = 200;
const PAUSE_MS_MAX = 10_000;
/** A registry may ask for this much patience (Retry-After), not more. */
const RETRY_AFTER_MS_MAX = 60_000;

/** A failure after which the same may be tried again. */
export class PassingError extends Error {
  /** What the server asked us to wait, in ms. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number | undefined } = {}) {
    super(message, { cause: options.cause });
    this.name = 'PassingError';
    this.retryAfterMs = options.retryAfterMs;
  }
}

/**
 * Network errors that do not pass by themselves: nobody listens, no such name, a wrong certificate, a protocol that is
 * not theirs.
 */
const LASTING = [
  /^(ECONNREFUSED|ENOTFOUND|EACCES|EPERM|EPROTO)$/,
  /^(ERR_TLS_|ERR_SSL_|ERR_INVALID_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_)/,
  /^UND_ERR_(ABORTED|INVALID|CLOSED|DESTROYED|NOT_SUPPORTED|HEADERS_OVERFLOW)/,
];

/** The code of a network error, wherever it hides in the causes; '' when there is none. */
export function networkCode(error: unknown): string {
  for (let e = error; e instanceof Error; e = e.cause) {
    const code = (e as NodeJS.ErrnoException).code;
    if (typeof code === 'string') return code;
    if (e instanceof AggregateError && e.errors.length > 0) return networkCode(e.errors[0]);
  }
  return '';
}

/** Whether `error`, thrown by a request, may pass. */
export function isPassing(error: unknown): boolean {
  if (error instanceof PassingError) return true;
  const code = networkCode(error);
  const isOfNetwork = /^(E(?!RR_)[A-Z_]+|UND_ERR_[A-Z_]+|ERR_STREAM_PREMATURE_CLOSE)$/.test(code);
  return isOfNetwork && !LASTING.some((pattern) => pattern.test(code));
}

/**
 * Waits before try number `failures` + 1, doubling each time, with some chance in it so that a crowd does not come back
 * at once.
 */
export async function pause(failures: number, error: unknown, signal: AbortSignal | undefined): Promise<void> {
  const asked = error instanceof PassingError ? error.retryAfterMs : undefined;
  const own = Math.min(PAUSE_MS_MAX, FIRST_PAUSE_MS * 2 ** (failures - 1)) * (0.5 + Math.random());
  await sleep(Math.max(own, Math.min(asked ?? 0, RETRY_AFTER_MS_MAX)), undefined, signal ? { signal } : {});
}

/** Does `attempt` until it succeeds, fails for good, or has failed ATTEMPTS_MAX times. */
export async function withRetries<T>(attempt: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  for (let failures = 1; ; failures++) {
    try {
      return await attempt();
    } catch (error) {
      if (signal?.aborted || !isPassing(error) || failures === ATTEMPTS_MAX) throw error;
      await pause(failures, error, signal);
    }
  }
}

/** The header Retry-After (RFC 9110 section 10.2.3: seconds or a date) in ms. */
export function retryAfterMs(value: string | string[] | undefined): number | undefined {
  if (typeof value !== 'string') return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) && ms > 0 ? ms : undefined;
}
