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
    super(detail === '' ? code : `${code}: ${detail}`, cause === undefined ? undefined : { cause });
    this.name = 'FsError';
    this.code = code;
  }
}

/** Whether `error` is an FsError, optionally with this code. */
export function isFsError(error: unknown, code?: FsErrorCode): error is FsError {
  return error instanceof FsError && (code === undefined || error.code === code);
}
