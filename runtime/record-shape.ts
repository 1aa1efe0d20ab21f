import {
  type Check,
  flag,
  hex32,
  listOf,
  mapOf,
  nullable,
  number,
  oneOf,
  optional,
  shaped,
  text,
  uint,
  uintUpTo,
} from '../store/shape.ts';
import type { ContainerConfig, ContainerRecord, ContainerState } from './record.ts';

/** The members of an interface, each with what it must be: the compiler sees that none is missing. */
type Members<T> = { [Name in keyof Required<T>]: Check };

const port = uintUpTo(0xffff);
const protocol = oneOf('tcp', 'udp');
const portRequest = { hostIp: text, hostPort: port, containerPort: port, protocol };

const CONFIG: Members<ContainerConfig> = {
  entrypoint: listOf(text),
  cmd: listOf(text),
  env: listOf(text),
  workdir: text,
  user: text,
  groupAdd: optional(listOf(text)),
  hostname: text,
  tty: flag,
  openStdin: flag,
  labels: mapOf(text),
  exposedPorts: listOf(text),
  ports: listOf(shaped(portRequest)),
  publishAll: flag,
  network: oneOf('none', 'host', 'bridge'),
  hostPid: optional(flag),
  hostIpc: optional(flag),
  dns: listOf(text),
  extraHosts: listOf(text),
  volumes: listOf(shaped({ kind: oneOf('bind', 'volume'), source: text, target: text, readOnly: flag })),
  tmpfs: listOf(shaped({ target: text, options: listOf(text) })),
  sysctls: optional(mapOf(text)),
  resources: shaped({
    memoryBytes: optional(number),
    memorySwapBytes: optional(number),
    cpus: optional(number),
    cpuShares: optional(number),
    pidsLimit: optional(number),
    cpusetCpus: optional(text),
  }),
  ioBudget: optional(nullable(mapOf(number))),
  readOnly: flag,
  capAdd: listOf(text),
  capDrop: listOf(text),
  privileged: flag,
  devices: listOf(shaped({ source: text, target: text, access: text })),
  seccomp: text,
  noNewPrivileges: flag,
  ulimits: listOf(shaped({ name: text, soft: number, hard: number })),
  shmSizeBytes: number,
  stopSignal: text,
  stopTimeoutSec: number,
  init: flag,
  restart: shaped({ name: oneOf('no', 'on-failure', 'always', 'unless-stopped'), maximumRetries: uint }),
  retain: optional(shaped({ bytes: nullable(number), ms: nullable(number) })),
  atomic: optional(flag),
  autoRemove: flag,
  runtime: oneOf('runc', 'crun'),
  log: shaped({ maxSizeBytes: number, maxFiles: number }),
};

const RECORD: Members<ContainerRecord> = {
  formatVersion: oneOf(1),
  id: hex32,
  name: text,
  createdAt: text,
  image: shaped({ id: text, name: text }),
  treeRoot: nullable(hex32),
  origins: optional(listOf(shaped({ id: text, name: text, size: uint, root: nullable(hex32) }))),
  config: shaped(CONFIG),
};

const STATE: Members<ContainerState> = {
  status: oneOf('created', 'running', 'restarting', 'exited', 'dead'),
  bootId: text,
  shimPid: uint,
  initPid: uint,
  startedAt: text,
  finishedAt: text,
  exitCode: number,
  oomKilled: flag,
  error: text,
  stoppedByUser: flag,
  restartCount: uint,
  wasLost: flag,
  network: nullable(
    shaped({
      mode: oneOf('bridge'),
      hostNamespace: text,
      netns: text,
      ip: text,
      prefixLength: uintUpTo(32),
      gateway: text,
      mac: text,
      bridge: text,
      veth: text,
      ports: listOf(shaped({ ...portRequest, containerIp: text })),
    }),
  ),
  cgroups: mapOf(text),
  logDamage: optional(text),
  position: nullable(shaped({ epoch: uint, size: uint, root: hex32 })),
};

/** What container.json and `prepare` of a move have. */
export const containerRecord: Check = shaped(RECORD);
/** What state.json has; what it leaves out is as at first. */
export const containerState: Check = shaped(
  Object.fromEntries(Object.entries(STATE).map(([name, check]) => [name, optional(check)])),
);
