/** Import of an archive: pg against docker load and podman load, the same file, on the same disk, in turn. */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { imageArchive, IMAGE_CACHE } from '../examples/images/build.ts';
import { HOME, machine, median, PG, podmanIn, run, scratch, seconds, startDocker, table } from './engines.ts';

const ROUNDS = Number(process.env['ROUNDS'] ?? 3);

/** A docker-archive of about 1.26 GB: this machine's own /usr as one layer, cut off at that size. Made once. */
async function bigArchive(): Promise<string> {
  const archive = join(IMAGE_CACHE, 'big.docker.tar');
  if (existsSync(archive)) return archive;
  const work = scratch('big');
  const list = execFileSync(
    'sh',
    [
      '-c',
      `find /usr/lib /usr/share /usr/bin -xdev -type f -size -64M -printf '%s\t%p\\n' | awk -F'\t' '{t+=$1+1024; if (t > 1260000000) exit; print $2}'`,
    ],
    {
      encoding: 'utf8',
      maxBuffer: 64 << 20,
    },
  );
  writeFileSync(join(work.dir, 'list'), list);
  const layer = join(work.dir, 'layer.tar');
  execFileSync('tar', ['--numeric-owner', '-cf', layer, '-T', join(work.dir, 'list')], {
    stdio: ['ignore', 'ignore', 'ignore'],
    cwd: '/',
  });
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(layer, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  const config = JSON.stringify({
    created: '2024-01-01T00:00:00Z',
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['true'] },
    rootfs: { type: 'layers', diff_ids: [`sha256:${hash.digest('hex')}`] },
  });
  const name = `${createHash('sha256').update(config).digest('hex')}.json`;
  writeFileSync(join(work.dir, name), config);
  writeFileSync(
    join(work.dir, 'manifest.json'),
    JSON.stringify([{ Config: name, RepoTags: ['big:latest'], Layers: ['layer.tar'] }]),
  );
  execFileSync('tar', ['-C', work.dir, '-cf', archive, 'manifest.json', name, 'layer.tar']);
  work.clean();
  return archive;
}

function smallArchive(): string {
  const archive = join(IMAGE_CACHE, 'postgres.docker.tar');
  if (!existsSync(archive))
    run('skopeo', [
      'copy',
      '-q',
      `oci-archive:${imageArchive('postgres')}`,
      `docker-archive:${archive}:postgres:latest`,
    ]);
  return archive;
}

async function compare(label: string, archive: string, imageName: string, rows: string[][]): Promise<void> {
  const work = scratch('import');
  const docker = await startDocker(join(work.dir, 'docker'), false);
  const podman = podmanIn(join(work.dir, 'podman'));
  const times: Record<'pg' | 'docker' | 'podman' | 'again', number[]> = { pg: [], docker: [], podman: [], again: [] };
  const root = join(work.dir, 'pg');
  try {
    execFileSync('sh', ['-c', `cat '${archive}' > /dev/null`]);
    for (let i = 0; i < ROUNDS; i++) {
      rmSync(root, { recursive: true, force: true });
      mkdirSync(root);
      times.pg.push(
        seconds(() => run(PG, ['import', `docker-archive:${archive}`], { PG_ROOT: root, PG_HOUSEKEEPING: 'off' })),
      );
      times.again.push(
        seconds(() => run(PG, ['import', `docker-archive:${archive}`], { PG_ROOT: root, PG_HOUSEKEEPING: 'off' })),
      );
      if (docker !== null) {
        times.docker.push(seconds(() => docker.docker('load', '-q', '-i', archive)));
        docker.docker('rmi', '-f', imageName);
      }
      if (podman !== null) {
        times.podman.push(seconds(() => podman('load', '-q', '-i', archive)));
        podman('rmi', '-a', '-f');
      }
    }
  } finally {
    await docker?.stop();
    work.clean();
  }
  const best = Math.min(...[times.docker, times.podman].filter((t) => t.length > 0).map(median));
  const cell = (t: number[]): string => (t.length === 0 ? 'not here' : `${median(t).toFixed(2)} s`);
  rows.push([
    label,
    `${(statSync(archive).size / 1e6).toFixed(0)} MB`,
    cell(times.pg),
    cell(times.docker),
    cell(times.podman),
    `${(median(times.pg) / best).toFixed(2)} x`,
    cell(times.again),
  ]);
}

const rows: string[][] = [];
process.stdout.write(`${machine()}; medians of ${ROUNDS}; ${HOME === process.cwd() ? '' : HOME}\n`);
await compare('small (postgres, 3 layers)', smallArchive(), 'postgres:latest', rows);
await compare('big (one layer of /usr)', await bigArchive(), 'big:latest', rows);
table(
  'Import of a docker-archive',
  ['image', 'size', 'pg', 'docker load', 'podman load', 'pg / faster of them', 'pg, already present'],
  rows,
);
