import { posix } from 'node:path';
import { customSeccomp, defaultSeccomp } from './seccomp.ts';
import { containerCapabilities } from './capabilities.ts';
import { allowedUlimits } from './ulimits.ts';
import type { ContainerConfig, ContainerRecord } from './record.ts';
import type { ResolvedUser } from './users.ts';

/** The process of an OCI runtime configuration (config.md, Process): for the container itself and for every exec. */
export interface ProcessSpec {
  terminal: boolean;
  consoleSize?: { height: number; width: number };
  user: { uid: number; gid: number; additionalGids: number[] };
  args: string[];
  env: string[];
  cwd: string;
  capabilities: Record<string, string[]>;
  rlimits: { type: string; soft: number; hard: number }[];
  noNewPrivileges: boolean;
}

interface MountSpec {
  destination: string;
  type: string;
  source: string;
  options: string[];
}

interface DeviceNode {
  path: string;
  type: 'c' | 'b';
  major: number;
  minor: number;
  fileMode: number;
  uid: number;
  gid: number;
  access: string;
}

/** What the host adds to the record when a container starts. */
export interface HostSide {
  /** Where the container's root is mounted. */
  rootPath: string;
  user: ResolvedUser;
  /** Network namespace to join; empty is the host's own. `new` makes an empty one (network none). */
  netns: string;
  /** Files of the host to show as /etc/hosts, /etc/hostname and /etc/resolv.conf. */
  etc: { hosts: string; hostname: string; resolvConf: string };
  hostname: string;
  /** Directory of each named volume. */
  volumeDirs: ReadonlyMap<string, string>;
  devices: DeviceNode[];
  /** A tini to run as process 1, if asked for. */
  initPath: string | null;
  /** CapBnd of this process. */
  boundingSet: bigint;
  /** RLIMIT_NOFILE of this process: what the container gets unless told otherwise. */
  nofileLimit: number;
  cgroup: { path: string; version: 1 | 2; swapAccounting: boolean };
  terminalSize: { rows: number; columns: number } | null;
}

const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
const INIT_IN_CONTAINER = '/sbin/docker-init';
const CPU_PERIOD_US = 100_000;

// moby, oci/defaults.go.
const MASKED_PATHS = [
  ...[
    'asound',
    'acpi',
    'interrupts',
    'kcore',
    'keys',
    'latency_stats',
    'timer_list',
    'timer_stats',
    'sched_debug',
    'scsi',
  ].map((name) => `/proc/${name}`),
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const PRIVATE_NET_SYSCTLS = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
};
const READONLY_PATHS = ['bus', 'fs', 'irq', 'sys', 'sysrq-trigger'].map((name) => `/proc/${name}`);

/** The whole config.json (OCI runtime spec 1.0.2) for a container on this host. */
export function buildSpec(record: ContainerRecord, host: HostSide): object {
  const config = record.config;
  const capabilities = containerCapabilities(config.capAdd, config.capDrop, config.privileged, host.boundingSet);
  const process = processSpec(config, host, capabilities);
  const privateNet = host.netns !== '';
  return {
    ociVersion: '1.0.2',
    hostname: host.hostname,
    process,
    root: { path: host.rootPath, readonly: config.readOnly },
    mounts: mounts(config, host),
    annotations: { 'org.promisegrid.pg.name': record.name },
    linux: {
      namespaces: namespaces(config, host),
      cgroupsPath: host.cgroup.path,
      resources: resources(config, host),
      devices: host.devices.map(({ access: _access, ...node }) => node),
      sysctl: { ...(privateNet && PRIVATE_NET_SYSCTLS), ...config.sysctls },
      ...(config.privileged ? {} : { maskedPaths: MASKED_PATHS, readonlyPaths: READONLY_PATHS }),
      ...seccomp(config, new Set(capabilities)),
    },
  };
}

/**
 * The config.json for a process on another root beside a running container, whose first process is `initPid`: in its namespaces but for that of mounts, with its volumes. Filesystems in memory are new:
 * the kernel lets nobody mount those of another namespace (mount(2), MS_BIND). Limits of the cgroup hold for it alone.
 */
