import { PgError } from '../mdm/error.ts';
import type { Retain } from '../fs/log/retention.ts';
import { parseSize } from './sizes.ts';

const UNIT_MS: Record<string, number> = { s: 1e3, min: 60e3, h: 3600e3, d: 86400e3, w: 7 * 86400e3 };

/** `1g`, `7d`, `1g,12h`, `none`: how much history to keep. Sizes are b k m g t, times s min h d w. PgError BAD_USAGE. */
export function parseRetain(text: string): Retain {
  const retain: Retain = { bytes: null, ms: null };
  if (text === 'none') return retain;
  for (const word of text.split(',')) {
    const time = /^(\d+(?:\.\d+)?)(s|min|h|d|w)$/.exec(word.trim());
    const isSize = /^\d+(\.\d+)?\s*[bkmgt](i?b)?$/i.test(word.trim());
    if (time !== null) retain.ms = Number(time[1]) * UNIT_MS[time[2]!]!;
    else if (isSize) retain.bytes = parseSize(word, 'retain');
    else {
      throw new PgError('BAD_USAGE', `invalid retain: '${text}'`, {
        hint: 'a size (500m, 2g), a time (90min, 12h, 7d), both with a comma between them, or none',
      });
    }
  }
  return retain;
}
