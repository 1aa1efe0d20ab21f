import { PgError } from '../../mdm/error.ts';

/** The disk is full: nothing was lost, and nothing appended. */
export const full = (path: string, cause: unknown): PgError =>
  new PgError('LOG_FULL', `no space on the disk of ${path}`, { cause });

/** The disk failed the log once, and it takes nothing more. */
export const failed = (path: string, cause: unknown): PgError =>
  new PgError(
    'LOG_FAILED',
    `${path} cannot be written any more: ${cause instanceof Error ? cause.message : String(cause)}`,
    { cause },
  );

/** The refusal of a log that another node has taken over since. */
export function oldEpoch(dir: string, offered: number, known: number): PgError {
  return new PgError('LOG_EPOCH_OLD', `${dir}: epoch ${offered} is over, ${known} has begun`, {
    hint: 'this copy of the container was handed over; use the node that has it now',
  });
}

/** The refusal of an entry whose commit the budget would not allow. */
export const exhausted = (path: string): PgError =>
  new PgError('LOG_BUDGET', `the budget for I/O does not allow to write more to ${path}`);

/** The refusal of a log that was written over other files than it is opened with. */
export function otherBase(path: string, is: Uint8Array, wanted: Uint8Array): PgError {
  const hex = (root: Uint8Array): string => Buffer.from(root).toString('hex');
  return new PgError('LOG_BASE', `${path} belongs to image tree ${hex(is)}, not to ${hex(wanted)}`);
}
