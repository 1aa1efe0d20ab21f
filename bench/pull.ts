/** Import from a registry on this machine: pg against docker pull, the same image, on the same disk, in turn; and how much memory it takes. */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { imageArchive } from '../examples/images/build.ts';
import { machine, median, PG, run, scratch, seconds, startDocker, table } from './engines.ts';

const ROUNDS = Number(process.env['ROUNDS'] ?? 3);
const MEMORY_EVERY_MS = 20;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Docker's registry on loopback. */
async function startRegistry(dir: string): Promise<{ host: string; process: ChildProcess }> {
  mkdirSync(dir);
  const port = await freePort();
  const config = join(dir, 'config.yml');
  writeFileSync(
    config,
    JSON.stringify({
      version: '0.1',
      storage: { filesystem: { rootdirectory: join(dir, 'data') } },
      http: { addr: `127.0.0.1:${port}`, secret: 'bench' },
    }),
  );
  const log = openSync(join(dir, 'log'), 'w');
  const child = spawn('docker-registry', ['serve', config], { stdio: ['ignore', log, log] });
  const host = `127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    const answers = await fetch(`http://${host}/v2/`).then(
      (answer) => answer.ok,
      () => false,
    );
    if (answers) return { host, process: child };
    if (tries > 100) throw new Error('docker-registry does not come up');
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Runs pg; seconds, and the most memory it held at once (resident, MiB). */
async function measured(args: string[], root: string): Promise<{ seconds: number; peakMiB: number }> {
  const start = performance.now();
  const child = spawn(PG, args, {
    env: { ...process.env, PG_ROOT: root, PG_HOUSEKEEPING: 'off' },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  let peakKib = 0;
  const timer = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      peakKib = Math.max(peakKib, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0));
    } catch {
      // it has just ended
    }
  }, MEMORY_EVERY_MS);
  const code = await new Promise<number | null>((resolve) => child.once('exit', resolve));
  clearInterval(timer);
  if (code !== 0) throw new Error(`pg ${args.join(' ')}: ${code}`);
  return { seconds: (performance.now() - start) / 1000, peakMiB: peakKib / 1024 };
}

const work = scratch('pull');
const registry = await startRegistry(join(work.dir, 'registry'));
const docker = await startDocker(join(work.dir, 'docker'), false);
const root = join(work.dir, 'pg');
const rows: string[][] = [];
try {
  const archive = imageArchive('postgres');
  const images: [string, string[]][] = [
    ["postgres, gzip that pg makes again (node's)", []],
    ['postgres, gzip that is kept (pgzip)', ['--dest-force-compress-format', '--dest-compress-format=gzip']],
  ];
  for (const [i, [label, packing]] of images.entries()) {
    const name = `${registry.host}/bench/postgres:${i}`;
    const to = ['--dest-tls-verify=false', ...(packing.length === 0 ? [] : ['--dest-compress'])];
    // Unpacked first, else skopeo takes the compressed layers as they are.
    const plain = join(work.dir, 'plain');
    if (packing.length > 0)
      run('skopeo', ['--insecure-policy', 'copy', '-q', '--dest-decompress', `oci-archive:${archive}`, `dir:${plain}`]);
    const from = packing.length === 0 ? `oci-archive:${archive}` : `dir:${plain}`;
    run('skopeo', ['--insecure-policy', 'copy', '-q', ...to, from, `docker://${name}`]);
    const times: Record<'pg' | 'docker' | 'again', number[]> = { pg: [], docker: [], again: [] };
    let peak = 0;
    for (let round = 0; round < ROUNDS; round++) {
      rmSync(root, { recursive: true, force: true });
      mkdirSync(root);
      const first = await measured(['import', '-q', `docker://${name}`], root);
      times.pg.push(first.seconds);
      peak = Math.max(peak, first.peakMiB);
      times.again.push((await measured(['import', '-q', `docker://${name}`], root)).seconds);
      if (docker === null) continue;
      times.docker.push(seconds(() => docker.docker('pull', '-q', name)));
      docker.docker('rmi', '-f', name);
    }
    const cell = (t: number[]): string => (t.length === 0 ? 'not here' : `${median(t).toFixed(2)} s`);
    const ratio = times.docker.length === 0 ? '' : `${(median(times.pg) / median(times.docker)).toFixed(2)} x`;
    rows.push([label, cell(times.pg), cell(times.docker), ratio, cell(times.again), `${peak.toFixed(0)} MiB`]);
  }
} finally {
  registry.process.kill();
  await docker?.stop();
  work.clean();
}
process.stdout.write(`${machine()}; medians of ${ROUNDS}\n`);
table(
  'Import from a registry',
  ['image', 'pg import', 'docker pull', 'pg / docker', 'pg, already present', 'peak memory of pg'],
  rows,
);
