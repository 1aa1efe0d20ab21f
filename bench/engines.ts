/** The peers that pg is measured against, each with its own data directory, started and ended here. */
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const HOME = join(dirname(fileURLToPath(import.meta.url)), '..');
export const PG = join(HOME, 'bin/pg');

/** A scratch directory on the disk (not tmpfs), removed by `clean`. */
export function scratch(name: string): { dir: string; clean(): void } {
  const dir = mkdtempSync(`/var/tmp/pg-bench-${name}-`);
  // An engine that was ended may leave mounts (network namespaces, overlays) in its directory.
  const clean = (): void => {
    const mounted = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '');
    for (const path of mounted.filter((m) => m.startsWith(`${dir}/`)).toReversed()) spawnSync('umount', ['-l', path]);
    rmSync(dir, { recursive: true, force: true });
  };
  return { dir, clean };
}

/** Runs a command; throws with its output when it fails. Returns what it printed. */
export function run(command: string, args: string[], env: Record<string, string> = {}, input?: string): string {
  const result = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    maxBuffer: 64 << 20,
    ...(input === undefined ? {} : { input }),
  });
  if (result.status !== 0)
    throw new Error(
      `${command} ${args.join(' ')}: ${result.status ?? result.signal}\n${result.stdout}${result.stderr}`,
    );
  return result.stdout;
}

/** Seconds of wall clock that `work` takes. */
export function seconds(work: () => void): number {
  const start = performance.now();
  work();
  return (performance.now() - start) / 1000;
}

export const median = (values: number[]): number => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

/** A dockerd of our own, on the disk, overlay2; `docker` runs its client. Null when there is none on this machine. */
export async function startDocker(
  dir: string,
  bridge = true,
): Promise<{ docker(...args: string[]): string; stop(): Promise<void> } | null> {
  if (spawnSync('dockerd', ['--version']).status !== 0) return null;
  mkdirSync(dir, { recursive: true });
  const socket = `unix://${dir}/docker.sock`;
  const log = openSync(join(dir, 'dockerd.log'), 'w');
  const flags = [
    '--data-root',
    `${dir}/data`,
    '--exec-root',
    `${dir}/exec`,
    '-p',
    `${dir}/pid`,
    '-H',
    socket,
    '--storage-driver',
    'overlay2',
  ];
  if (!bridge) flags.push('--bridge=none', '--iptables=false');
  const daemon = spawn('dockerd', flags, { stdio: ['ignore', log, log] });
  const docker = (...args: string[]): string => run('docker', ['-H', socket, ...args]);
  for (let i = 0; ; i++) {
    try {
      docker('info');
      break;
    } catch (error) {
      if (i > 100 || daemon.exitCode !== null) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
  return { docker, stop: () => end(daemon) };
}

/** podman with a store of its own below `dir`. Null when there is none on this machine. */
export function podmanIn(dir: string): ((...args: string[]) => string) | null {
  if (spawnSync('podman', ['--version']).status !== 0) return null;
  return (...args) =>
    run('podman', [
      '--root',
      `${dir}/root`,
      '--runroot',
      `${dir}/run`,
      '--storage-driver',
      'overlay',
      '--cgroup-manager',
      'cgroupfs',
      ...args,
    ]);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await gone;
}

/** The machine in one line, for the head of a table. */
export function machine(): string {
  const cpu =
    /model name\s*: (.*)/.exec(execFileSync('cat', ['/proc/cpuinfo'], { encoding: 'utf8' }))?.[1] ?? 'unknown';
  const cores = execFileSync('nproc', { encoding: 'utf8' }).trim();
  const kernel = execFileSync('uname', ['-r'], { encoding: 'utf8' }).trim();
  return `${new Date().toISOString().slice(0, 10)}, ${cores} cores ${cpu}, kernel ${kernel}, Node ${process.version}`;
}

/** Prints a markdown table. */
export function table(title: string, header: string[], rows: string[][]): void {
  const lines = [header, header.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  process.stdout.write(`\n### ${title}\n\n${lines.join('\n')}\n`);
}
