import { constants } from 'node:os';

/** Names of the errors that a filesystem may answer with (errno(3)); the numbers are this platform's. */
export type ErrnoName = keyof typeof constants.errno;

const NUMBERS = constants.errno as Readonly<Record<string, number>>;

/** The errno numbers the protocol loop itself answers with. This file is the only place where errno numbers are known. */
export const ERRNO = {
  EPERM: NUMBERS['EPERM']!,
  ENOENT: NUMBERS['ENOENT']!,
  EINTR: NUMBERS['EINTR']!,
  EIO: NUMBERS['EIO']!,
  EAGAIN: NUMBERS['EAGAIN']!,
  EBUSY: NUMBERS['EBUSY']!,
  ENODEV: NUMBERS['ENODEV']!,
  EINVAL: NUMBERS['EINVAL']!,
  ENOTTY: NUMBERS['ENOTTY']!,
  EROFS: NUMBERS['EROFS']!,
  ERANGE: NUMBERS['ERANGE']!,
  ENOSYS: NUMBERS['ENOSYS']!,
  ENODATA: NUMBERS['ENODATA']!,
  EPROTO: NUMBERS['EPROTO']!,
  ENOTCONN: NUMBERS['ENOTCONN']!,
  ECONNABORTED: NUMBERS['ECONNABORTED']!,
} as const;

/** The number of an error's name, undefined for a name that is no errno. */
export function errnoOf(name: string): number | undefined {
  return NUMBERS[name];
}

/** The name of an errno number, for messages. */
export function errnoName(number: number): string {
  for (const [name, value] of Object.entries(NUMBERS)) if (value === number) return name;
  return `errno ${number}`;
}

/**
 * The errno that answers a request which threw `error`: the view's FsError and Node's system errors carry the name in `code`.
 * Everything else (a corrupt sector, our own bug) is undefined: EIO for the caller, and worth a loud message.
 */
export function errnoOfError(error: unknown): number | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  const { code } = error;
  return typeof code === 'string' ? NUMBERS[code] : undefined;
}

/** Whether `error` says that there is no such name (ENOENT). */
export function isNoEntry(error: unknown): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === 'ENOENT';
}
