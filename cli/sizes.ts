import { PgError } from '../mdm/error.ts';

const SIZE_UNITS: Record<string, number> = { '': 1, b: 1, k: 1 << 10, m: 1 << 20, g: 1 << 30, t: 2 ** 40 };

/** A size as docker takes it: `64m`, `1.5g`, `1024`; bytes. PgError('BAD_USAGE') says `what` it is of. */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?$/i.exec(text.trim());
  if (match === null) {
    throw new PgError('BAD_USAGE', `invalid ${what}: '${text}'`, {
      hint: 'a size is a number with b, k, m, g or t behind it',
    });
  }
  return Math.floor(Number(match[1]) * SIZE_UNITS[match[2]!.toLowerCase()]!);
}
