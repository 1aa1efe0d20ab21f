import { existsSync, lstatSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { PgError } from '../mdm/error.ts';
import type { ContainerConfig } from './record.ts';
import type { HostSide } from './spec.ts';

type DeviceNode = HostSide['devices'][number];

/** Which cgroups this machine has, and the path of a container's in each hierarchy. PgError('NO_CGROUPS') when none are mounted. */
export function hostCgroup(id: string): HostSide['cgroup'] {
  const path = `/pg/${id}`;
  if (existsSync('/sys/fs/cgroup/cgroup.controllers')) return { path, version: 2, swapAccounting: true };
  if (!existsSync('/sys/fs/cgroup/memory') && !existsSync('/sys/fs/cgroup/pids')) {
    throw new PgError('NO_CGROUPS', 'no cgroups are mounted at /sys/fs/cgroup', {
      hint: "'ip netns exec' hides them: enter a network namespace with 'nsenter --net=/run/netns/NAME' instead",
    });
  }
  return { path, version: 1, swapAccounting: existsSync('/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes') };
}

/** CapBnd and the limit of open files of this process (proc(5)). */
export function hostLimits(): { boundingSet: bigint; nofileLimit: number } {
  const bounding = /^CapBnd:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0';
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
  const limit = hard === undefined || hard === 'unlimited' ? 1_048_576 : Number(hard);
  return { boundingSet: BigInt(`0x${bounding}`), nofileLimit: Math.min(limit, 1_048_576) };
}

const INIT_PROGRAMS = ['docker-init', 'tini', 'tini-static', 'catatonit'];

/** Path of a small init on this host; PgError('NO_INIT') with what to install. */
export function findInit(): string {
  for (const name of INIT_PROGRAMS) {
    for (const dir of ['/usr/bin', '/usr/sbin', '/usr/local/bin', '/usr/libexec/podman', '/usr/libexec/catatonit']) {
      if (existsSync(join(dir, name))) return join(dir, name);
    }
  }
  throw new PgError('NO_INIT', '--init needs tini, docker-init or catatonit, and none is installed', {
    hint: 'apt install tini',
  });
}

/** The device nodes a container gets beyond the usual ones: those named by --device; all of the host's when privileged. */
export function hostDevices(config: ContainerConfig): DeviceNode[] {
  const nodes: DeviceNode[] = [];
  if (config.privileged) collectDevices('/dev', nodes);
  for (const { source, target, access } of config.devices) nodes.push(deviceNode(source, target, access));
  return nodes;
}

function deviceNode(source: string, target: string, access: string): DeviceNode {
  let stat;
  try {
    stat = statSync(source);
  } catch {
    throw new PgError(
      'NO_DEVICE',
      `error gathering device information while adding custom device "${source}": no such file or directory`,
    );
  }
  if (!stat.isCharacterDevice() && !stat.isBlockDevice()) {
    throw new PgError('NO_DEVICE', `${source} is not a device`, { hint: 'bind a file or directory with -v' });
  }
  return {
    path: target,
    type: stat.isBlockDevice() ? 'b' : 'c',
    // The kernel's dev_t as glibc spreads it (makedev(3)).
    major: Number(((BigInt(stat.rdev) >> 8n) & 0xfffn) | ((BigInt(stat.rdev) >> 32n) & ~0xfffn)),
    minor: Number((BigInt(stat.rdev) & 0xffn) | ((BigInt(stat.rdev) >> 12n) & ~0xffn)),
    fileMode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    access,
  };
}

const NOT_FROM_HOST = new Set(['pts', 'shm', 'fd', 'mqueue', 'console', '.lxc', '.lxd-mounts', '.udev']);

function collectDevices(dir: string, nodes: DeviceNode[]): void {
  for (const entry of readdirSync(dir)) {
    if (NOT_FROM_HOST.has(entry)) continue;
    const path = join(dir, entry);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat?.isDirectory()) collectDevices(path, nodes);
    else if (stat?.isCharacterDevice() || stat?.isBlockDevice()) nodes.push(deviceNode(path, path, 'rwm'));
  }
}

/** --runtime's program on this host; PgError('NO_RUNTIME') with what to install. */
export function findRuntime(name: 'runc' | 'crun'): string {
  for (const dir of ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']) {
    if (existsSync(join(dir, name))) return join(dir, name);
  }
  throw new PgError('NO_RUNTIME', `${name} is not installed`, { hint: `apt install ${name}` });
}
