import { Flags, type Interfaces } from '@oclif/core';

const many = { multiple: true, multipleNonGreedy: true } as const;

/** The flags that `pg run` and `pg create` have in common: docker's. */
export const runFlags = {
  'add-host': Flags.string({ ...many, description: 'one more line of /etc/hosts', helpValue: 'NAME:ADDRESS' }),
  atomic: Flags.boolean({ description: 'keep what it writes only if it exits 0: all of it, or nothing' }),
  'cap-add': Flags.string({ ...many, description: 'add a Linux capability', helpValue: 'CAP' }),
  'cap-drop': Flags.string({ ...many, description: 'drop a Linux capability', helpValue: 'CAP' }),
  cidfile: Flags.string({ description: 'write the container id to this file', helpValue: 'FILE' }),
  'cpu-shares': Flags.integer({ char: 'c', description: 'relative weight of CPU time' }),
  cpus: Flags.string({ description: 'how many CPUs it may use, for example 1.5', helpValue: 'NUMBER' }),
  'cpuset-cpus': Flags.string({ description: 'the CPUs that it may run on, for example 0-2,4', helpValue: 'CPUS' }),
  device: Flags.string({ ...many, description: 'a device of the host', helpValue: 'PATH[:PATH[:rwm]]' }),
  dns: Flags.string({ ...many, description: 'a DNS server', helpValue: 'ADDRESS' }),
  entrypoint: Flags.string({ description: "in place of the image's entrypoint", helpValue: 'PROGRAM' }),
  env: Flags.string({ ...many, char: 'e', description: 'set an environment variable', helpValue: 'NAME[=VALUE]' }),
  'env-file': Flags.string({ ...many, description: 'environment variables from a file', helpValue: 'FILE' }),
  expose: Flags.string({ ...many, description: 'a port for -P', helpValue: 'PORT[/udp]' }),
  'group-add': Flags.string({ ...many, description: "one more group besides the user's", helpValue: 'NAME|GID' }),
  hostname: Flags.string({ char: 'h', description: 'its host name (the short id)' }),
  init: Flags.boolean({ description: 'a small init as process 1, which forwards signals and reaps' }),
  'io-budget': Flags.string({
    description: 'what its I/O may cost: accesses, read, written, compute and amount',
    helpValue: 'RESOURCE=MOST,...',
  }),
  interactive: Flags.boolean({ char: 'i', description: 'keep its stdin open' }),
  ipc: Flags.string({
    description: 'private, or host: the IPC and /dev/shm of the host',
    options: ['private', 'host'],
  }),
  label: Flags.string({ ...many, char: 'l', description: 'a label', helpValue: 'KEY[=VALUE]' }),
  'label-file': Flags.string({ ...many, description: 'labels from a file', helpValue: 'FILE' }),
  'log-opt': Flags.string({ ...many, description: 'max-size=SIZE and max-file=N of its log', helpValue: 'KEY=VALUE' }),
  memory: Flags.string({ char: 'm', description: 'limit of memory, for example 512m', helpValue: 'SIZE' }),
  'memory-swap': Flags.string({ description: 'limit of memory and swap together; -1 is none', helpValue: 'SIZE' }),
  mount: Flags.string({
    ...many,
    description: 'a bind mount, a volume or a tmpfs',
    helpValue: 'type=bind|volume|tmpfs,source=S,target=PATH[,readonly]',
  }),
  name: Flags.string({ description: 'its name (else a random one)' }),
  network: Flags.string({ aliases: ['net'], description: 'bridge, host or none', helpValue: 'NETWORK' }),
  pid: Flags.string({ description: 'host: the process numbers of the host', options: ['host'] }),
  'pids-limit': Flags.integer({ description: 'how many processes it may have; 0 is no limit' }),
  platform: Flags.string({
    description: 'platform of an image that has to be brought here first',
    helpValue: 'OS/ARCH',
  }),
  privileged: Flags.boolean({ description: 'all capabilities and devices of the host' }),
  publish: Flags.string({ ...many, char: 'p', description: 'publish a port', helpValue: '[IP:][HOSTPORT:]PORT[/udp]' }),
  'publish-all': Flags.boolean({ char: 'P', description: 'publish all exposed ports on random ports' }),
  pull: Flags.string({
    description: 'bring the image here first',
    options: ['missing', 'never', 'always'],
    default: 'missing',
  }),
  quiet: Flags.boolean({ char: 'q', description: 'no progress while the image is brought here' }),
  'read-only': Flags.boolean({ description: 'its root cannot be written' }),
  retain: Flags.string({
    description: 'history kept behind what it is now, besides snapshots: a size, a time, both, or none',
    helpValue: '1g|7d|1g,7d|none',
  }),
  restart: Flags.string({ description: 'no, on-failure[:MAX], always or unless-stopped', helpValue: 'POLICY' }),
  rm: Flags.boolean({ description: 'remove it when it ends' }),
  runtime: Flags.string({ description: 'the OCI runtime (runc, or what config.toml says)', options: ['runc', 'crun'] }),
  'security-opt': Flags.string({
    ...many,
    description: 'seccomp=unconfined, seccomp=FILE or no-new-privileges',
    helpValue: 'OPTION',
  }),
  'shm-size': Flags.string({ description: 'size of /dev/shm (64m)', helpValue: 'SIZE' }),
  'stop-signal': Flags.string({ description: 'the signal that stops it (SIGTERM)', helpValue: 'SIGNAL' }),
  'stop-timeout': Flags.integer({ description: 'seconds from that signal to SIGKILL (10)' }),
  sysctl: Flags.string({ ...many, description: 'a kernel parameter of its namespaces', helpValue: 'NAME=VALUE' }),
  tmpfs: Flags.string({ ...many, description: 'a filesystem in memory', helpValue: 'PATH[:OPTIONS]' }),
  tty: Flags.boolean({ char: 't', description: 'a terminal' }),
  ulimit: Flags.string({ ...many, description: 'a limit of setrlimit(2)', helpValue: 'NAME=SOFT[:HARD]' }),
  user: Flags.string({ char: 'u', description: 'who runs the command', helpValue: 'NAME|UID[:GROUP|GID]' }),
  volume: Flags.string({
    ...many,
    char: 'v',
    description: 'a directory or file of the host, or a named volume',
    helpValue: 'SOURCE:PATH[:ro]',
  }),
  workdir: Flags.string({ char: 'w', description: 'the working directory', helpValue: 'DIR' }),
};

/** Their values, as parsed. */
export type RunFlags = Partial<Interfaces.InferredFlags<typeof runFlags>>;
