import { openIndex } from './index-db.ts';
import type { ProbeReport } from './index-check.ts';
import type { Roots } from './paths.ts';
import type { Table } from './table.ts';

// Reads every entry of the index, in a process of its own: LMDB believes its pages, and where one is damaged it may end the process that reads it.
// argv is the roots as JSON and the directory of the index; the answer, a ProbeReport as JSON, goes to standard output.
const roots = JSON.parse(process.argv[2]!) as Roots;
const report: ProbeReport = { entries: 0, problems: [] };
const index = openIndex(roots, true, process.argv[3]);
for (const name of index.tableNames()) {
  try {
    const problem = problemOf(index.table(name));
    if (problem !== undefined) report.problems.push(`table ${name}: ${problem}`);
  } catch (error) {
    report.problems.push(`table ${name}: ${(error as Error).message}`);
  }
}
process.stdout.write(JSON.stringify(report));

/** What cannot be in a whole table: keys that are out of order, or more or fewer of them than it says it has. Values are looked at elsewhere. */
function problemOf(table: Table): string | undefined {
  let last: Buffer | undefined;
  let count = 0;
  for (const key of table.keys()) {
    if (last !== undefined && Buffer.compare(last, key) >= 0) return `keys are out of order after ${count} entries`;
    last = Buffer.from(key);
    count++;
  }
  // Touches every page of every value.
  for (const { value } of table.range({ onDamaged: () => {} })) report.entries += value.length >= 0 ? 1 : 0;
  const said = table.entryCount();
  return said === count ? undefined : `it has ${count} entries and says ${said}`;
}