export function besideSpec(
  record: ContainerRecord,
  host: HostSide,
  initPid: number,
  exec: Parameters<typeof execProcess>[2],
): object {
  const { config } = record;
  const spec = buildSpec(record, host) as { linux: object };
  const join = (type: string, file: string): { type: string; path: string } => ({
    type,
    path: `/proc/${initPid}/ns/${file}`,
  });
  const { hostname: _hostname, ...rest } = spec as { hostname?: string } & typeof spec;
  return {
    ...rest,
    process: execProcess(config, host, exec),
    linux: {
      ...spec.linux,
      sysctl: {},
      namespaces: [
        { type: 'mount' },
        join('uts', 'uts'),
        ...(config.hostPid === true ? [] : [join('pid', 'pid')]),
        ...(config.hostIpc === true ? [] : [join('ipc', 'ipc')]),
        ...(host.cgroup.version === 2 ? [{ type: 'cgroup' }] : []),
        ...(config.network === 'host' ? [] : [join('network', 'net')]),
      ],
    },
  };
}

/** The process of an exec in a running container: its own arguments, user and environment over the container's. */
export function execProcess(
  config: ContainerConfig,
  host: Pick<HostSide, 'boundingSet' | 'nofileLimit' | 'hostname'>,
  exec: {
    args: string[];
    env: string[];
    workdir: string | null;
    tty: boolean;
    privileged: boolean;
    user: ResolvedUser;
  },
): ProcessSpec {
  const capabilities = containerCapabilities(
    config.capAdd,
    config.capDrop,
    config.privileged || exec.privileged,
    host.boundingSet,
  );
  return {
    ...processSpec(
      { ...config, tty: exec.tty },
      { ...host, user: exec.user, initPath: null, terminalSize: null },
      capabilities,
    ),
    args: exec.args,
    env: environment(config, host.hostname, exec.tty, exec.user.home, exec.env),
    cwd: exec.workdir ?? (config.workdir || '/'),
  };
}

function processSpec(
  config: ContainerConfig,
  host: Pick<HostSide, 'user' | 'initPath' | 'nofileLimit' | 'terminalSize' | 'hostname'>,
  capabilities: string[],
): ProcessSpec {
  const args = [...config.entrypoint, ...config.cmd];
  // As the kernel has it for execve by another user (capabilities(7)): permitted and effective only for root.
  const own = host.user.uid === 0 ? capabilities : [];
  return {
    terminal: config.tty,
    ...(host.terminalSize && {
      consoleSize: { height: host.terminalSize.rows, width: host.terminalSize.columns },
    }),
    user: { uid: host.user.uid, gid: host.user.gid, additionalGids: host.user.additionalGids },
    args: host.initPath === null ? args : [INIT_IN_CONTAINER, '--', ...args],
    env: environment(config, host.hostname, config.tty, host.user.home, []),
    cwd: config.workdir || '/',
    capabilities: { bounding: capabilities, effective: own, permitted: own },
    rlimits: rlimits(config, host.nofileLimit),
    noNewPrivileges: config.noNewPrivileges,
  };
}

/** Docker's defaults, then the image's and the user's; of a name given twice the last counts. */
function environment(config: ContainerConfig, hostname: string, tty: boolean, home: string, more: string[]): string[] {
  const all = [DEFAULT_PATH, `HOSTNAME=${hostname}`, ...(tty ? ['TERM=xterm'] : []), ...config.env, ...more];
  const byName = new Map<string, string>();
  for (const word of all) byName.set(word.split('=', 1)[0]!, word);
  if (!byName.has('HOME')) byName.set('HOME', `HOME=${home}`);
  return [...byName.values()];
}

function rlimits(config: ContainerConfig, nofileLimit: number): ProcessSpec['rlimits'] {
  const limits = allowedUlimits(config.ulimits).map((u) => ({
    type: `RLIMIT_${u.name.toUpperCase()}`,
    soft: u.soft,
    hard: u.hard,
  }));
  if (!limits.some((l) => l.type === 'RLIMIT_NOFILE')) {
    limits.push({ type: 'RLIMIT_NOFILE', soft: nofileLimit, hard: nofileLimit });
  }
  return limits;
}

function namespaces(config: ContainerConfig, host: HostSide): { type: string; path?: string }[] {
  const list: { type: string; path?: string }[] = [{ type: 'uts' }, { type: 'mount' }];
  if (config.hostPid !== true) list.push({ type: 'pid' });
  if (config.hostIpc !== true) list.push({ type: 'ipc' });
  if (host.cgroup.version === 2) list.push({ type: 'cgroup' });
  if (host.netns === 'new') list.push({ type: 'network' });
  else if (host.netns !== '') list.push({ type: 'network', path: host.netns });
  return list;
}

