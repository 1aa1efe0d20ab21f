import { PgError } from '../mdm/error.ts';

/** A pattern of file names as the shell has it (glob(7)): `*`, `?`, `[a-z]`, `[!a-z]`, `\` before what is meant literally. Matches whole names. BAD_PATTERN. */
export function globToRegExp(pattern: string): RegExp {
  let source = '';
  for (let i = 0; i < pattern.length; i++) {
    const c = pattern[i]!;
    if (c === '*') source += '[^]*';
    else if (c === '?') source += '[^]';
    else if (c === '\\' && i + 1 < pattern.length) source += literal(pattern[++i]!);
    else if (c === '[' && endOfSet(pattern, i) > 0) {
      const end = endOfSet(pattern, i);
      const negated = pattern[i + 1] === '!' || pattern[i + 1] === '^';
      source += `[${negated ? '^' : ''}${pattern.slice(i + (negated ? 2 : 1), end).replaceAll(/[\\\]^[]/g, '\\$&')}]`;
      i = end;
    } else source += literal(c);
  }
  try {
    return new RegExp(`^${source}$`);
  } catch {
    throw new PgError('BAD_PATTERN', `${pattern} is no pattern of names: a range in it runs backwards`, {
      hint: 'as in the shell: * any characters, ? one, [a-z] one of these, \\ before what is meant literally',
    });
  }
}

const literal = (c: string): string => c.replace(/[\\^$.*+?()[\]{}|/]/, '\\$&');

/** Where the set that begins at `start` ends, or -1; a `]` that comes first is one of its characters. */
function endOfSet(pattern: string, start: number): number {
  const first = start + (pattern[start + 1] === '!' || pattern[start + 1] === '^' ? 2 : 1);
  return pattern.indexOf(']', first + 1);
}
