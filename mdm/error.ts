import { visible } from './visible.ts';

/**
 * The one error of the world outside: bad input, a missing image, a full disk, a cut network.
 * Our own bugs are `assert` failures instead, and crash.
 *
 * `code` is stable and machine-readable (`IMAGE_NOT_FOUND`); `message` says what was wrong and where; `hint` says what
 * to do next; both are for people's terminals, whatever names of files and words of servers are in them (visible.ts). Exit codes exist only in `cli/`, errnos only in `fs/fuse/`.
 */
export class PgError extends Error {
  readonly code: string;
  readonly hint: string | undefined;

  constructor(code: string, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(visible(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'PgError';
    this.code = code;
    this.hint = options.hint === undefined ? undefined : visible(options.hint);
  }
}

/**
 * Whether `error` is a PgError (optionally with this code), also one that came over a socket or from another thread.
 */
export function isPgError(error: unknown, code?: string): error is PgError {
  return error instanceof Error && error.name === 'PgError' && (code === undefined || (error as PgError).code === code);
}

/** A PgError as plain data, for sockets and threads. */
export interface PgErrorData {
  code: string;
  message: string;
  hint?: string;
}

/** What crosses a socket or a thread for `error`; anything that is not a PgError becomes code `INTERNAL`. */
export function toErrorData(error: unknown): PgErrorData {
  if (isPgError(error)) {
    return { code: error.code, message: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) };
  }
  return { code: 'INTERNAL', message: error instanceof Error ? error.message : String(error) };
}

/** The PgError that `toErrorData` took apart. */
export function fromErrorData(data: PgErrorData): PgError {
  return new PgError(data.code, data.message, data.hint === undefined ? {} : { hint: data.hint });
}
