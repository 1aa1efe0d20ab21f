/** Import of an archive: pg against docker load and podman load, the same file, on the same disk, in turn. */
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { imageArchive, IMAGE_CACHE } from '../examples/images/build.ts';
import { HOME, machine, median, PG, podmanIn, run, scratch, seconds, startDocker, table } from './engines.ts';
import { archiveOf, nextVersion } from './versions.ts';

const ROUNDS = Number(process.env['ROUNDS'] ?? 3);

/** A docker-archive of about 1.26 GB: this machine's own /usr as one layer, cut off at that size. Made once. */
function bigArchive(): string {
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
  archiveOf('big:latest', [layer], join(work.dir, 'big.docker.tar'));
  copyFileSync(join(work.dir, 'big.docker.tar'), archive);
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

/** What the next version of the big image costs whoever has the first. */
function compareVersions(archive: string, rows: string[][]): void {
  const work = scratch('versions');
  const root = join(work.dir, 'pg');
  try {
    run('tar', ['-C', work.dir, '-xf', archive, 'layer.tar']);
    const next = nextVersion(join(work.dir, 'layer.tar'), work.dir);
    const bring = (path: string): number =>
      seconds(() => run(PG, ['import', `docker-archive:${path}`], { PG_ROOT: root, PG_HOUSEKEEPING: 'off' }));
    for (const [label, path] of [
      ['the layer anew', next.whole],
      ['a second layer', next.above],
    ] as const) {
      const times: Record<'first' | 'next', number[]> = { first: [], next: [] };
      for (let i = 0; i < ROUNDS; i++) {
        rmSync(root, { recursive: true, force: true });
        mkdirSync(root);
        times.first.push(bring(archive));
        times.next.push(bring(path));
      }
      const [first, then] = [median(times.first), median(times.next)];
      rows.push([label, `${first.toFixed(2)} s`, `${then.toFixed(2)} s`, `${(then / first).toFixed(2)} x`]);
    }
  } finally {
    work.clean();
  }
}

/** Which of the tables are wanted: all of them, or those that PARTS names. */
const parts = new Set((process.env['PARTS'] ?? 'small,big,versions').split(','));
const rows: string[][] = [];
process.stdout.write(`${machine()}; medians of ${ROUNDS}; ${HOME === process.cwd() ? '' : HOME}\n`);
if (parts.has('small')) await compare('small (postgres, 3 layers)', smallArchive(), 'postgres:latest', rows);
if (parts.has('big')) await compare('big (one layer of /usr)', bigArchive(), 'big:latest', rows);
table(
  'Import of a docker-archive',
  ['image', 'size', 'pg', 'docker load', 'podman load', 'pg / faster of them', 'pg, already present'],
  rows,
);
const versions: string[][] = [];
if (parts.has('versions')) compareVersions(bigArchive(), versions);
table('Import of a version of which 5 % are new (big)', ['as', 'the first', 'the next', 'next / first'], versions);
