import { existsSync, readFileSync } from 'node:fs';
import { isAbsolute, posix, resolve } from 'node:path';
import { PgError } from '../mdm/error.ts';
import { randomBytes } from 'node:crypto';
import type { CreateOptions } from '../runtime/create.ts';
import type { PortRequest, RestartPolicy, VolumeMount } from '../runtime/record.ts';
import { parseMounts } from './mount-flag.ts';
import { parseIoBudget } from './io-budget.ts';
import { parseRetain } from './retain.ts';
import { parseSize } from './sizes.ts';
import type { RunFlags } from './run-flags.ts';

const bad = (message: string, hint?: string): PgError =>
  new PgError('BAD_USAGE', message, hint === undefined ? {} : { hint });

/** `[[IP:][HOSTPORT]:]PORT[/udp]`, also ranges of equal length. */
export function parsePorts(text: string): PortRequest[] {
  const match = /^(?:(?:(\[[0-9a-fA-F:]+\]|\d+(?:\.\d+){3}):)?([\d-]*):)?(\d+(?:-\d+)?)(?:\/(tcp|udp))?$/.exec(text);
  if (match === null) {
    throw bad(`Invalid containerPort: ${text}`, 'publish with -p [IP:][HOSTPORT:]PORT[/udp], for example -p 8080:80');
  }
  const [, address = '', host = '', container, protocol = 'tcp'] = match;
  const containerPorts = range(container!, text);
  const hostPorts = host === '' ? containerPorts.map(() => 0) : range(host, text);
  if (hostPorts.length !== containerPorts.length) {
    throw bad(`Invalid ranges specified for container and host Ports: ${text}`);
  }
  return containerPorts.map((containerPort, i) => ({
    hostIp: address.replace(/[[\]]/g, ''),
    hostPort: hostPorts[i]!,
    containerPort,
    protocol: protocol as 'tcp' | 'udp',
  }));
}

function range(text: string, whole: string): number[] {
  const [from, to = from] = text.split('-').map(Number);
  if (from! > 65535 || to! > 65535 || from! > to!) throw bad(`Invalid port in '${whole}': ports are 1 to 65535`);
  return Array.from({ length: to! - from! + 1 }, (_, i) => from! + i);
}

/** `HOST:CONTAINER[:ro]`, `NAME:CONTAINER[:ro]`, or `CONTAINER` for a volume without a name. */
export function parseVolume(text: string): VolumeMount {
  const parts = text.split(':');
  if (parts.length > 3 || parts.some((part) => part === '')) throw bad(`invalid volume specification: '${text}'`);
  const [source, target, mode = 'rw'] = parts.length === 1 ? [randomBytes(32).toString('hex'), parts[0]!] : parts;
  if (!posix.isAbsolute(target!)) {
    throw bad(`invalid volume specification: '${text}': mount path must be absolute`);
  }
  if (posix.normalize(target!) === '/') {
    throw bad(
      `invalid volume specification: '${text}': destination can't be '/'`,
      "the container's root is its image's",
    );
  }
  const modes = mode.split(',');
  const unknown = modes.find((word) => !['ro', 'rw', 'z', 'Z', 'rprivate', 'nocopy'].includes(word));
  if (unknown !== undefined) throw bad(`invalid mode: ${unknown}`, 'a volume is ro or rw');
  const readOnly = modes.includes('ro');
  if (isAbsolute(source!)) return { kind: 'bind', source: source!, target: target!, readOnly };
  if (source!.startsWith('.')) return { kind: 'bind', source: resolve(source!), target: target!, readOnly };
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(source!)) {
    throw bad(
      `"${source}" includes invalid characters for a local volume name`,
      'a directory of the host begins with / or ./',
    );
  }
  return { kind: 'volume', source: source!, target: target!, readOnly };
}

/** `PATH[:OPTIONS]` of --tmpfs. */
function parseTmpfs(text: string): { target: string; options: string[] } {
  const [target, options = ''] = text.split(':');
  if (!posix.isAbsolute(target!)) throw bad(`invalid tmpfs: '${text}': the path must be absolute`);
  if (posix.normalize(target!) === '/') throw bad(`invalid tmpfs: '${text}': destination can't be '/'`);
  return { target: target!, options: options.split(',').filter(Boolean) };
}

function parseRestart(text: string): RestartPolicy {
  const [name, retries] = text.split(':');
  const known = ['no', 'on-failure', 'always', 'unless-stopped'];
  const counts = retries === undefined || (name === 'on-failure' && /^\d+$/.test(retries));
  if (!known.includes(name!) || !counts) {
    throw bad(`invalid restart policy '${text}'`, `one of: no, on-failure[:MAX], always, unless-stopped`);
  }
  return { name: name as RestartPolicy['name'], maximumRetries: Number(retries ?? 0) };
}

