import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isPgError, PgError } from '../mdm/error.ts';
import { containerDir, type Roots } from '../store/paths.ts';
import { readJson, writeJsonAtomic } from './json-file.ts';
import { containerRecord, containerState } from './record-shape.ts';

/** A directory or file of the host, or a named volume, in the container. */
export interface VolumeMount {
  kind: 'bind' | 'volume';
  /** Absolute path on the host (bind), or the volume's name. */
  source: string;
  /** Absolute path in the container. */
  target: string;
  readOnly: boolean;
}

/** A published port as asked for; `hostPort` 0 takes any free one. */
export interface PortRequest {
  /** Address of the host to listen on; empty is every address. */
  hostIp: string;
  hostPort: number;
  containerPort: number;
  protocol: 'tcp' | 'udp';
}

/** cgroup limits; what is left out is not limited. */
export interface Resources {
  memoryBytes?: number;
  /** Memory and swap together, as docker counts it; -1 is unlimited swap. */
  memorySwapBytes?: number;
  /** Milliseconds of CPU time a second, divided by 1000: 1.5 is one CPU and a half. */
  cpus?: number;
  cpuShares?: number;
  pidsLimit?: number;
  /** CPUs it may run on, as `0-2,4`. */
  cpusetCpus?: string;
}

/** The most that I/O may cost (docs/metering.md): of each resource, and in money at the prices of the node it is on. What is left out is not limited. */
export interface IoBudget {
  accesses?: number;
  /** Bytes. */
  read?: number;
  written?: number;
  compute?: number;
  amount?: number;
}

export interface RestartPolicy {
  name: 'no' | 'on-failure' | 'always' | 'unless-stopped';
  /** Only for on-failure; 0 is no limit. */
  maximumRetries: number;
}

/** Everything that decides how a container runs: the image's defaults and the user's options, merged when it was created. */
export interface ContainerConfig {
  entrypoint: string[];
  cmd: string[];
  env: string[];
  workdir: string;
  user: string;
  /** Groups, by name or number, besides the user's own. */
  groupAdd?: string[];
  hostname: string;
  tty: boolean;
  openStdin: boolean;
  labels: Record<string, string>;
  /** `80/tcp`: what the image and --expose name, for -P. */
  exposedPorts: string[];
  ports: PortRequest[];
  publishAll: boolean;
  network: 'none' | 'host' | 'bridge';
  /** Shares the host's process numbers, or its System V IPC, message queues and /dev/shm. */
  hostPid?: boolean;
  hostIpc?: boolean;
  dns: string[];
  /** `name:address` */
  extraHosts: string[];
  volumes: VolumeMount[];
  tmpfs: { target: string; options: string[] }[];
  /** Kernel parameters of its namespaces (sysctl(8)). */
  sysctls?: Record<string, string>;
  resources: Resources;
  /** null, or left out: none. */
  ioBudget?: IoBudget | null;
  readOnly: boolean;
  capAdd: string[];
  capDrop: string[];
  privileged: boolean;
  /** Devices of the host: path there, path in the container, some of `rwm`. */
  devices: { source: string; target: string; access: string }[];
  /** `default`, `unconfined`, or the text of a profile in Docker's JSON. */
  seccomp: string;
  noNewPrivileges: boolean;
  ulimits: { name: string; soft: number; hard: number }[];
  shmSizeBytes: number;
  stopSignal: string;
  stopTimeoutSec: number;
  /** A small init (tini) runs as process 1 and reaps. */
  init: boolean;
  restart: RestartPolicy;
  /** How much of its history is kept behind what it is now: bytes, milliseconds. Left out: what must be. */
  retain?: { bytes: number | null; ms: number | null };
  /** What a run writes is kept only if it exits 0. */
  atomic?: boolean;
  /** Removed with everything as soon as it ends. */
  autoRemove: boolean;
  runtime: 'runc' | 'crun';
  log: { maxSizeBytes: number; maxFiles: number };
}

/** What a container is. Written once when it is created (and by rename); no part of it depends on the host it is on. */
export interface ContainerRecord {
  formatVersion: 1;
  /** 64 hex digits. */
  id: string;
  name: string;
  createdAt: string;
  /** Image id (sha256 of its config, hex without prefix; empty for `scratch`) and the name it was asked for by. */
  image: { id: string; name: string };
  /** Root of the image's trie, hex; null is the empty image. */
  treeRoot: string | null;
  /** Of a clone: whose log it goes on with, up to which size, the first of them first. Left out: its log is its own. */
  origins?: Origin[];
  config: ContainerConfig;
}

/** A container that another is a clone of, and where its history ends in the clone's: bytes of the log, and their root (hex) if it was known. */
export interface Origin {
  id: string;
  name: string;
  size: number;
  root: string | null;
}

/** A published port as it is. */
export interface PublishedPort extends PortRequest {
  containerIp: string;
}

