import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { shaped, text, uint } from './shape.ts';

/**
 * A promise to the collector: until it is released, nothing that was in the store when it began, or was added since, is
 * removed. Whoever makes records that reach contents or nodes (an import, a receiving node, a starting container) holds
 * one from before its first look into the store until its records are there. A lease ends with its process, however
 * that ends.
 */
export interface Lease {
  readonly id: string;
  release(): void;
}

/** What the file of a lease holds, as JSON (docs/formats/store.md). */
export interface LeaseRecord {
  purpose: string;
  pid: number;
  /**
   * Start time of the process in clock ticks since boot (proc(5), stat field 22): a pid alone may be someone else's by
   * now.
   */
  startTicks: string;
  bootId: string;
  /**
   * The collector's epoch when the lease began; 0, which holds everything, until the file has been written for the
   * second time.
   */
  epoch: number;
}

/**
 * Start time of a process (proc(5): field 22 of stat, counted after the parenthesised name), or undefined if there is
 * none.
 */
export function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();

/**
 * Begins a lease of this process: a file in `dir`. It is there before the epoch is read: a collector that does not see
 * the file condemned what it condemned before that, so that we see its marks.
 */
export function beginLease(dir: string, purpose: string, readEpoch: () => number): Lease {
  const id = randomBytes(8).toString('hex');
  const path = join(dir, id);
  const record: LeaseRecord = {
    purpose,
    pid: process.pid,
    startTicks: startTicksOf(process.pid) ?? '',
    bootId: bootId(),
    epoch: 0,
  };
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  writeRecord(path, record);
  writeRecord(path, { ...record, epoch: readEpoch() });
  return { id, release: () => rmSync(path, { force: true }) };
}

/** Not synced: a lease does not outlive its process. Renamed into place, so that nobody reads half of it. */
function writeRecord(path: string, record: LeaseRecord): void {
  writeFileSync(`${path}.new`, JSON.stringify(record));
  renameSync(`${path}.new`, path);
}

const LEASE = shaped({ purpose: text, pid: uint, startTicks: text, bootId: text, epoch: uint });

/** The leases in `dir` whose processes live; the files of the others are removed. */
export function livingLeases(dir: string): { id: string; record: LeaseRecord }[] {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const boot = bootId();
  const living: { id: string; record: LeaseRecord }[] = [];
  for (const id of readdirSync(dir)) {
    if (id.endsWith('.new')) continue;
    const path = join(dir, id);
    let record: LeaseRecord;
    try {
      record = JSON.parse(readFileSync(path, 'utf8')) as LeaseRecord;
      if (LEASE(record) !== undefined) throw new Error('no lease');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue; // released meanwhile
      record = { purpose: '', pid: 0, startTicks: '', bootId: '', epoch: 0 }; // torn by a power cut: its process is gone
    }
    if (record.bootId === boot && startTicksOf(record.pid) === record.startTicks) living.push({ id, record });
    else for (const dead of [path, `${path}.new`]) rmSync(dead, { force: true });
  }
  return living;
}
