import { readFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import type { Table } from './table.ts';

/**
 * A promise to the collector: until it is released, nothing that was in the store when it began, or was added since, is removed.
 * Whoever makes records that reach contents or nodes (an import, a receiving node, a starting container) holds one from before its
 * first look into the store until its records are there. A lease ends with its process, however that ends.
 */
export interface Lease {
  readonly id: string;
  release(): void;
}

/** What the leases table holds for a lease, as JSON. */
export interface LeaseRecord {
  purpose: string;
  pid: number;
  /** Start time of the process in clock ticks since boot (proc(5), stat field 22): a pid alone may be someone else's by now. */
  startTicks: string;
  bootId: string;
  /** Value of the collector's epoch when the lease began. */
  epoch: number;
}

/** Start time of a process (proc(5): field 22 of stat, counted after the parenthesised name), or undefined if there is none. */
function startTicksOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

const bootId = (): string => readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();

/** A record for a lease of this process. */
export function newLeaseRecord(purpose: string, epoch: number): { id: string; record: LeaseRecord } {
  const record = { purpose, pid: process.pid, startTicks: startTicksOf(process.pid) ?? '', bootId: bootId(), epoch };
  return { id: randomBytes(8).toString('hex'), record };
}

/** Removes the leases of dead processes from `table`; the others remain and are returned. Call it inside a transaction. */
export function livingLeases(table: Table): { id: string; record: LeaseRecord }[] {
  const living: { id: string; record: LeaseRecord }[] = [];
  const boot = bootId();
  const dead: Buffer[] = [];
  for (const { key, value } of table.range()) {
    const record = JSON.parse(value.toString()) as LeaseRecord;
    if (record.bootId === boot && startTicksOf(record.pid) === record.startTicks)
      living.push({ id: key.toString(), record });
    else dead.push(key);
  }
  for (const key of dead) table.remove(key);
  return living;
}
