import { PgError } from '../../mdm/error.ts';

/** A position in a log's history as it is typed; which commit it means is for `resolvePosition` to say. */
export type PositionWord =
  | { kind: 'latest' }
  /** Bytes of the log. Digits may also begin a root. */
  | { kind: 'size'; size: number; text: string }
  /** Hex digits that the root begins with, at least 8. */
  | { kind: 'root'; prefix: string }
  /** The last commit at or before this time, milliseconds since 1970. */
  | { kind: 'time'; ms: number; text: string }
  /** A snapshot's name. */
  | { kind: 'name'; name: string };

export const POSITION_HELP =
  "a snapshot's name, a commit's size or root (pg log shows them; at least 8 digits), a time such as -5m, {2 hours ago} or 2026-01-31T12:00:00Z, or latest";

const UNIT_MS: Record<string, number> = { s: 1e3, m: 60e3, h: 3600e3, d: 86400e3, w: 7 * 86400e3 };
const LONG_UNITS: Record<string, string> = {
  sec: 's',
  secs: 's',
  second: 's',
  seconds: 's',
  min: 'm',
  mins: 'm',
  minute: 'm',
  minutes: 'm',
  hour: 'h',
  hours: 'h',
  day: 'd',
  days: 'd',
  week: 'w',
  weeks: 'w',
};

/** What may be given as a snapshot's name: so that no name can be taken for another kind of position, or for a path. */
const NAME = /^[a-zA-Z][a-zA-Z0-9_.-]*$/;
const NAME_MAX_BYTES = 128;
const HEX = /^[0-9a-f]{8,64}$/;

/** Reads a position; `now` is what times are counted back from. PgError BAD_POSITION. */
export function parsePosition(word: string, now: number): PositionWord {
  const text = word.startsWith('@') ? word.slice(1) : word;
  if (text === '' || text === 'latest') {
    if (text === '') throw badPosition(word);
    return { kind: 'latest' };
  }
  const braces = /^\{(.*)\}$/.exec(text);
  if (braces !== null) return { kind: 'time', ms: timeOf(braces[1]!.trim(), now, word), text: braces[1]!.trim() };
  if (text.startsWith('-')) return { kind: 'time', ms: now - spanOf(text.slice(1), word), text };
  if (/^\d{4}-\d{2}/.test(text)) return { kind: 'time', ms: dateOf(text, word), text };
  if (/^\d+$/.test(text) && Number.isSafeInteger(Number(text))) return { kind: 'size', size: Number(text), text };
  if (HEX.test(text.toLowerCase())) return { kind: 'root', prefix: text.toLowerCase() };
  if (NAME.test(text)) return { kind: 'name', name: text };
  throw badPosition(word);
}

/** PgError BAD_NAME unless a snapshot may have this name. */
export function checkSnapshotName(name: string): void {
  const isOther = name === 'latest' || HEX.test(name.toLowerCase()) || name.endsWith('.new');
  if (NAME.test(name) && !isOther && name.length <= NAME_MAX_BYTES) return;
  throw new PgError('BAD_NAME', `"${name}" cannot be the name of a snapshot`, {
    hint: 'a letter first, then a-z A-Z 0-9 _ . -; not latest, and not what could be the beginning of a root',
  });
}

function badPosition(word: string): PgError {
  return new PgError('BAD_POSITION', `"${word}" is no position`, { hint: `a position is ${POSITION_HELP}` });
}

/** `5 minutes ago`, `-5m`, `yesterday`, or a date. */
function timeOf(text: string, now: number, word: string): number {
  const ago = /^(.+?)\s+ago$/i.exec(text);
  if (ago !== null) return now - spanOf(ago[1]!, word);
  if (text === 'now') return now;
  if (text === 'yesterday') return now - UNIT_MS['d']!;
  if (text.startsWith('-')) return now - spanOf(text.slice(1), word);
  return dateOf(text, word);
}

/** `1h30m`, `90s`, `2 days`: milliseconds. */
function spanOf(text: string, word: string): number {
  const compact = text.replaceAll(/\s+/g, '').toLowerCase();
  const parts = [...compact.matchAll(/(\d+(?:\.\d+)?)([a-z]+)/g)];
  if (parts.length === 0 || parts.map(([all]) => all).join('') !== compact) throw badPosition(word);
  return parts.reduce((sum, [, count, unit]) => {
    const ms = UNIT_MS[LONG_UNITS[unit!] ?? unit!];
    if (ms === undefined) throw badPosition(word);
    return sum + Number(count) * ms;
  }, 0);
}

/** RFC 3339, also with a space for the T and without seconds; without a zone it is this machine's time. */
function dateOf(text: string, word: string): number {
  const isDate = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$/i.test(text);
  const ms = isDate ? Date.parse(text.length === 10 ? `${text}T00:00` : text.replace(' ', 'T')) : NaN;
  if (Number.isNaN(ms)) throw badPosition(word);
  return ms;
}