function mounts(config: ContainerConfig, host: HostSide): MountSpec[] {
  const access = config.privileged ? 'rw' : 'ro';
  const list: MountSpec[] = [
    mount('/proc', 'proc', 'proc', ['nosuid', 'noexec', 'nodev']),
    mount('/dev', 'tmpfs', 'tmpfs', ['nosuid', 'strictatime', 'mode=755', 'size=65536k']),
    mount('/dev/pts', 'devpts', 'devpts', ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5']),
    mount('/sys', 'sysfs', 'sysfs', ['nosuid', 'noexec', 'nodev', access]),
    mount('/sys/fs/cgroup', 'cgroup', 'cgroup', [access, 'nosuid', 'noexec', 'nodev']),
    mount('/dev/mqueue', 'mqueue', 'mqueue', ['nosuid', 'noexec', 'nodev']),
    config.hostIpc === true
      ? bind('/dev/shm', '/dev/shm', false)
      : mount('/dev/shm', 'tmpfs', 'shm', ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${config.shmSizeBytes}`]),
  ];
  const chosen: MountSpec[] = [];
  for (const tmpfs of config.tmpfs) {
    chosen.push(mount(tmpfs.target, 'tmpfs', 'tmpfs', ['nosuid', 'nodev', 'noexec', ...tmpfs.options]));
  }
  for (const volume of config.volumes) {
    const source = volume.kind === 'bind' ? volume.source : host.volumeDirs.get(volume.source)!;
    chosen.push(bind(source, volume.target, volume.readOnly));
  }
  if (host.initPath !== null) chosen.push(bind(host.initPath, INIT_IN_CONTAINER, true));
  const taken = new Set(chosen.map((m) => posix.normalize(m.destination)));
  const etc: [string, string][] = [
    ['/etc/resolv.conf', host.etc.resolvConf],
    ['/etc/hostname', host.etc.hostname],
    ['/etc/hosts', host.etc.hosts],
  ];
  for (const [target, source] of etc) if (!taken.has(target)) chosen.push(bind(source, target, config.readOnly));
  // A mount inside another one comes after it.
  const depth = (m: MountSpec): number => posix.normalize(m.destination).split('/').length;
  chosen.sort((a, b) => depth(a) - depth(b));
  const replaced = new Set(chosen.map((m) => posix.normalize(m.destination)));
  return [...list.filter((m) => !replaced.has(m.destination)), ...chosen];
}

const mount = (destination: string, type: string, source: string, options: string[]): MountSpec => ({
  destination,
  type,
  source,
  options,
});

const bind = (source: string, destination: string, readOnly: boolean): MountSpec =>
  mount(destination, 'bind', source, ['rbind', 'rprivate', readOnly ? 'ro' : 'rw']);

function resources(config: ContainerConfig, host: HostSide): object {
  const { memoryBytes, memorySwapBytes, cpus, cpuShares, cpusetCpus, pidsLimit } = config.resources;
  const swap = memorySwapBytes ?? (memoryBytes === undefined ? undefined : memoryBytes * 2);
  const rules = config.privileged
    ? [{ allow: true, access: 'rwm' }]
    : [
        { allow: false, access: 'rwm' },
        ...host.devices.map((d) => ({ allow: true, type: d.type, major: d.major, minor: d.minor, access: d.access })),
      ];
  return {
    devices: rules,
    ...(memoryBytes !== undefined && {
      memory: { limit: memoryBytes, ...(host.cgroup.swapAccounting && swap !== undefined && { swap }) },
    }),
    ...((cpus !== undefined || cpuShares !== undefined || cpusetCpus !== undefined) && {
      cpu: {
        ...(cpus !== undefined && { period: CPU_PERIOD_US, quota: Math.round(cpus * CPU_PERIOD_US) }),
        ...(cpuShares !== undefined && { shares: cpuShares }),
        ...(cpusetCpus !== undefined && { cpus: cpusetCpus }),
      },
    }),
    ...(pidsLimit !== undefined && pidsLimit > 0 && { pids: { limit: pidsLimit } }),
  };
}

function seccomp(config: ContainerConfig, capabilities: ReadonlySet<string>): { seccomp?: object } {
  if (config.privileged || config.seccomp === 'unconfined') return {};
  if (config.seccomp === 'default') return { seccomp: defaultSeccomp(capabilities) };
  return { seccomp: customSeccomp(config.seccomp, capabilities) };
}
