/** A Docker engine of our own, and podman's service. */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { digestOf } from '../../../layers/transport/digest.ts';
import { resolveBareName } from '../../../layers/transport/bare-name.ts';
import { parsePlatform } from '../../../layers/transport/platform.ts';
import type { SourceOptions } from '../../../layers/transport/source.ts';
import { assertIsSample, failure, readAll } from './checks.ts';
import { dockerLegacyTar, smallImage, type SampleImage } from './samples.ts';
import {
  havePrograms,
  makeTempDir,
  pushImage,
  removeTempDir,
  run,
  startDockerd,
  startRegistry,
  type Dockerd,
} from './services.ts';

describe('docker-daemon: and bare names', function () {
  this.timeout(120_000);
  let docker: Dockerd | undefined;
  let dir: string;
  let image: SampleImage;
  const options = (more: Record<string, string> = {}): SourceOptions => ({
    tempDir: dir,
    env: { HOME: dir, DOCKER_HOST: docker!.host, ...more },
  });

  before(async function () {
    if (!havePrograms('dockerd', 'containerd')) return this.skip();
    if (process.getuid?.() !== 0) {
      console.error('skipped: dockerd needs root');
      return this.skip();
    }
    dir = makeTempDir();
    docker = await startDockerd();
    image = await smallImage({ packing: 'none' });
    writeFileSync(join(dir, 'load.tar'), await dockerLegacyTar(image, ['sample:1', 'localhost:5000/me/sample:2']));
    const stream = await docker.client.loadImage(createReadStream(join(dir, 'load.tar')));
    for await (const _ of stream) void _;
  });
  after(async () => {
    await docker?.stop();
    if (dir) removeTempDir(dir);
  });

  it('takes an image out of the engine, by each of its names', async () => {
    for (const name of ['sample:1', 'docker.io/library/sample:1', 'localhost:5000/me/sample:2', image.configDigest]) {
      const told: string[] = [];
      const progress = {
        start: (_: string, label: string) => told.push(label),
        advance: () => undefined,
        done: () => told.push('done'),
      };
      const read = await readAll(`docker-daemon:${name}`, { ...options(), progress });
      assertIsSample(read, image);
      assert.match(read.description, /in the local Docker engine/);
      if (name !== image.configDigest)
        assert.ok(read.image.names.some((full) => full.endsWith(name.replace(/^.*\//, ''))));
      assert.deepEqual([told.length, told[1]], [2, 'done']);
    }
    assert.deepEqual(
      readdirSync(dir).filter((name) => name.includes('spool')),
      [],
    );
  });

  it('says what the engine has not, and that no engine answers', async () => {
    await failure(() => readAll('docker-daemon:sample:9', options()), 'IMAGE_NOT_FOUND');
    const error = await failure(
      () => readAll('docker-daemon:sample:1', options({ DOCKER_HOST: `unix://${dir}/none.sock` })),
      'ENGINE_UNREACHABLE',
    );
    assert.match(error.hint ?? '', /DOCKER_HOST/);
    await failure(
      () => readAll('docker-daemon:sample:1', options({ DOCKER_HOST: 'ssh://host' })),
      'ENGINE_UNREACHABLE',
    );
    await failure(
      () => readAll('docker-daemon:sample:1', options({ DOCKER_HOST: 'tcp://127.0.0.1:1' })),
      'ENGINE_UNREACHABLE',
    );
  });

  it("finds the engine of Docker's current context", async () => {
    const id = createHash('sha256').update('mine').digest('hex');
    mkdirSync(join(dir, '.docker/contexts/meta', id), { recursive: true });
    writeFileSync(join(dir, '.docker/config.json'), JSON.stringify({ currentContext: 'mine' }));
    writeFileSync(
      join(dir, '.docker/contexts/meta', id, 'meta.json'),
      JSON.stringify({ Name: 'mine', Endpoints: { docker: { Host: docker!.host } } }),
    );
    assertIsSample(await readAll('docker-daemon:sample:1', { tempDir: dir, env: { HOME: dir } }), image);
    writeFileSync(join(dir, '.docker/config.json'), '{}');
  });

  it('bare names: the engine first, then the registry; --from says otherwise', async function () {
    if (!havePrograms('docker-registry')) this.skip();
    const found = await readAll('sample:1', options());
    assertIsSample(found, image);
    assert.match(found.description, /local Docker engine/);
    assert.equal(found.source.why, 'found there first');

    const registry = await startRegistry(dir);
    try {
      const other = await smallImage({ packing: 'gzip' });
      await pushImage(registry.host, 'hub/library/sample', '1', other);
      await pushImage(registry.host, 'hub/library/sample', '2', other);
      const conf = join(dir, 'registries.conf');
      writeFileSync(
        conf,
        `[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "${registry.host}/hub"\n`,
      );
      const env = options({ CONTAINERS_REGISTRIES_CONF: conf });
      const absent = await readAll('sample:2', env);
      assertIsSample(absent, other);
      assert.match(absent.description, /in the registry docker\.io/);
      assert.match(absent.source.why ?? '', /has no sample:2/);
      assert.match((await readAll('sample:1', { ...env, from: 'registry' })).description, /in the registry/);
      const unreachable = await readAll('sample:1', { ...env, env: { ...env.env, DOCKER_HOST: `unix://${dir}/none` } });
      assert.match(unreachable.source.why ?? '', /no local Docker engine answers/);
      const arm = parsePlatform('arm64');
      assert.equal((await resolveBareName('sample:1', { ...env, platform: arm })).origin, 'registry');
      assert.equal((await resolveBareName('sample:1', { ...env, platform: parsePlatform('amd64') })).origin, 'docker');
    } finally {
      await registry.stop();
    }
    await failure(() => readAll('sample:2', { ...options(), from: 'docker' }), 'IMAGE_NOT_FOUND');
  });

  it("podman's service gives the same", async function () {
    if (!havePrograms('podman')) this.skip();
    const socket = join(dir, 'podman.sock');
    const store = ['--root', join(dir, 'podman'), '--runroot', join(dir, 'podman-run'), '--storage-driver', 'vfs'];
    writeFileSync(join(dir, 'p.tar'), await dockerLegacyTar(image, ['localhost/sample:1']));
    run('podman', ...store, 'load', '-q', '-i', join(dir, 'p.tar'));
    const service = spawn('podman', [...store, 'system', 'service', '--time=0', `unix://${socket}`], {
      stdio: 'ignore',
    });
    try {
      for (let i = 0; i < 100 && !existsSync(socket); i++) await sleep(100);
      const env = { HOME: dir, CONTAINER_HOST: `unix://${socket}` };
      const read = await readAll('localhost/sample:1', { tempDir: dir, env, from: 'podman' });
      assert.deepEqual(
        read.tars.map((tar) => digestOf(tar)),
        image.layers.map((layer) => layer.diffId),
      );
      assert.match(read.description, /local podman engine/);
    } finally {
      await ended(service);
    }
  });
});

async function ended(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit');
  child.kill();
  await gone;
}
