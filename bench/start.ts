/** `run --rm IMAGE true`, image present: pg against docker and podman, in turn. */
import { join } from 'node:path';
import { imageArchive, IMAGE_CACHE } from '../examples/images/build.ts';
import { machine, median, PG, podmanIn, run, scratch, seconds, startDocker, table } from './engines.ts';

const ROUNDS = Number(process.env['ROUNDS'] ?? 9);

const work = scratch('start');
const archive = join(IMAGE_CACHE, 'busybox.docker.tar');
run('sh', [
  '-c',
  `[ -f '${archive}' ] || skopeo copy -q 'oci-archive:${imageArchive('busybox')}' 'docker-archive:${archive}:busybox:latest'`,
]);
const docker = await startDocker(join(work.dir, 'docker'));
const podman = podmanIn(join(work.dir, 'podman'));
const env = { PG_ROOT: join(work.dir, 'pg') };
try {
  run(PG, ['import', `docker-archive:${archive}`], env);
  docker?.docker('load', '-q', '-i', archive);
  podman?.('load', '-q', '-i', archive);
  const rows: string[][] = [];
  for (const [label, flags] of [
    ['bridge network', []],
    ['--network none', ['--network', 'none']],
  ] as const) {
    const engines: Record<string, (() => void) | null> = {
      pg: () => void run(PG, ['run', '--rm', ...flags, 'busybox:latest', 'true'], env),
      docker: docker && ((): void => void docker.docker('run', '--rm', ...flags, 'busybox:latest', 'true')),
      podman: podman && ((): void => void podman('run', '--rm', ...flags, 'busybox:latest', 'true')),
    };
    const times: Record<string, number[]> = { pg: [], docker: [], podman: [] };
    for (let i = 0; i <= ROUNDS; i++) {
      for (const [name, start] of Object.entries(engines)) {
        if (start === null) continue;
        try {
          const took = seconds(start);
          // The first round warms every engine up.
          if (i > 0) times[name]!.push(took);
        } catch (error) {
          engines[name] = null;
          times[name] = [];
          process.stderr.write(
            `${name} cannot do this here: ${(error as Error).message.split('\n').slice(0, 3).join(' ')}\n`,
          );
        }
      }
    }
    const show = (name: string): string =>
      times[name]!.length === 0 ? 'not here' : `${median(times[name]!).toFixed(3)} s`;
    const ratio =
      times['docker']!.length > 0 ? `${(median(times['pg']!) / median(times['docker']!)).toFixed(2)} x` : '';
    rows.push([`run --rm busybox true, ${label}`, show('pg'), show('docker'), show('podman'), ratio]);
  }
  process.stdout.write(`${machine()}; medians of ${ROUNDS}\n`);
  table('Start of a container', ['', 'pg', 'docker', 'podman', 'pg / docker'], rows);
} finally {
  await docker?.stop();
  work.clean();
}
