/** What five related images take on the disk: pg beside docker's overlay2, and what each of them adds. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { imageArchive, IMAGE_CACHE } from '../examples/images/build.ts';
import { machine, PG, run, scratch, startDocker, table } from './engines.ts';

const IMAGES = ['base', 'nginx', 'redis', 'python', 'nginx-upgraded'];

const diskBytes = (dir: string): number => {
  execFileSync('sync');
  return Number(execFileSync('du', ['-s', '--block-size=1', dir], { encoding: 'utf8' }).split('\t')[0]);
};
const mb = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;

/** The image as docker save writes it: layers uncompressed, so that neither keeps a compressed copy. */
function dockerArchive(name: string): string {
  const archive = join(IMAGE_CACHE, `${name}.docker.tar`);
  if (!existsSync(archive))
    run('skopeo', ['copy', '-q', `oci-archive:${imageArchive(name)}`, `docker-archive:${archive}:${name}:latest`]);
  return archive;
}

const work = scratch('disk');
const docker = await startDocker(join(work.dir, 'docker'), false);
const root = join(work.dir, 'pg');
mkdirSync(root);
const env = { PG_ROOT: root, PG_HOUSEKEEPING: 'off' };
const rows: string[][] = [];
try {
  let before = { asImported: 0, pg: 0, docker: 0 };
  for (const name of IMAGES) {
    const archive = dockerArchive(name);
    run(PG, ['import', '-q', `docker-archive:${archive}`], env);
    const asImported = diskBytes(root);
    // What the housekeeper does once nobody has imported anything for three seconds.
    run(PG, ['gc'], env);
    const pg = diskBytes(root);
    docker?.docker('load', '-q', '-i', archive);
    const overlay = docker === null ? NaN : diskBytes(join(work.dir, 'docker/data/overlay2'));
    rows.push([
      name,
      mb(asImported - before.pg),
      mb(pg - before.pg),
      mb(overlay - before.docker),
      `${((pg - before.pg) / (overlay - before.docker)).toFixed(2)} x`,
    ]);
    before = { asImported, pg, docker: overlay };
  }
  const { pg, docker: overlay } = before;
  rows.push(['all', '', mb(pg), mb(overlay), `${(pg / overlay).toFixed(2)} x`]);
  process.stdout.write(`${machine()}\n`);
  table('Disk taken by related images', ['image', 'pg, as imported', 'pg', 'docker overlay2', 'pg / docker'], rows);
} finally {
  await docker?.stop();
  work.clean();
}
