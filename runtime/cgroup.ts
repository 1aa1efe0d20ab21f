import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

const CGROUP_ROOT = '/sys/fs/cgroup';

/** The cgroups of a process (cgroups(7)): controllers as /proc/PID/cgroup lists them (`` for v2) -> path. Empty when it is gone. */
export async function cgroupPaths(pid: number): Promise<Record<string, string>> {
  const text = await readFile(`/proc/${pid}/cgroup`, 'latin1').catch(() => '');
  const entries = text
    .trim()
    .split('\n')
    .filter((line) => line.includes(':'))
    .map((line) => line.split(':'))
    .map(([, controllers, ...path]) => [controllers!, path.join(':')] as const);
  return Object.fromEntries(entries);
}

/** The directory of a controller's hierarchy; v2 when the controller has none of its own. */
function directory(cgroups: Record<string, string>, controller: string): string | undefined {
  for (const [list, path] of Object.entries(cgroups)) {
    if (list.split(',').includes(controller)) return join(CGROUP_ROOT, list, path);
  }
  const unified = cgroups[''];
  return unified === undefined ? undefined : join(CGROUP_ROOT, unified);
}

async function read(dir: string | undefined, ...names: string[]): Promise<string> {
  if (dir === undefined) return '';
  for (const name of names) {
    const text = await readFile(join(dir, name), 'latin1').catch(() => undefined);
    if (text !== undefined) return text;
  }
  return '';
}

const field = (text: string, name: string): number => Number(new RegExp(`^${name} (\\d+)`, 'm').exec(text)?.[1] ?? 0);

/** How often the kernel killed for lack of memory in the container (memory.oom_control of v1, memory.events of v2). */
export async function oomKills(cgroups: Record<string, string>): Promise<number> {
  return field(await read(directory(cgroups, 'memory'), 'memory.oom_control', 'memory.events'), 'oom_kill');
}

/** The numbers of a container's processes, on the host. */
export async function cgroupPids(cgroups: Record<string, string>): Promise<number[]> {
  const dir = directory(cgroups, 'pids');
  if (dir === undefined) return [];
  const own = (await read(dir, 'cgroup.procs')).trim().split('\n').filter(Boolean).map(Number);
  const below = await readdir(dir, { withFileTypes: true, recursive: true }).catch(() => []);
  for (const entry of below) {
    if (!entry.isDirectory()) continue;
    const text = await read(join(entry.parentPath, entry.name), 'cgroup.procs');
    own.push(...text.trim().split('\n').filter(Boolean).map(Number));
  }
  return own;
}

/** What a container uses; bytes, and nanoseconds of CPU time. Limits of 0 are none. */
export interface Usage {
  cpuNs: number;
  memoryBytes: number;
  memoryLimitBytes: number;
  pids: number;
  netReceivedBytes: number;
  netSentBytes: number;
  blockReadBytes: number;
  blockWrittenBytes: number;
  /** When this was read, milliseconds since the epoch. */
  atMs: number;
}

/** Reads what a container uses from its cgroups (v1 or v2) and its network namespace. */
export async function usage(cgroups: Record<string, string>, initPid: number): Promise<Usage> {
  const memory = directory(cgroups, 'memory');
  const cpu = directory(cgroups, 'cpuacct');
  const [cpuV1, cpuV2, bytes, stat, limit, pids, io, net] = await Promise.all([
    read(cpu, 'cpuacct.usage'),
    read(cpu, 'cpu.stat'),
    read(memory, 'memory.usage_in_bytes', 'memory.current'),
    read(memory, 'memory.stat'),
    read(memory, 'memory.limit_in_bytes', 'memory.max'),
    read(directory(cgroups, 'pids'), 'pids.current'),
    read(directory(cgroups, 'blkio'), 'blkio.throttle.io_service_bytes', 'io.stat'),
    readFile(`/proc/${initPid}/net/dev`, 'latin1').catch(() => ''),
  ]);
  const cache = field(stat, 'total_inactive_file') || field(stat, 'inactive_file');
  const limitBytes = Number(limit.trim());
  const links = [...net.matchAll(/^\s*(\S+):\s*(\d+)(?:\s+\d+){7}\s+(\d+)/gm)].filter((m) => m[1] !== 'lo');
  const sum = (pattern: RegExp): number => [...io.matchAll(pattern)].reduce((total, m) => total + Number(m[1]), 0);
  return {
    cpuNs: cpuV1 === '' ? field(cpuV2, 'usage_usec') * 1000 : Number(cpuV1),
    memoryBytes: Math.max(0, Number(bytes) - cache),
    memoryLimitBytes: Number.isFinite(limitBytes) && limitBytes < 2 ** 60 ? limitBytes : 0,
    pids: Number(pids),
    netReceivedBytes: links.reduce((total, m) => total + Number(m[2]), 0),
    netSentBytes: links.reduce((total, m) => total + Number(m[3]), 0),
    blockReadBytes: sum(/ Read (\d+)/g) + sum(/rbytes=(\d+)/g),
    blockWrittenBytes: sum(/ Write (\d+)/g) + sum(/wbytes=(\d+)/g),
    atMs: Date.now(),
  };
}
