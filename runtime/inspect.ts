import type { Roots } from '../store/paths.ts';
import { containerDir } from '../store/paths.ts';
import type { Container } from './containers.ts';
import type { Metering } from './metering.ts';
import { logDirOf, outputPath } from './record.ts';
import type { PublishedPort } from './record.ts';
import { rootPathOf } from './remains.ts';
import { volumeDir } from './volumes.ts';

/** `{"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}` */
function portMap(ports: readonly PublishedPort[]): Record<string, { HostIp: string; HostPort: string }[]> {
  const map: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const port of ports) {
    (map[`${port.containerPort}/${port.protocol}`] ??= []).push({
      HostIp: port.hostIp || '0.0.0.0',
      HostPort: String(port.hostPort),
    });
  }
  return map;
}

/**
 * A container as `docker inspect` shows it, and below `Pg` what only this engine has: the root of its image's tree and the position of
 * its writable layer (`position` is the newest known one).
 */
export function inspectContainer(
  roots: Roots,
  { record, state }: Container,
  position: Container['state']['position'],
  metering: Metering,
): object {
  const { config } = record;
  const args = [...config.entrypoint, ...config.cmd];
  const network = state.network;
  return {
    Id: record.id,
    Created: record.createdAt,
    Path: args[0] ?? '',
    Args: args.slice(1),
    State: {
      Status: state.status,
      Running: state.status === 'running' || state.status === 'restarting',
      Paused: false,
      Restarting: state.status === 'restarting',
      OOMKilled: state.oomKilled,
      Dead: state.status === 'dead',
      Pid: state.initPid,
      ExitCode: state.exitCode,
      Error: state.error,
      StartedAt: state.startedAt,
      FinishedAt: state.finishedAt,
    },
    Image: record.image.id === '' ? '' : `sha256:${record.image.id}`,
    ResolvConfPath: `${containerDir(roots, record.id)}/resolv.conf`,
    HostnamePath: `${containerDir(roots, record.id)}/hostname`,
    HostsPath: `${containerDir(roots, record.id)}/hosts`,
    LogPath: outputPath(roots, record.id),
    Name: `/${record.name}`,
    RestartCount: state.restartCount,
    Driver: 'pg',
    Platform: 'linux',
    HostConfig: hostConfig(config),
    Mounts: config.volumes.map((volume) => ({
      Type: volume.kind,
      ...(volume.kind === 'volume' && { Name: volume.source }),
      Source: volume.kind === 'bind' ? volume.source : volumeDir(roots, volume.source),
      Destination: volume.target,
      RW: !volume.readOnly,
    })),
    Config: {
      Hostname: config.hostname,
      User: config.user,
      Tty: config.tty,
      OpenStdin: config.openStdin,
      ExposedPorts: Object.fromEntries(config.exposedPorts.map((port) => [port, {}])),
      Env: config.env,
      Cmd: config.cmd,
      Entrypoint: config.entrypoint.length === 0 ? null : config.entrypoint,
      Image: record.image.name,
      WorkingDir: config.workdir,
      Labels: config.labels,
      StopSignal: config.stopSignal,
      StopTimeout: config.stopTimeoutSec,
    },
    NetworkSettings: {
      Bridge: network?.bridge ?? '',
      SandboxKey: network?.netns ?? '',
      Ports: portMap(network?.ports ?? []),
      IPAddress: network?.ip ?? '',
      IPPrefixLen: network?.prefixLength ?? 0,
      Gateway: network?.gateway ?? '',
      MacAddress: network?.mac ?? '',
      Networks: {
        [config.network]: {
          IPAddress: network?.ip ?? '',
          IPPrefixLen: network?.prefixLength ?? 0,
          Gateway: network?.gateway ?? '',
          MacAddress: network?.mac ?? '',
        },
      },
    },
    Pg: {
      TreeRoot: record.treeRoot,
      Position: position,
      LogDamage: state.logDamage ?? '',
      IO: {
        Spent: resourcesOf(metering.spent),
        Budget: metering.budget === null ? null : resourcesOf(metering.budget),
        Amount: metering.amount,
      },
      LogDir: logDirOf(roots, record.id),
      RootPath: state.shimPid === 0 ? '' : rootPathOf(roots, record.id),
      ShimPid: state.shimPid,
    },
  };
}

/** With names as docker's are. */
const resourcesOf = (resources: object): object =>
  Object.fromEntries(Object.entries(resources).map(([key, value]) => [key[0]!.toUpperCase() + key.slice(1), value]));

function hostConfig(config: Container['record']['config']): object {
  const { resources } = config;
  return {
    Binds: config.volumes.map((v) => `${v.source}:${v.target}${v.readOnly ? ':ro' : ''}`),
    NetworkMode: config.network,
    PortBindings: portMap(config.ports.map((port) => ({ ...port, containerIp: '' }))),
    RestartPolicy: { Name: config.restart.name, MaximumRetryCount: config.restart.maximumRetries },
    AutoRemove: config.autoRemove,
    PublishAllPorts: config.publishAll,
    ReadonlyRootfs: config.readOnly,
    Privileged: config.privileged,
    CapAdd: config.capAdd,
    CapDrop: config.capDrop,
    Dns: config.dns,
    ExtraHosts: config.extraHosts,
    Tmpfs: Object.fromEntries(config.tmpfs.map((t) => [t.target, t.options.join(',')])),
    Devices: config.devices.map((d) => ({
      PathOnHost: d.source,
      PathInContainer: d.target,
      CgroupPermissions: d.access,
    })),
    Ulimits: config.ulimits.map((u) => ({ Name: u.name, Soft: u.soft, Hard: u.hard })),
    GroupAdd: config.groupAdd ?? [],
    PidMode: config.hostPid === true ? 'host' : '',
    IpcMode: config.hostIpc === true ? 'host' : 'private',
    Sysctls: config.sysctls ?? {},
    Init: config.init,
    Runtime: config.runtime,
    ShmSize: config.shmSizeBytes,
    Memory: resources.memoryBytes ?? 0,
    MemorySwap: resources.memorySwapBytes ?? 0,
    NanoCpus: Math.round((resources.cpus ?? 0) * 1e9),
    CpuShares: resources.cpuShares ?? 0,
    CpusetCpus: resources.cpusetCpus ?? '',
    PidsLimit: resources.pidsLimit ?? null,
    LogConfig: {
      Type: 'json-file',
      Config: { 'max-size': String(config.log.maxSizeBytes), 'max-file': String(config.log.maxFiles) },
    },
  };
}
