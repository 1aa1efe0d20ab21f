/** Against Docker's own registry on loopback. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { importImage } from '../../../layers/import.ts';
import { digestOf } from '../../../layers/transport/digest.ts';
import { parsePlatform } from '../../../layers/transport/platform.ts';
import { Place } from '../../store/fixture.ts';
import { assertIsSample, failure, readAll } from './checks.ts';
import {
  blobsOf,
  descriptor,
  indexOf,
  json,
  layoutFiles,
  sampleImage,
  sampleLayer,
  smallImage,
  writeFiles,
  writeLayout,
} from './samples.ts';
import { useRegistries } from './registries.ts';
import { misbehaving, pushImage, respond, run } from './services.ts';

const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';

describe('docker:// against a real registry', function () {
  const registries = useRegistries();
  const { environment, start } = registries;
  let dir: string;
  beforeEach(() => {
    dir = registries.dir;
  });

  it('reads by tag and by digest, OCI and Docker schema 2, gzip, zstd and plain', async () => {
    const { host } = await start();
    for (const packing of ['gzip', 'zstd', 'none'] as const) {
      const image = await smallImage({ packing });
      await pushImage(host, 'team/app', packing, image);
      const read = await readAll(`docker://${host}/team/app:${packing}`, environment());
      assertIsSample(read, image);
      assert.deepEqual(read.compressions, [packing, packing]);
      assert.deepEqual(read.image.names, [`${host}/team/app:${packing}`]);
      assert.equal(read.image.manifest?.digest, image.digest);
      assert.match(read.description, /in the registry 127\.0\.0\.1/);
      const byDigest = await readAll(`docker://${host}/team/app@${image.digest}`, environment());
      assertIsSample(byDigest, image);
      assert.deepEqual(byDigest.image.names, [`${host}/team/app@${image.digest}`]);
    }
    const image = await smallImage();
    writeLayout(join(dir, 'in'), image, 'x');
    run(
      'skopeo',
      '--insecure-policy',
      'copy',
      '-q',
      '--dest-tls-verify=false',
      '--format',
      'v2s2',
      `oci:${dir}/in:x`,
      `docker://${host}/v2:s2`,
    );
    const read = await readAll(`docker://${host}/v2:s2`, environment());
    assert.equal(read.image.manifest?.mediaType, 'application/vnd.docker.distribution.manifest.v2+json');
    assert.deepEqual(
      read.tars.map((tar) => digestOf(tar)),
      image.layers.map((layer) => layer.diffId),
    );
  });

  it('chooses from an index', async () => {
    const { host } = await start();
    const images = await Promise.all(['amd64', 'arm64'].map((architecture) => smallImage({ architecture })));
    const index = indexOf(images);
    writeFiles(
      join(dir, 'in'),
      layoutFiles(
        [descriptor(OCI_INDEX, index)],
        [...images.flatMap((image) => [...blobsOf(image)]), [digestOf(index), index]],
      ),
    );
    run(
      'skopeo',
      '--insecure-policy',
      'copy',
      '-q',
      '--all',
      '--dest-tls-verify=false',
      `oci:${dir}/in`,
      `docker://${host}/multi:1`,
    );
    for (const image of images) {
      assertIsSample(
        await readAll(`docker://${host}/multi:1`, environment(), parsePlatform(image.architecture)),
        image,
      );
    }
    const error = await failure(
      () => readAll(`docker://${host}/multi:1`, environment(), parsePlatform('riscv64')),
      'PLATFORM_NOT_FOUND',
    );
    assert.match(error.message, /linux\/amd64, linux\/arm64/);
  });

  it('says what is not there', async () => {
    const registry = await start();
    const { host } = registry;
    const image = await smallImage();
    await pushImage(host, 'app', '1', image);
    for (const name of [`${host}/app:2`, `${host}/other`, `${host}/app@sha256:${'0'.repeat(64)}`]) {
      const error = await failure(() => readAll(`docker://${name}`, environment()), 'IMAGE_NOT_FOUND');
      assert.ok(error.message.includes(host));
    }
    await registry.stop();
    await failure(() => readAll(`docker://${host}/app:1`, environment()), 'REGISTRY_UNREACHABLE');
  });

  it('refuses schema 1', async () => {
    const server = await misbehaving((request, response) => {
      if (!request.url!.includes('/manifests/')) return respond(response, 200, json({}));
      respond(response, 200, json({ schemaVersion: 1, name: 'x', fsLayers: [] }), {
        'content-type': 'application/vnd.docker.distribution.manifest.v1+prettyjws',
      });
    });
    const error = await failure(() => readAll(`docker://${server.host}/x:1`, environment()), 'SCHEMA1_REFUSED');
    assert.match(error.hint ?? '', /skopeo/);
    await server.stop();
  });

  it('mirrors, rewriting and blocking by registries.conf', async () => {
    const [main, mirror] = [await start(), await start()];
    const [one, two] = [await smallImage({ architecture: 'amd64' }), await smallImage({ packing: 'none' })];
    await pushImage(main.host, 'moved/here/app', '1', one);
    await pushImage(mirror.host, 'cache/library/nginx', '1', two);
    const conf = join(dir, 'registries.conf');
    const env = environment({ CONTAINERS_REGISTRIES_CONF: conf });
    writeFileSync(
      conf,
      `[[registry]]
prefix = "old.example.com/apps"
location = "${main.host}/moved/here"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "${main.host}/empty"
[[registry.mirror]]
location = "${mirror.host}/cache"
[[registry]]
prefix = "*.bad.example"
blocked = true
`,
    );
    const moved = await readAll('docker://old.example.com/apps/app:1', env);
    assertIsSample(moved, one);
    assert.deepEqual(moved.image.names, ['old.example.com/apps/app:1'], 'the name stays what was asked for');
    assert.match(moved.description, new RegExp(`by way of ${main.host}`));
    const mirrored = await readAll('nginx:1', { ...env, from: 'registry' });
    assertIsSample(mirrored, two);
    assert.deepEqual(mirrored.image.names, ['docker.io/library/nginx:1']);
    const error = await failure(() => readAll('docker://x.bad.example/app', env), 'REGISTRY_BLOCKED');
    assert.match(error.message, /\*\.bad\.example/);
    writeFileSync(conf, '[registries.search]\nregistries = []\n');
    await failure(() => readAll('docker://x/app', env), 'REGISTRIES_CONF_INVALID');
  });

  it('through the proxy of the environment, but not to this machine', async () => {
    const { host } = await start();
    const image = await smallImage();
    await pushImage(host, 'app', '1', image);
    const tunnels: string[] = [];
    const proxy = await misbehaving(async (request, response) => {
      const url = new URL(request.url!);
      const answer = await fetch(`http://${host}${url.pathname}`, {
        headers: { accept: request.headers.accept ?? '*/*' },
      });
      respond(response, answer.status, Buffer.from(await answer.arrayBuffer()), {
        'content-type': answer.headers.get('content-type') ?? '',
      });
    });
    proxy.server.on('connect', (request, socket) => {
      tunnels.push(request.url!);
      socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    });
    const conf = join(dir, 'registries.conf');
    writeFileSync(conf, '[[registry]]\nlocation = "registry.invalid:5000"\ninsecure = true\n');
    const url = `http://${proxy.host}`;
    const env = environment({ CONTAINERS_REGISTRIES_CONF: conf, http_proxy: url, HTTPS_PROXY: url });
    assertIsSample(await readAll('docker://registry.invalid:5000/app:1', env), image);
    assert.deepEqual(tunnels, ['registry.invalid:5000'], 'https is tried first');
    assert.ok(proxy.requests.every((request) => request.url.startsWith('http://registry.invalid:5000/v2/')));
    const count = proxy.requests.length;
    assertIsSample(await readAll(`docker://${host}/app:1`, env), image);
    assert.equal(proxy.requests.length, count);
    await proxy.stop();
  });

  it('a bare name that is in the store is not looked for elsewhere', async () => {
    const { host, stop } = await start();
    const image = await smallImage();
    await pushImage(host, 'app', '1', image);
    const place = new Place();
    try {
      const store = place.open();
      const first = await importImage(store, `docker://${host}/app:1`);
      assert.equal(first.alreadyPresent, false);
      await stop();
      for (const name of [`${host}/app:1`, `${host}/app@${image.digest}`]) {
        const again = await importImage(store, name);
        assert.deepEqual([again.alreadyPresent, again.took, again.image.id], [true, 'the store', image.configDigest]);
      }
      await failure(() => importImage(store, `${host}/app:1`, { from: 'registry' }), 'REGISTRY_UNREACHABLE');
      await failure(() => importImage(store, `${host}/app:1`, { platform: 'linux/s390x' }), 'REGISTRY_UNREACHABLE');
    } finally {
      await place.remove();
    }
  });

  it('many layers at once, and the same one twice', async () => {
    const { host } = await start();
    const layers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => sampleLayer({ [`f${i}`]: Buffer.alloc(300_000 + i, `${i}`) }, 'none')),
    );
    const image = sampleImage([...layers, layers[0]!, layers[0]!]);
    await pushImage(host, 'many', '1', image);
    assertIsSample(await readAll(`docker://${host}/many:1`, environment()), image);
  });
});
