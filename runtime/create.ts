import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { PgError } from '../mdm/error.ts';
import type { ImageConfig } from '../layers/transport/source.ts';
import { containerDir, containersDir, type Roots } from '../store/paths.ts';
import { syncDirectory } from './json-file.ts';
import { checkName, claimName, newId, randomName, releaseName, shortId } from './names.ts';
import { capabilityName } from './capabilities.ts';
import { type ContainerConfig, type ContainerRecord, writeRecord } from './record.ts';
import { makingDir } from './remains.ts';
import { signalNumber } from './signals.ts';

/** What a container is made from. */
export interface BaseImage {
  /** Hex digits of the image id, without `sha256:`; empty for the empty image. */
  id: string;
  /** As the user named it. */
  name: string;
  treeRoot: Uint8Array | null;
  config: ImageConfig['config'];
}

/** What the user says about a container; everything left out is the image's, or docker's default. */
export interface CreateOptions extends Partial<Omit<ContainerConfig, 'cmd' | 'entrypoint' | 'exposedPorts'>> {
  name?: string;
  /** Command and arguments after the image's name; none takes the image's. */
  command?: string[];
  /** In place of the image's, whose command is then left out too; [] is none. */
  entrypoint?: string[];
  /** `80/tcp`, besides the image's. */
  expose?: string[];
}

const DEFAULT_SHM_BYTES = 64 << 20;
const DEFAULT_LOG = { maxSizeBytes: 20 << 20, maxFiles: 3 };
const NAME_ATTEMPTS = 20;

/**
 * Makes a container: its name claimed, its record written. Nothing runs yet. PgError('NAME_TAKEN' | 'BAD_NAME' | 'NO_COMMAND' | ...).
 * Two calls at once with one name: one of them gets it.
 */
export async function createContainer(
  roots: Roots,
  image: BaseImage,
  options: CreateOptions,
): Promise<ContainerRecord> {
  const id = newId();
  if (options.name !== undefined) checkName(options.name);
  const record: ContainerRecord = {
    formatVersion: 1,
    id,
    name: '',
    createdAt: new Date().toISOString(),
    image: { id: image.id, name: image.name },
    treeRoot: image.treeRoot === null ? null : Buffer.from(image.treeRoot).toString('hex'),
    config: mergeConfig(image.config ?? {}, options, id),
  };
  return putContainer(roots, record, options.name, () => {});
}

/**
 * Gives a record its name (`wanted`, or a random one) and puts the container in its place, with what `fill` puts into its directory; wholly or not at all.
 * PgError NAME_TAKEN.
 */
export async function putContainer(
  roots: Roots,
  record: ContainerRecord,
  wanted: string | undefined,
  fill: (dir: string) => void | Promise<void>,
): Promise<ContainerRecord> {
  const { id } = record;
  record.name = await takeName(roots, id, wanted);
  const making = makingDir(roots, id);
  try {
    mkdirSync(making, { recursive: true, mode: 0o700 });
    await fill(making);
    writeRecord(roots, record, making);
    // It is there whole or not at all: a command that is killed leaves something that `sweepRemnants` takes.
    renameSync(making, containerDir(roots, id));
  } catch (error) {
    rmSync(making, { recursive: true, force: true });
    await releaseName(roots, record.name, id).catch(() => {});
    throw error;
  }
  if (!record.config.autoRemove) syncDirectory(containersDir(roots));
  return record;
}

async function takeName(roots: Roots, id: string, wanted: string | undefined): Promise<string> {
  if (wanted !== undefined) {
    if (await claimName(roots, wanted, id)) return wanted;
    throw nameTaken(wanted);
  }
  for (let attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
    const name = randomName(attempt);
    if (await claimName(roots, name, id)) return name;
  }
  await claimName(roots, shortId(id), id);
  return shortId(id);
}

export function nameTaken(name: string): PgError {
  return new PgError('NAME_TAKEN', `Conflict. The container name "/${name}" is already in use`, {
    hint: `pg rm ${name} removes that container, pg rename gives it another name`,
  });
}

type ImageDefaults = NonNullable<ImageConfig['config']>;

