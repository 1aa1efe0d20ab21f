/** Images out again, to real registries, directories and engines: what others read there is what was published. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadBlob } from '../../../layers/blobs/record.ts';
import type { KeepBlobs } from '../../../layers/blobs/keeper.ts';
import { exportImage } from '../../../layers/export.ts';
import { type ImageRecord, removeImage } from '../../../layers/images.ts';
import { importImage } from '../../../layers/import.ts';
import { imagesReachable } from '../../../layers/reachable.ts';
import { digestOf } from '../../../layers/transport/digest.ts';
import type { Store } from '../../../store/store.ts';
import { noise, Place } from '../../store/fixture.ts';
import { failure } from '../transport/checks.ts';
import { useRegistries } from '../transport/registries.ts';
import {
  blobsOf,
  dockerLegacyTar,
  type SampleImage,
  type SampleLayer,
  sampleImage,
  sampleLayer,
  smallImage,
  writeLayout,
} from '../transport/samples.ts';
import {
  type Dockerd,
  havePrograms,
  misbehaving,
  pushImage,
  run,
  startDockerd,
  startRegistry,
} from '../transport/services.ts';

const skopeo = (...args: string[]): string => run('skopeo', '--insecure-policy', ...args);
const rawAt = (name: string): string => skopeo('inspect', '--raw', '--tls-verify=false', `docker://${name}`);

/** The image as an empty store takes it in. */
async function importedAfresh(source: string): Promise<ImageRecord> {
  const fresh = new Place();
  try {
    return (await importImage(fresh.open(), source)).image;
  } finally {
    await fresh.remove();
  }
}

