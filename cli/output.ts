import { Flags } from '@oclif/core';
import { PgError } from '../mdm/error.ts';
import { visible, visibleJson } from '../mdm/visible.ts';
import { renderTemplate } from './template.ts';

/** One column of a listing: its heading, the key that templates know it by, and how a row shows it. */
export interface Column<Row> {
  header: string;
  key: string;
  value(row: Row, noTrunc: boolean): string;
}

/** The flags of every listing. */
export const listFlags = {
  format: Flags.string({
    description: "'table', 'json', 'table TEMPLATE' or a Go template such as '{{.Names}}'",
    helpValue: 'FORMAT',
  }),
  quiet: Flags.boolean({ char: 'q', description: 'show ids only' }),
  'no-trunc': Flags.boolean({ description: 'do not shorten ids and commands' }),
};

export interface ListOptions {
  format?: string | undefined;
  quiet?: boolean | undefined;
  'no-trunc'?: boolean | undefined;
}

/**
 * Prints `rows` as docker prints a listing: aligned columns, `-q` (the value of `id`), `--format json` (one object a line),
 * `--format 'table {{.A}}\t{{.B}}'` or a plain template, a line a row.
 */
export function printList<Row>(
  rows: readonly Row[],
  columns: readonly Column<Row>[],
  id: (row: Row, noTrunc: boolean) => string,
  options: ListOptions,
): void {
  const noTrunc = options['no-trunc'] === true;
  const format = options.format ?? 'table';
  if (options.quiet === true) return write(rows.map((row) => id(row, noTrunc)));
  const record = (row: Row): Record<string, string> =>
    Object.fromEntries(columns.map((c) => [c.key, c.value(row, noTrunc)]));
  if (format === 'json') return write(rows.map((row) => visibleJson(JSON.stringify(record(row)))));
  if (format === 'table') {
    return write(
      align([columns.map((c) => c.header), ...rows.map((row) => columns.map((c) => c.value(row, noTrunc)))]),
    );
  }
  if (format.startsWith('table ')) {
    const template = format.slice('table '.length);
    const headings = Object.fromEntries(columns.map((c) => [c.key, c.header]));
    return write(align([headings, ...rows.map(record)].map((line) => renderTemplate(template, line).split('\t'))));
  }
  write(rows.map((row) => renderTemplate(format, record(row))));
}

/** Prints the objects of an `inspect`: a JSON array, or the template once for each. */
export function printObjects(objects: readonly object[], format: string | undefined): void {
  if (format === undefined || format === 'json') {
    process.stdout.write(`${visibleJson(JSON.stringify(objects, null, format === 'json' ? 0 : 4))}\n`);
  } else write(objects.map((object) => renderTemplate(format, object)));
}

/** A program gets what a template gives as it is, a terminal what it can show. */
function write(lines: string[]): void {
  const text = `${lines.join('\n')}\n`;
  if (lines.length > 0) process.stdout.write(process.stdout.isTTY ? visible(text) : text);
}

/** Columns side by side, three spaces apart, as docker has them. */
function align(lines: string[][]): string[] {
  const widths: number[] = [];
  lines = lines.map((line) => line.map((cell) => visible(cell).replaceAll(/[\n\t]/g, ' ')));
  for (const line of lines) line.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  return lines.map((line) =>
    line
      .map((cell, i) => (i === line.length - 1 ? cell : cell.padEnd(widths[i]! + 3)))
      .join('')
      .trimEnd(),
  );
}

/** `--filter key=value` words as a map of allowed values; a word without `=` or an unknown key is an error. */
export function parseFilters(words: readonly string[] | undefined, known: readonly string[]): Map<string, string[]> {
  const filters = new Map<string, string[]>();
  for (const word of words ?? []) {
    const at = word.indexOf('=');
    const key = at < 0 ? word : word.slice(0, at);
    if (at < 0 || !known.includes(key)) {
      throw new PgError('BAD_FILTER', `invalid filter '${word}'`, {
        hint: `a filter is KEY=VALUE with KEY one of: ${known.join(', ')}`,
      });
    }
    filters.set(key, [...(filters.get(key) ?? []), word.slice(at + 1)]);
  }
  return filters;
}

/** A size as docker shows it: powers of 1000, three significant digits. */
export function humanSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${Number(value.toPrecision(3))}${units[unit]}`;
}

/** A span of time in words as docker shows it: `2 hours`, `About a minute`. */
export function humanDuration(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 1) return 'Less than a second';
  if (seconds === 1) return '1 second';
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.floor(seconds / 60);
  if (minutes === 1) return 'About a minute';
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.round(seconds / 3600);
  if (hours === 1) return 'About an hour';
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 14) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 60) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}
