import { PgError } from '../mdm/error.ts';

/** Paths inside containers are bytes (latin1 strings within pg); here they become words for people, and words become paths. */

/** The bytes of what was typed; with `escapes`, \xHH is a byte and \\ a backslash. BAD_PATH. */
export function pathOfWord(word: string, escapes: boolean): string {
  const bytes = Buffer.from(word, 'utf8').toString('latin1');
  if (!escapes) return bytes;
  return bytes.replaceAll(/\\(x[0-9a-fA-F]{2}|\\)?/g, (_, escape: string | undefined) => {
    if (escape === undefined)
      throw new PgError('BAD_PATH', `${word}: with --escapes a backslash is \\\\ and a byte \\xHH`);
    return escape === '\\' ? escape : String.fromCharCode(parseInt(escape.slice(1), 16));
  });
}

/** A path to be shown: UTF-8 as it is; with bytes that are none, or that move a terminal's cursor, as `pathOfWord` reads it with escapes. */
export function wordOfPath(path: string): string {
  const text = Buffer.from(path, 'latin1').toString('utf8');
  const isPlain = Buffer.from(text, 'utf8').toString('latin1') === path && !/\p{C}/u.test(text);
  if (isPlain) return text;
  return path.replaceAll(/[^\x20-\x7e]|\\/g, (c) =>
    c === '\\' ? '\\\\' : `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
