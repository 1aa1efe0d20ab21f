import { readFileSync } from 'node:fs';
import type { ContainerConfig } from './record.ts';

export type Ulimit = ContainerConfig['ulimits'][number];

/** Names of setrlimit(2)'s resources as /proc/PID/limits has them (proc(5)). */
const LINE_OF: Record<string, string> = {
  core: 'Max core file size',
  cpu: 'Max cpu time',
  data: 'Max data size',
  fsize: 'Max file size',
  locks: 'Max file locks',
  memlock: 'Max locked memory',
  msgqueue: 'Max msgqueue size',
  nice: 'Max nice priority',
  nofile: 'Max open files',
  nproc: 'Max processes',
  rss: 'Max resident set',
  rtprio: 'Max realtime priority',
  rttime: 'Max realtime timeout',
  sigpending: 'Max pending signals',
  stack: 'Max stack size',
};
const CAP_SYS_RESOURCE = 24n;

/**
 * The limits as this host lets us set them: without CAP_SYS_RESOURCE nobody can go above the hard limit that he has (setrlimit(2)), so what asks
 * for more gets that.
 */
export function allowedUlimits(asked: readonly Ulimit[]): Ulimit[] {
  if (asked.length === 0 || mayRaise()) return [...asked];
  const limits = readFileSync('/proc/self/limits', 'latin1');
  return asked.map((limit) => {
    const most = hardLimit(limits, limit.name);
    return { name: limit.name, soft: Math.min(limit.soft, most), hard: Math.min(limit.hard, most) };
  });
}

function mayRaise(): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> CAP_SYS_RESOURCE) & 1n) === 1n;
}

function hardLimit(limits: string, name: string): number {
  const line = limits.split('\n').find((words) => words.startsWith(LINE_OF[name] ?? '?'));
  const hard = line?.slice(LINE_OF[name]!.length).trim().split(/\s+/)[1];
  return hard === undefined || hard === 'unlimited' ? Infinity : Number(hard);
}