const limitValue = (word: string): number => (word === '-1' ? Number.MAX_SAFE_INTEGER : Number(word));

/** `nofile=1024:2048`; -1 is no limit. */
function parseUlimit(text: string): { name: string; soft: number; hard: number } {
  const match = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text);
  if (match === null) throw bad(`invalid ulimit argument: ${text}`, '--ulimit NAME=SOFT[:HARD]');
  const soft = limitValue(match[2]!);
  return { name: match[1]!, soft, hard: match[3] === undefined ? soft : limitValue(match[3]) };
}

/** `SOURCE[:TARGET[:rwm]]` */
function parseDevice(text: string): { source: string; target: string; access: string } {
  const [source, second, third] = text.split(':');
  const secondIsAccess = second !== undefined && third === undefined && /^[rwm]+$/.test(second);
  const access = third ?? (secondIsAccess ? second : 'rwm');
  if (!/^[rwm]+$/.test(access)) throw bad(`invalid device mode: ${access}`, 'some of r, w and m');
  return { source: source!, target: second === undefined || secondIsAccess ? source! : second, access };
}

/** `KEY=VALUE` words as an object; a word without `=` has an empty value. */
function parseLabels(words: string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const at = word.indexOf('=');
      return at < 0 ? [word, ''] : [word.slice(0, at), word.slice(at + 1)];
    }),
  );
}

/** A variable named without a value is taken from the command's own environment, or left out when it is not there. */
function ownValue(word: string): string[] {
  if (word.includes('=')) return [word];
  const value = process.env[word];
  return value === undefined ? [] : [`${word}=${value}`];
}

/** Lines of a --env-file or --label-file: comments and empty lines left out. */
function fileLines(path: string): string[] {
  if (!existsSync(path)) throw bad(`open ${path}: no such file or directory`);
  return readFileSync(path, 'utf8')
    .split('\n')
    .map((line) => line.trimStart().replace(/\r$/, ''))
    .filter((line) => line !== '' && !line.startsWith('#'));
}

export function parseEnv(words: string[], files: string[]): string[] {
  return [...files.flatMap(fileLines), ...words].flatMap((word) => {
    if (word.startsWith('=')) throw bad(`invalid environment variable: ${word}`);
    return ownValue(word);
  });
}

function parseSecurity(words: string[]): { seccomp?: string; noNewPrivileges?: boolean } {
  const result: { seccomp?: string; noNewPrivileges?: boolean } = {};
  for (const word of words) {
    const [key, value = 'true'] = word.split(/[=:]/, 2) as [string, string?];
    if (key === 'no-new-privileges') result.noNewPrivileges = value === 'true';
    else if (key === 'seccomp')
      result.seccomp = value === 'unconfined' ? value : seccompFile(word.slice('seccomp='.length));
    else throw bad(`invalid --security-opt: ${word}`, 'seccomp=unconfined, seccomp=FILE, no-new-privileges');
  }
  return result;
}

function seccompFile(path: string): string {
  const text = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  if (text === undefined) throw bad(`opening seccomp profile (${path}) failed: no such file or directory`);
  try {
    JSON.parse(text);
  } catch (error) {
    throw bad(`${path} is not JSON: ${(error as Error).message}`);
  }
  return text;
}

function parseCpuset(text: string): string {
  if (!/^\d+(-\d+)?(,\d+(-\d+)?)*$/.test(text)) throw bad(`invalid cpuset: '${text}'`, 'for example 0-2,4');
  return text;
}

function parseSysctls(words: string[]): Record<string, string> {
  const wrong = words.find((word) => !/^[a-z][\w./-]*=/.test(word));
  if (wrong !== undefined) throw bad(`invalid sysctl: '${wrong}'`, '--sysctl NAME=VALUE');
  return parseLabels(words);
}

function parseCpus(text: string): number {
  const cpus = Number(text);
  if (!(cpus > 0)) throw bad(`invalid number of cpus: '${text}'`);
  return cpus;
}

function parseLog(words: string[]): CreateOptions['log'] {
  const options = parseLabels(words);
  const unknown = Object.keys(options).find((key) => key !== 'max-size' && key !== 'max-file');
  if (unknown !== undefined) throw bad(`unknown log opt '${unknown}'`, 'max-size and max-file');
  return {
    maxSizeBytes: parseSize(options['max-size'] ?? '20m', 'max-size'),
    maxFiles: Math.max(1, Number(options['max-file'] ?? 3) || 1),
  };
}

