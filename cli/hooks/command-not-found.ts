import type { Hook } from '@oclif/core/hooks';
import { EXIT_ENGINE } from '../base.ts';

/** `pg imprt`: says so as docker does, with the nearest command there is. */
const commandNotFound: Hook.CommandNotFound = async function ({ config, id }) {
  const typed = id.split(':')[0]!;
  const known = [...new Set(config.commands.filter((c) => !c.hidden).map((c) => c.id.split(':')[0]!))];
  const nearest = known.toSorted((a, b) => distance(typed, a) - distance(typed, b))[0];
  const guess = nearest !== undefined && distance(typed, nearest) <= 2 ? `did you mean 'pg ${nearest}'? ` : '';
  process.stderr.write(`pg: '${typed}' is not a pg command\n    ${guess}see 'pg --help'\n`);
  this.exit(EXIT_ENGINE);
};

/** Edits from one word to the other (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

export default commandNotFound;
