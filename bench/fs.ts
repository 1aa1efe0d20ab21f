/**
 * The filesystem beside its peers on the same disk in one run: a pg mount, fuse-overlayfs, and the kernel's overlayfs, each with the same
 * lower tree and an empty writable layer. `node bench/fs.ts [ROUNDS] [ROW...]` prints a markdown table of the best round of each: on a
 * shared machine what others do only ever slows a round down.
 */
import { lstatSync, writeFileSync } from 'node:fs';
import { machine, run, scratch, table } from './engines.ts';
import { dataRows } from './filesystem/data-rows.ts';
import { makeLower } from './filesystem/lower.ts';
import { metadataRows } from './filesystem/metadata-rows.ts';
import { programRows } from './filesystem/program-rows.ts';
import type { Row } from './filesystem/row.ts';
import { subjectsIn, type Subject } from './filesystem/subjects.ts';

const sync = (): void => void run('sync', []);

function dropCaches(): void {
  sync();
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

async function measure(subject: Subject, row: Row): Promise<number> {
  let root = await subject.mount();
  try {
    row.prepare?.(root);
    if (row.cold) {
      await subject.unmount(true);
      dropCaches();
      root = await subject.mount();
      lstatSync(root);
    } else sync();
    return row.measure(root);
  } finally {
    await subject.unmount();
  }
}

/** The best of the rounds, by row and subject; the subjects take turns. */
async function measureAll(subjects: Subject[], rows: Row[], rounds: number): Promise<number[][]> {
  const best = rows.map(() => subjects.map(() => 0));
  for (let round = 0; round < rounds; round++) {
    for (const [r, row] of rows.entries()) {
      for (const [s, subject] of subjects.entries()) {
        best[r]![s] = Math.max(best[r]![s]!, await measure(subject, row));
      }
      process.stderr.write(`round ${round + 1} of ${rounds}: ${row.name}: ${best[r]!.map(show).join('  ')}\n`);
    }
  }
  return best;
}

const show = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

async function main(): Promise<void> {
  const rounds = Number(process.argv[2] ?? 3);
  const wanted = process.argv.slice(3);
  const { dir, clean } = scratch('fs');
  try {
    const lower = await makeLower(dir);
    const subjects = subjectsIn(dir, lower);
    const rows = [...metadataRows(lower), ...dataRows(), ...programRows()].filter(
      (row) => wanted.length === 0 || wanted.some((word) => row.name.includes(word)),
    );
    const best = await measureAll(subjects, rows, rounds);
    table(
      `The filesystem: ${machine()}`,
      [
        `${lower.files} small files, best of ${rounds}`,
        'unit',
        ...subjects.map((s) => s.name),
        'to fuse-overlayfs',
        'to overlayfs',
      ],
      rows.map((row, r) => {
        const [ours, fuse, kernel] = best[r] as [number, number, number];
        return [row.name, row.unit, ...best[r]!.map(show), (ours / fuse).toFixed(2), (ours / kernel).toFixed(2)];
      }),
    );
  } finally {
    clean();
  }
}

await main();
