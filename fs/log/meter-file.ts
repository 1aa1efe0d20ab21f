import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Cost } from '../../mdm/cost.ts';
import { Meter } from '../../mdm/meter.ts';
import { isDiskFull } from './disk.ts';
import { type Entry, getU64, TYPE_COMMIT } from './entry.ts';

/** The file `meter` beside a log (docs/metering.md): what was spent up to the batch that ended at `size`. */
export interface MeterFile {
  version: 1;
  size: number;
  spent: Cost;
}

const RESOURCES = ['accesses', 'read', 'written', 'compute'] as const;
const isCount = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value) && value >= 0;

/** The meter of the log in a directory, over restarts. */
export class MeterKeeper {
  readonly meter = new Meter();
  readonly #dir: string;
  /** What the file holds. */
  #savedSize = 0;
  #saved: object;

  /** Of a log that ends at `size`. */
  constructor(dir: string, size: number) {
    this.#dir = dir;
    const file = readMeter(dir);
    if (file !== undefined) this.meter.restore(file.spent, size);
    // A batch may have been counted that a crash then kept from the disk.
    this.#savedSize = Math.min(file?.size ?? 0, size);
    this.#saved = this.meter.spent;
  }

  /** Counts a batch after which the file was not written: `entry` is met in replay, and ends at `end`. */
  replay(entry: Entry, end: number): void {
    if (entry.type !== TYPE_COMMIT || end <= this.#savedSize) return;
    const start = getU64(entry.view, entry.fieldsStart);
    this.meter.append(start, end - start);
  }

  /** Writes the file, if something was spent: what it holds is up to the batch that ended at `size`. */
  save(size: number): void {
    const { spent } = this.meter;
    if (spent === this.#saved) return;
    writeMeter(this.#dir, { version: 1, size, spent });
    this.#saved = spent;
    this.#savedSize = size;
  }
}

/** What this text says; undefined when it is no meter file: then what its log's entries cost is counted anew. */
export function parseMeter(text: string): MeterFile | undefined {
  try {
    const { version, size, spent } = JSON.parse(text) as MeterFile;
    const { accesses, read, written, compute } = spent;
    if (version !== 1 || !isCount(size) || !RESOURCES.every((name) => isCount(spent[name]))) return undefined;
    return { version, size, spent: { accesses, read, written, compute } };
  } catch {
    return undefined;
  }
}

/** The meter file of the log in `dir`; undefined when there is none, or it is damaged. */
export function readMeter(dir: string): MeterFile | undefined {
  try {
    return parseMeter(readFileSync(join(dir, 'meter'), 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

/** Replaces it, not durably: what a power cut takes of it was not counted. On a full disk the old one stays. */
export function writeMeter(dir: string, meter: MeterFile): void {
  const path = join(dir, 'meter');
  try {
    writeFileSync(`${path}.new`, `${JSON.stringify(meter)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
  }
}