/** What a running container has of the host's network; kept so that it can be taken away again whoever does it. */
export interface NetworkState {
  mode: 'bridge';
  /** Number of the host's network namespace that the bridge is in. */
  hostNamespace: string;
  /** Path of the container's network namespace. */
  netns: string;
  ip: string;
  prefixLength: number;
  gateway: string;
  mac: string;
  bridge: string;
  veth: string;
  ports: PublishedPort[];
}

export type Status = 'created' | 'running' | 'restarting' | 'exited' | 'dead';

/** How a container is doing. Written by whoever holds the container's lock: its shim, or a command while there is none. */
export interface ContainerState {
  status: Status;
  /** The boot in which it last ran: after another one nothing of it is left. */
  bootId: string;
  shimPid: number;
  initPid: number;
  startedAt: string;
  finishedAt: string;
  exitCode: number;
  oomKilled: boolean;
  /** Why it could not start, or how it was lost. */
  error: string;
  /** Stopped by a command: `unless-stopped` does not bring it back. */
  stoppedByUser: boolean;
  restartCount: number;
  /** It ran when its shim or the machine went down, and nobody has stopped or started it since. */
  wasLost: boolean;
  network: NetworkState | null;
  /** Of `initPid`, as /proc/PID/cgroup names it: controller list -> path. */
  cgroups: Record<string, string>;
  /** What of its log was found not to be as it was written; stays until it is removed. */
  logDamage?: string;
  /** The last position of the writable layer that was committed and hashed. */
  position: { epoch: number; size: number; root: string } | null;
}

const NEVER = '0001-01-01T00:00:00Z';

/** The state of a container that has never run. */
export const initialState = (): ContainerState => ({
  status: 'created',
  bootId: '',
  shimPid: 0,
  initPid: 0,
  startedAt: NEVER,
  finishedAt: NEVER,
  exitCode: 0,
  oomKilled: false,
  error: '',
  stoppedByUser: false,
  restartCount: 0,
  wasLost: false,
  network: null,
  cgroups: {},
  position: null,
});

const RECORD_NAME = 'container.json';
export const recordPath = (roots: Roots, id: string): string => join(containerDir(roots, id), RECORD_NAME);
export const statePath = (roots: Roots, id: string): string => join(containerDir(roots, id), 'state.json');
export const logDirOf = (roots: Roots, id: string): string => join(containerDir(roots, id), 'log');
/** What the container wrote on stdout and stderr; older parts have `.1`, `.2` behind it. */
export const outputPath = (roots: Roots, id: string): string => join(containerDir(roots, id), 'output.log');
export const lockPath = (roots: Roots, id: string): string => join(containerDir(roots, id), 'lock');

/** The record of a container; PgError('NO_SUCH_CONTAINER') when there is none, BAD_RECORD when a newer program wrote it. */
export function readRecord(roots: Roots, id: string): ContainerRecord {
  const version = readJson<ContainerRecord>(recordPath(roots, id))?.formatVersion;
  if (Number.isSafeInteger(version) && version !== 1) {
    throw new PgError('BAD_RECORD', `container ${id}: record of format ${version}, this program reads 1`, {
      hint: 'use the pg that made the container, or a newer one',
    });
  }
  const record = readJson<ContainerRecord>(recordPath(roots, id), containerRecord);
  if (record === undefined) throw noSuchContainer(id);
  if (record.id !== id) {
    throw new PgError('BAD_RECORD', `${recordPath(roots, id)} is damaged: it is the record of container ${record.id}`, {
      hint: 'take it from a backup; pg rm -f ID removes a container all the same',
    });
  }
  return record;
}

/**
 * Writes a record; on disk when this returns, unless the container is one that removes itself. `dir` is where the container is being
 * made, before it is in its place.
 */
export function writeRecord(roots: Roots, record: ContainerRecord, dir = containerDir(roots, record.id)): void {
  writeJsonAtomic(join(dir, RECORD_NAME), record, !record.config.autoRemove);
}

/**
 * The state of a container. One that cannot be read (torn by a power cut) is taken for that of a container that runs without a shim:
 * whoever gets the container's lock cleans up what may be left of it (remains.ts).
 */
export function readState(roots: Roots, id: string): ContainerState {
  try {
    return { ...initialState(), ...readJson<ContainerState>(statePath(roots, id), containerState) };
  } catch (error) {
    if (!isPgError(error, 'BAD_RECORD')) throw error;
    return { ...initialState(), status: 'running', shimPid: -1, bootId: bootId() };
  }
}

export function writeState(roots: Roots, id: string, state: ContainerState): void {
  writeJsonAtomic(statePath(roots, id), state);
}

export function noSuchContainer(ref: string): PgError {
  return new PgError('NO_SUCH_CONTAINER', `No such container: ${ref}`, { hint: 'pg ps -a lists the containers' });
}

let boot: string | undefined;
/** Identifies this boot of the machine (random(4)). */
export function bootId(): string {
  boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return boot;
}
