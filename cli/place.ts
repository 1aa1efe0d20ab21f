import { PgError } from '../mdm/error.ts';
import { pathOfWord } from './paths.ts';

/** `NAME[@POSITION][:/PATH]` taken apart: an image, a container or a named mount; a position of the latter two; a path, its bytes as latin1. */
export interface Place {
  name: string;
  /** As typed, without the `@`; undefined when there was none. */
  position: string | undefined;
  /** undefined when there was none. */
  path: string | undefined;
}

/** What follows an `@` in an image's name is a digest, not a position. */
const DIGEST = /^sha\d+:/;

/**
 * Reads a place. A path begins at the first `:/`, so that times with colons in them are positions: `web@2026-01-31T12:00:00Z:/etc`. PgError BAD_USAGE for
 * an `@` with nothing before it.
 */
export function parsePlace(word: string): Place {
  const at = word.indexOf('@');
  const braceEnd = at >= 0 && word[at + 1] === '{' ? word.indexOf('}', at) : -1;
  const slash = word.indexOf(':/', Math.max(0, braceEnd));
  const path = slash < 0 ? undefined : pathOfWord(word.slice(slash + 1), false);
  const whole = slash < 0 ? word : word.slice(0, slash);
  if (at < 0 || at > whole.length || DIGEST.test(word.slice(at + 1))) return { name: whole, position: undefined, path };
  if (at === 0) {
    throw new PgError('BAD_USAGE', `${word}: there is no container before the @`, { hint: 'CONTAINER@POSITION' });
  }
  return { name: whole.slice(0, at), position: whole.slice(at + 1), path };
}

/** As `parsePlace`, of what must name a container alone: a path is PgError BAD_USAGE. */
export function parseContainerAt(word: string): { name: string; position: string | undefined } {
  const { name, position, path } = parsePlace(word);
  if (path === undefined) return { name, position };
  throw new PgError('BAD_USAGE', `${word} names a path in a container, not a container`, {
    hint: `leave out :${path}`,
  });
}