/** A layer that gzip(1) packed: no compressor that pg knows makes the same. */
async function gnuLayer(seed: number, bytes = 300_000): Promise<SampleLayer> {
  const data = noise(bytes, seed);
  const { tar, diffId } = await sampleLayer({ 'etc/motd': `hello ${seed}\n`.repeat(5000), data }, 'none');
  const blob = execFileSync('gzip', ['-nc'], { input: tar, maxBuffer: 256 << 20 });
  return { tar, blob, diffId, digest: digestOf(blob), mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip' };
}

describe('images out again', function () {
  this.timeout(120_000);
  const registries = useRegistries();
  const { environment, start } = registries;
  let dir: string;
  let place: Place;
  let store: Store;
  beforeEach(() => {
    dir = registries.dir;
    place = new Place();
    store = place.open();
  });
  afterEach(() => place.remove());

  const imported = async (source: string, keepBlobs: KeepBlobs = 'keep'): Promise<ImageRecord> =>
    (await importImage(store, source, { keepBlobs })).image;

  /** Every blob that the sample has, as skopeo finds it at `source`. */
  function assertBlobs(source: string, sample: SampleImage): void {
    const at = join(dir, `copy-${readdirSync(dir).length}`);
    skopeo('copy', '-q', '--src-tls-verify=false', source, `dir:${at}`);
    for (const [digest, bytes] of blobsOf(sample)) {
      const file = digest === sample.digest ? 'manifest.json' : digest.slice('sha256:'.length);
      assert.ok(readFileSync(join(at, file)).equals(bytes), `${digest} of ${source}`);
    }
  }

  it('a registry gets the manifest and the blobs that another had, however they are packed', async () => {
    const [from, to] = [await start(), await start()];
    const samples: Record<string, SampleImage> = {
      gnu: sampleImage([await gnuLayer(1), await gnuLayer(2, 4_000_000)]),
      node: await smallImage({ packing: 'gzip' }),
      zstd: await smallImage({ packing: 'zstd' }),
      plain: await smallImage({ packing: 'none' }),
      mixed: sampleImage([
        await gnuLayer(3),
        await sampleLayer({ a: 'b' }, 'zstd'),
        await sampleLayer({ c: 'd' }, 'none'),
      ]),
    };
    for (const [name, sample] of Object.entries(samples)) {
      await pushImage(from.host, name, '1', sample);
      const fresh = new Place();
      try {
        const other = fresh.open();
        const { image } = await importImage(other, `docker://${from.host}/${name}:1`);
        const exported = await exportImage(other, image, `docker://${to.host}/team/${name}:2`);
        assert.deepEqual([exported.digest, exported.isPublished], [sample.digest, true], name);
        assert.equal(rawAt(`${to.host}/team/${name}:2`), sample.manifest.toString());
        assertBlobs(`docker://${to.host}/team/${name}:2`, sample);
        await exportImage(other, image, `dir:${join(dir, `${name}.dir`)}`);
        assertBlobs(`dir:${join(dir, `${name}.dir`)}`, sample);
        await exportImage(other, image, `oci:${join(dir, `${name}.oci`)}:x`);
        assertBlobs(`oci:${join(dir, `${name}.oci`)}:x`, sample);
      } finally {
        await fresh.remove();
      }
    }
  });

  it("Docker's schema 2 stays what it is; in an OCI layout it becomes OCI's", async () => {
    const { host } = await start();
    writeLayout(join(dir, 'in'), sampleImage([await gnuLayer(4)]), 'x');
    skopeo('copy', '-q', '--dest-tls-verify=false', '--format', 'v2s2', `oci:${dir}/in:x`, `docker://${host}/v2:s2`);
    const raw = rawAt(`${host}/v2:s2`);
    const image = await imported(`docker://${host}/v2:s2`);
    const pushed = await exportImage(store, image, `docker://${host}/other/v2:s2`);
    assert.equal(pushed.digest, digestOf(Buffer.from(raw)));
    assert.equal(rawAt(`${host}/other/v2:s2`), raw);
    const layout = await exportImage(store, image, `oci:${dir}/out:x`);
    assert.equal(layout.isPublished, false);
    run('umoci', 'unpack', '--image', `${dir}/out:x`, join(dir, 'bundle'));
    assert.equal(readFileSync(join(dir, 'bundle/rootfs/etc/motd'), 'utf8'), 'hello 4\n'.repeat(5000));
    const asDocker = await exportImage(store, image, `docker://${host}/third:1`, { form: 'docker' });
    assert.deepEqual([asDocker.digest, asDocker.isPublished], [pushed.digest, true]);
  });

  it('what is there is not sent again, and what another repository has is mounted', async () => {
    const { host } = await start();
    const sample = sampleImage([await gnuLayer(5), await gnuLayer(6)]);
    await pushImage(host, 'from/app', '1', sample);
    const image = await imported(`docker://${host}/from/app:1`);
    const bytes = sample.config.length + sample.layers[0]!.blob.length + sample.layers[1]!.blob.length;
    const notes: (string | undefined)[] = [];
    const progress = { start: () => {}, advance: () => {}, done: (_: string, note?: string) => void notes.push(note) };
    const mounted = await exportImage(store, image, `docker://${host}/to/app:1`, { progress });
    assert.deepEqual([mounted.writtenBytes, mounted.presentBytes, mounted.digest], [0, bytes, sample.digest]);
    assert.deepEqual(notes, ['mounted', 'mounted', 'mounted']);
    const again = await exportImage(store, image, `docker://${host}/to/app:2`, { progress });
    assert.deepEqual([again.writtenBytes, again.presentBytes], [0, bytes]);
    assert.deepEqual(notes.slice(3), ['already there', 'already there', 'already there']);
    assertBlobs(`docker://${host}/to/app:2`, sample);
  });

  it('asks for what it needs: a name and password, and no more than that', async () => {
    const { host } = await start({ user: { name: 'me', password: 'secret' } });
    writeLayout(join(dir, 'in'), sampleImage([await gnuLayer(7)]), 'x');
    const image = await imported(`oci:${dir}/in:x`);
    const denied = await failure(
      () => exportImage(store, image, `docker://${host}/app:1`, environment() as { env: Record<string, string> }),
      'ACCESS_DENIED',
    );
    assert.match(denied.hint ?? '', /pg login/);
    const auth = join(dir, 'auth.json');
    writeFileSync(auth, JSON.stringify({ auths: { [host]: { auth: Buffer.from('me:secret').toString('base64') } } }));
    const env = { HOME: dir, REGISTRY_AUTH_FILE: auth };
    const { digest } = await exportImage(store, image, `docker://${host}/app:1`, { env });
    assert.equal(digest, image.manifest?.digest);
  });

  it('what was never compressed is packed once, and known by then', async () => {
    const { host } = await start();
    const sample = await smallImage({ packing: 'none' });
    writeFileSync(join(dir, 'saved.tar'), await dockerLegacyTar(sample, ['sample:1']));
    const image = await imported(`docker-archive:${dir}/saved.tar`);
    const first = await exportImage(store, image, `docker://${host}/fresh:1`);
    assert.equal(first.isPublished, false);
    const second = await exportImage(store, image, `docker://${host}/fresh:2`);
    assert.deepEqual([second.digest, second.writtenBytes], [first.digest, 0]);
    const inspected = JSON.parse(skopeo('inspect', '--tls-verify=false', '--config', `docker://${host}/fresh:1`)) as {
      rootfs: { diff_ids: string[] };
    };
    assert.deepEqual(
      inspected.rootfs.diff_ids,
      sample.layers.map(({ diffId }) => diffId),
    );
    assert.equal((await importedAfresh(`docker://${host}/fresh:1`)).id, image.id);
  });

  it('keep_blobs: what is kept, what is rebuilt, what goes out with another manifest', async () => {
    const layers = [await gnuLayer(8), await sampleLayer({ a: 'b'.repeat(100_000) }, 'gzip')];
    writeLayout(join(dir, 'in'), sampleImage(layers), 'x');
    const kinds = (): (string | undefined)[] => layers.map(({ digest }) => loadBlob(store, digest)?.packing.kind);
    for (const [policy, expected] of [
      ['keep', ['kept', 'gzip']],
      ['rebuild', [undefined, 'gzip']],
      ['none', [undefined, undefined]],
    ] as const) {
      const image = await imported(`oci:${dir}/in:x`, policy);
      assert.deepEqual(kinds(), expected, policy);
      // What is kept is kept from the collector too.
      await store.collect(() => imagesReachable(store));
      const { isPublished } = await exportImage(store, image, `oci:${dir}/${policy}:x`);
      assert.equal(isPublished, policy === 'keep');
      removeImage(store, image.id, () => []);
      assert.deepEqual(kinds(), [undefined, undefined], 'records go with the image');
    }
  });

  it('a blob that does not come out as it had seemed goes out otherwise', async () => {
    const layer = await sampleLayer({ a: 'b'.repeat(100_000) }, 'gzip');
    writeLayout(join(dir, 'in'), sampleImage([layer]), 'x');
    const image = await imported(`oci:${dir}/in:x`);
    const record = store.table('blobs').get(layer.digest)!.toString();
    store.table('blobs').put(layer.digest, Buffer.from(record.replace('"level":6', '"level":1')));
    for (const destination of [`oci-archive:${dir}/out.tar:x`, `dir:${dir}/out.dir`]) {
      const { isPublished } = await exportImage(store, image, destination);
      assert.equal(isPublished, false);
      skopeo('copy', '-q', destination, `dir:${join(dir, `read-${destination.slice(0, 3)}`)}`);
    }
    assert.equal(loadBlob(store, layer.digest), undefined);
  });

  it('a registry that cuts, fails and forgets in between gets all of it in the end', async () => {
    const { host } = await start();
    const sample = sampleImage([await gnuLayer(9, 20_000_000), await gnuLayer(10)]);
    writeLayout(join(dir, 'in'), sample, 'x');
    const image = await imported(`oci:${dir}/in:x`);
    let [patches, puts] = [0, 0];
    const [name, port] = host.split(':') as [string, string];
    // It passes everything on, but the second chunk is cut in the middle, the first manifest and the first blob are refused.
    const flaky = await misbehaving((request, response) => {
      const isCut = request.method === 'PATCH' && ++patches === 2;
      if (request.method === 'PUT' && ++puts < 3) {
        request.resume();
        response.writeHead(503, { 'retry-after': '0' }).end();
        return;
      }
      const onward = httpRequest(
        { host: name, port, path: request.url, method: request.method, headers: { ...request.headers, host } },
        (answer) => {
          const location = answer.headers.location?.replace(host, flaky.host);
          response.writeHead(answer.statusCode!, { ...answer.headers, ...(location ? { location } : {}) });
          answer.pipe(response);
        },
      );
      onward.on('error', () => response.destroy());
      let seen = 0;
      request.on('data', (chunk: Buffer) => {
        onward.write(chunk);
        seen += chunk.length;
        if (!isCut || seen < 1_000_000) return;
        request.destroy();
        onward.destroy();
      });
      request.on('end', () => onward.end());
    });
    try {
      const { digest } = await exportImage(store, image, `docker://${flaky.host}/app:1`);
      assert.equal(digest, sample.digest);
      assert.ok(patches >= 3);
      assertBlobs(`docker://${host}/app:1`, sample);
    } finally {
      await flaky.stop();
    }
  });

  it('a registry that refuses to be pushed to is an error in words', async () => {
    writeLayout(join(dir, 'in'), sampleImage([await gnuLayer(11)]), 'x');
    const image = await imported(`oci:${dir}/in:x`);
    for (const [status, code] of [
      [403, 'ACCESS_DENIED'],
      [413, 'REGISTRY_MISBEHAVES'],
    ] as const) {
      const server = await misbehaving((request, response) => {
        request.resume();
        if (request.method === 'HEAD') return void response.writeHead(404).end();
        response.writeHead(request.url === '/v2/' ? 200 : status, { 'retry-after': '0' });
        response.end(JSON.stringify({ errors: [{ code: 'NO', message: 'thanks' }] }));
      });
      const error = await failure(() => exportImage(store, image, `docker://${server.host}/app:1`), code);
      assert.match(error.message, /NO thanks/);
      await server.stop();
    }
    await failure(() => exportImage(store, image, 'docker://127.0.0.1:1/app:1'), 'REGISTRY_UNREACHABLE');
    await failure(() => exportImage(store, image, `docker://a/b@${image.id}`), 'DESTINATION_INVALID');
    await failure(
      () => exportImage(store, image, 'docker-daemon:x', { env: { HOME: dir, DOCKER_HOST: 'unix:///no' } }),
      'ENGINE_UNREACHABLE',
    );
  });
});

/** What docker push compressed is packed again without anything being kept, and goes elsewhere as Docker had pushed it. */
async function pushedByDocker(docker: Dockerd, id: string): Promise<void> {
  const place = new Place();
  const [from, to] = [await startRegistry(place.dir), await startRegistry(place.dir)];
  try {
    run('docker', '-H', docker.host, 'tag', id, `${from.host}/app:1`);
    run('docker', '-H', docker.host, 'push', '-q', `${from.host}/app:1`);
    const store = place.open();
    const { image } = await importImage(store, `docker://${from.host}/app:1`, { keepBlobs: 'rebuild' });
    for (const { digest } of image.layers) {
      const packing = loadBlob(store, digest!)?.packing;
      assert.ok(packing?.kind === 'gzip' && packing.maker === 'go', digest);
    }
    const exported = await exportImage(store, image, `docker://${to.host}/app:1`);
    assert.deepEqual([exported.digest, exported.isPublished], [image.manifest!.digest, true]);
    assert.equal(rawAt(`${to.host}/app:1`), rawAt(`${from.host}/app:1`));
  } finally {
    await from.stop();
    await to.stop();
    await place.remove();
  }
}

describe('into the engines', function () {
  this.timeout(120_000);
  it('Docker and podman take the image by their sockets', async function () {
    if (process.getuid?.() !== 0 || !havePrograms('dockerd', 'docker', 'podman', 'docker-registry', 'skopeo'))
      return this.skip();
    const place = new Place();
    const store = place.open();
    const docker = await startDockerd();
    const socket = join(place.dir, 'podman.sock');
    const home = ['--root', join(place.dir, 'podman'), '--runroot', join(place.dir, 'podman-run')];
    const podman = [...home, '--storage-driver', 'vfs'];
    const service = spawn('podman', [...podman, 'system', 'service', '--time=0', `unix://${socket}`], {
      stdio: 'ignore',
    });
    try {
      writeLayout(join(place.dir, 'in'), sampleImage([await gnuLayer(12), await gnuLayer(13)]), 'x');
      const { image } = await importImage(store, `oci:${place.dir}/in:x`, { name: 'localhost/sample:1' });
      const env = { HOME: place.dir, DOCKER_HOST: docker.host, CONTAINER_HOST: `unix://${socket}` };
      await exportImage(store, image, 'docker-daemon:', { env });
      const inspected = JSON.parse(run('docker', '-H', docker.host, 'inspect', 'localhost/sample:1')) as {
        Id: string;
      }[];
      assert.equal(inspected[0]!.Id, image.id);
      run('docker', '-H', docker.host, 'save', '-o', join(place.dir, 'saved.tar'), 'localhost/sample:1');
      const again = await importedAfresh(`docker-archive:${place.dir}/saved.tar`);
      assert.deepEqual(
        again.layers.map((layer) => layer.diffId),
        image.layers.map((layer) => layer.diffId),
      );
      await pushedByDocker(docker, image.id);
      for (let i = 0; i < 100 && !existsSync(socket); i++) await sleep(100);
      await exportImage(store, image, 'podman-daemon:localhost/other:2', { env });
      const [taken] = JSON.parse(run('podman', ...podman, 'image', 'inspect', 'localhost/other:2')) as { Id: string }[];
      assert.equal(`sha256:${taken!.Id}`, image.id);
    } finally {
      const gone = once(service, 'exit');
      service.kill();
      await gone;
      await docker.stop();
      await place.remove();
    }
  });
});