/** What the flags of `pg run` and `pg create` say about the container. PgError('BAD_USAGE') for what cannot be read. */
export function createOptions(flags: RunFlags, command: string[]): CreateOptions {
  const mounts = parseMounts(flags.mount ?? []);
  const options: CreateOptions = {
    command,
    env: parseEnv(flags.env ?? [], flags['env-file'] ?? []),
    labels: parseLabels([...(flags['label-file'] ?? []).flatMap(fileLines), ...(flags.label ?? [])]),
    ports: (flags.publish ?? []).flatMap(parsePorts),
    expose: (flags.expose ?? []).map((port) => (port.includes('/') ? port : `${port}/tcp`)),
    publishAll: flags['publish-all'] ?? false,
    volumes: [...(flags.volume ?? []).map(parseVolume), ...mounts.volumes],
    tmpfs: [...(flags.tmpfs ?? []).map(parseTmpfs), ...mounts.tmpfs],
    sysctls: parseSysctls(flags.sysctl ?? []),
    groupAdd: flags['group-add'] ?? [],
    hostPid: flags.pid === 'host',
    hostIpc: flags.ipc === 'host',
    dns: flags.dns ?? [],
    extraHosts: (flags['add-host'] ?? []).map(hostEntry),
    capAdd: flags['cap-add'] ?? [],
    capDrop: flags['cap-drop'] ?? [],
    devices: (flags.device ?? []).map(parseDevice),
    ulimits: (flags.ulimit ?? []).map(parseUlimit),
    tty: flags.tty ?? false,
    openStdin: flags.interactive ?? false,
    readOnly: flags['read-only'] ?? false,
    privileged: flags.privileged ?? false,
    init: flags.init ?? false,
    atomic: flags.atomic ?? false,
    autoRemove: flags.rm ?? false,
    resources: resources(flags),
    ...parseSecurity(flags['security-opt'] ?? []),
  };
  if (flags['log-opt'] !== undefined) options.log = parseLog(flags['log-opt'])!;
  if (flags.name !== undefined) options.name = flags.name;
  if (flags.workdir !== undefined) options.workdir = flags.workdir;
  if (flags.user !== undefined) options.user = flags.user;
  if (flags.hostname !== undefined) options.hostname = flags.hostname;
  if (flags.entrypoint !== undefined) options.entrypoint = flags.entrypoint === '' ? [] : [flags.entrypoint];
  if (flags.network !== undefined) options.network = network(flags.network);
  if (flags['shm-size'] !== undefined) options.shmSizeBytes = parseSize(flags['shm-size'], 'shm-size');
  if (flags['stop-signal'] !== undefined) options.stopSignal = flags['stop-signal'];
  if (flags['stop-timeout'] !== undefined) options.stopTimeoutSec = flags['stop-timeout'];
  if (flags.restart !== undefined) options.restart = parseRestart(flags.restart);
  if (flags['io-budget'] !== undefined) options.ioBudget = parseIoBudget(flags['io-budget']);
  if (flags.retain !== undefined) options.retain = parseRetain(flags.retain);
  if (flags.runtime !== undefined) options.runtime = flags.runtime as 'runc' | 'crun';
  return options;
}

function network(word: string): 'none' | 'host' | 'bridge' {
  if (word === 'default') return 'bridge';
  if (word === 'none' || word === 'host' || word === 'bridge') return word;
  throw bad(`network ${word} not found`, 'one of: bridge, host, none');
}

function hostEntry(word: string): string {
  const entry = word.replace('=', ':');
  if (!/^[^:]+:.+$/.test(entry)) throw bad(`bad format for add-host: "${word}"`, '--add-host NAME:ADDRESS');
  return entry;
}

function resources(flags: RunFlags): NonNullable<CreateOptions['resources']> {
  const result: NonNullable<CreateOptions['resources']> = {};
  if (flags.memory !== undefined) result.memoryBytes = parseSize(flags.memory, 'memory');
  if (flags['memory-swap'] !== undefined) {
    result.memorySwapBytes = flags['memory-swap'] === '-1' ? -1 : parseSize(flags['memory-swap'], 'memory-swap');
  }
  if (flags.cpus !== undefined) result.cpus = parseCpus(flags.cpus);
  if (flags['cpuset-cpus'] !== undefined) result.cpusetCpus = parseCpuset(flags['cpuset-cpus']);
  if (flags['cpu-shares'] !== undefined) result.cpuShares = flags['cpu-shares'];
  if (flags['pids-limit'] !== undefined) result.pidsLimit = flags['pids-limit'];
  return result;
}
