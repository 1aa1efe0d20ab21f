/**
 * What a file operation answers instead of a result: the name of an errno, as in errno(3). Numbers exist only in `fs/fuse/errno.ts`.
 */
export type FsErrorCode =
  | 'EPERM'
  | 'ENOENT'
  | 'EIO'
  | 'EBADF'
  | 'EACCES'
  | 'EEXIST'
  | 'EXDEV'
  | 'ENOTDIR'
  | 'EISDIR'
  | 'EINVAL'
  | 'EFBIG'
  | 'ENOSPC'
  | 'EDQUOT'
  | 'EROFS'
  | 'EMLINK'
  | 'ERANGE'
  | 'ENAMETOOLONG'
  | 'ENOSYS'
  | 'ENOTEMPTY'
  | 'ELOOP'
  | 'ENODATA'
  | 'EOVERFLOW'
  | 'EOPNOTSUPP'
  | 'ESTALE'
  | 'ENXIO'
  | 'E2BIG';

/** An operation's refusal: the errno's name, and for the log of the shim what it was about. */
export class FsError extends Error {
  readonly code: FsErrorCode;

  constructor(code: FsErrorCode, detail = '', cause?: unknown) {
    // An answer, not a fault: a stack trace would cost more than the operation that failed.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    super(detail === '' ? code : `${code}: ${detail}`, cause === undefined ? undefined : { cause });
    Error.stackTraceLimit = stackTraceLimit;
    this.name = 'FsError';
    this.code = code;
  }
}

/** The two refusals that programs provoke all the time, made once: a stack trace would cost more than the operation. */
export const NO_ENTRY = new FsError('ENOENT');
export const NO_DATA = new FsError('ENODATA');

/** Whether `error` is an FsError, optionally with this code. */
export function isFsError(error: unknown, code?: FsErrorCode): error is FsError {
  return error instanceof FsError && (code === undefined || error.code === code);
}