/** The image's defaults under the user's options, by docker's rules. */
function mergeConfig(image: ImageDefaults, options: CreateOptions, id: string): ContainerConfig {
  const command = options.command ?? [];
  const entrypoint = options.entrypoint ?? image.Entrypoint ?? [];
  const cmd = command.length > 0 || options.entrypoint !== undefined ? command : (image.Cmd ?? []);
  if (entrypoint.length + cmd.length === 0) {
    throw new PgError('NO_COMMAND', 'No command specified', { hint: 'give one after the image: pg run IMAGE COMMAND' });
  }
  const config: ContainerConfig = {
    entrypoint,
    cmd,
    env: mergeEnv(image.Env ?? [], options.env ?? []),
    workdir: options.workdir ?? image.WorkingDir ?? '',
    user: options.user ?? image.User ?? '',
    groupAdd: options.groupAdd ?? [],
    hostname: options.hostname ?? shortId(id),
    tty: options.tty ?? false,
    openStdin: options.openStdin ?? false,
    labels: { ...image.Labels, ...options.labels },
    exposedPorts: [...new Set([...Object.keys(image.ExposedPorts ?? {}), ...(options.expose ?? [])])],
    ports: [...(options.ports ?? [])],
    publishAll: options.publishAll ?? false,
    network: options.network ?? 'bridge',
    hostPid: options.hostPid ?? false,
    hostIpc: options.hostIpc ?? false,
    dns: options.dns ?? [],
    extraHosts: options.extraHosts ?? [],
    volumes: options.volumes ?? [],
    tmpfs: options.tmpfs ?? [],
    sysctls: options.sysctls ?? {},
    resources: options.resources ?? {},
    ioBudget: options.ioBudget ?? null,
    readOnly: options.readOnly ?? false,
    capAdd: (options.capAdd ?? []).map(capabilityName),
    capDrop: (options.capDrop ?? []).map(capabilityName),
    privileged: options.privileged ?? false,
    devices: options.devices ?? [],
    seccomp: options.seccomp ?? 'default',
    noNewPrivileges: options.noNewPrivileges ?? false,
    ulimits: options.ulimits ?? [],
    shmSizeBytes: options.shmSizeBytes ?? DEFAULT_SHM_BYTES,
    stopSignal: options.stopSignal ?? image.StopSignal ?? 'SIGTERM',
    stopTimeoutSec: options.stopTimeoutSec ?? 10,
    init: options.init ?? false,
    restart: options.restart ?? { name: 'no', maximumRetries: 0 },
    ...(options.retain === undefined ? {} : { retain: options.retain }),
    ...(options.atomic === true ? { atomic: true } : {}),
    autoRemove: options.autoRemove ?? false,
    runtime: options.runtime ?? 'runc',
    log: options.log ?? DEFAULT_LOG,
  };
  if (config.publishAll) config.ports.push(...unpublished(config));
  checkConfig(config);
  return config;
}

function mergeEnv(image: string[], own: string[]): string[] {
  const byName = new Map<string, string>();
  for (const word of [...image, ...own]) byName.set(word.split('=', 1)[0]!, word);
  return [...byName.values()].filter((word) => word.includes('='));
}

/** -P: every exposed port that -p does not name already, on any free one. */
function unpublished(config: ContainerConfig): ContainerConfig['ports'] {
  return config.exposedPorts
    .map((port) => {
      const [number, protocol] = port.split('/');
      return { hostIp: '', hostPort: 0, containerPort: Number(number), protocol: (protocol ?? 'tcp') as 'tcp' | 'udp' };
    })
    .filter((p) => !config.ports.some((q) => q.containerPort === p.containerPort && q.protocol === p.protocol));
}

/** What cannot go together, or cannot be, said before anything is made. */
function checkConfig(config: ContainerConfig): void {
  signalNumber(config.stopSignal);
  if (config.autoRemove && config.restart.name !== 'no') {
    throw new PgError('BAD_USAGE', 'Conflicting options: --restart and --rm');
  }
  if (config.atomic === true && config.restart.name !== 'no') {
    throw new PgError('BAD_USAGE', 'Conflicting options: --restart and --atomic', {
      hint: 'one that is atomic ends once, and what it wrote is kept or not',
    });
  }
  if (config.ports.length > 0 && config.network !== 'bridge') {
    throw new PgError(
      'BAD_USAGE',
      `ports can be published on a bridge network only, not with --network ${config.network}`,
    );
  }
  if (config.workdir !== '' && !config.workdir.startsWith('/')) {
    throw new PgError(
      'BAD_USAGE',
      `the working directory '${config.workdir}' is invalid, it needs to be an absolute path`,
    );
  }
  const { memoryBytes, memorySwapBytes } = config.resources;
  if (memoryBytes !== undefined && memoryBytes < 6 << 20) {
    throw new PgError('BAD_USAGE', 'Minimum memory limit allowed is 6MB');
  }
  if (memorySwapBytes !== undefined && memorySwapBytes !== -1 && memorySwapBytes < (memoryBytes ?? Infinity)) {
    throw new PgError(
      'BAD_USAGE',
      '--memory-swap counts memory and swap together: it needs --memory, and cannot be less',
    );
  }
}
