/** Images of several platforms under one name: in and out again, the index as it was. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exportIndex } from '../../../layers/export.ts';
import { findImage, listImages, removeImage } from '../../../layers/images.ts';
import { importImage } from '../../../layers/import.ts';
import { importIndex } from '../../../layers/import-index.ts';
import { imagesReachable } from '../../../layers/reachable.ts';
import { digestOf } from '../../../layers/transport/digest.ts';
import type { Store } from '../../../store/store.ts';
import { Place } from '../../store/fixture.ts';
import { failure } from '../transport/checks.ts';
import { useRegistries } from '../transport/registries.ts';
import {
  blobsOf,
  descriptor,
  json,
  layoutFiles,
  type SampleImage,
  smallImage,
  writeFiles,
  writeLayout,
} from '../transport/samples.ts';
import { run } from '../transport/services.ts';

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const skopeo = (...args: string[]): string => run('skopeo', '--insecure-policy', ...args);

describe('indexes, in and out', function () {
  this.timeout(120_000);
  const registries = useRegistries();
  let dir: string;
  let place: Place;
  let store: Store;
  let index: Buffer;
  let images: SampleImage[];

  beforeEach(async () => {
    dir = registries.dir;
    place = new Place();
    store = place.open();
    images = await Promise.all([
      smallImage({ architecture: 'arm64', packing: 'zstd' }),
      smallImage({ architecture: 'amd64', packing: 'gzip' }),
    ]);
    // An attestation, as BuildKit writes it.
    const statement = json({ _type: 'https://in-toto.io/Statement/v0.1' });
    const config = json({
      architecture: 'unknown',
      os: 'unknown',
      config: {},
      rootfs: { type: 'layers', diff_ids: [] },
    });
    const attestation = json({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: descriptor('application/vnd.oci.image.config.v1+json', config),
      layers: [descriptor('application/vnd.in-toto+json', statement)],
    });
    index = json({
      schemaVersion: 2,
      mediaType: OCI_INDEX,
      manifests: [
        ...images.map((image) =>
          descriptor(OCI_MANIFEST, image.manifest, { platform: { os: 'linux', architecture: image.architecture } }),
        ),
        descriptor(OCI_MANIFEST, attestation, {
          platform: { os: 'unknown', architecture: 'unknown' },
          annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
        }),
      ],
    });
    writeFiles(
      join(dir, 'in'),
      layoutFiles(
        [descriptor(OCI_INDEX, index)],
        [
          ...images.flatMap((image) => [...blobsOf(image)]),
          ...[index, attestation, statement, config].map((bytes) => [digestOf(bytes), bytes] as const),
        ],
      ),
    );
  });
  afterEach(() => place.remove());

  it('the same index, everywhere', async () => {
    const { host } = await registries.start();
    skopeo('copy', '-q', '--all', '--dest-tls-verify=false', `oci:${dir}/in`, `docker://${host}/multi:1`);
    const brought = await importIndex(store, `docker://${host}/multi:1`, {});
    assert.equal(brought.digest, digestOf(index));
    assert.deepEqual(
      brought.images.map(({ platform }) => platform),
      ['linux/arm64', 'linux/amd64'],
    );
    assert.equal(findImage(store, `${host}/multi:1`)?.id, images[1]!.configDigest);
    assert.equal(findImage(store, `${host}/multi@${images[0]!.digest}`)?.id, images[0]!.configDigest);
    await store.collect(() => imagesReachable(store));

    const name = `${host}/multi:1`;
    for (const destination of [
      `docker://${host}/other/multi:2`,
      `oci:${dir}/out:x`,
      `oci-archive:${dir}/out.tar:x`,
      `dir:${dir}/out.dir`,
    ]) {
      const { digest, isPublished } = await exportIndex(store, name, destination);
      assert.deepEqual([digest, isPublished], [digestOf(index), true], destination);
      const copy = join(dir, `copy-${destination.split(':')[0]}`);
      skopeo('copy', '-q', '--all', '--src-tls-verify=false', destination, `dir:${copy}`);
      assert.ok(readFileSync(join(copy, 'manifest.json')).equals(index), destination);
      for (const [blob, bytes] of images.flatMap((image) => [...blobsOf(image)])) {
        const hex = blob.slice('sha256:'.length);
        const isManifest = images.some((image) => image.digest === blob);
        assert.ok(readFileSync(join(copy, isManifest ? `${hex}.manifest.json` : hex)).equals(bytes));
      }
      const fresh = new Place();
      const again = await importIndex(fresh.open(), destination, { name: 'again' });
      assert.equal(again.digest, digestOf(index), destination);
      await fresh.remove();
    }
  });

  it('removed with its name; another image under the name has no index', async () => {
    await importIndex(store, `oci:${dir}/in`, { name: 'multi' });
    assert.equal(listImages(store).length, 2);
    removeImage(store, 'multi', () => []);
    assert.deepEqual(listImages(store), []);
    assert.deepEqual(
      [...store.table('blobs').keys(), ...store.table('layers').keys(), ...store.table('names').keys()],
      [],
    );

    await importIndex(store, `oci:${dir}/in`, { name: 'multi' });
    const other = await smallImage({ architecture: 'riscv64' });
    writeLayout(join(dir, 'one'), other, 'x');
    await importImage(store, `oci:${dir}/one:x`, { name: 'multi' });
    await failure(() => exportIndex(store, 'multi', `oci:${dir}/out`), 'INDEX_NOT_FOUND');
  });

  it('without the blobs, a new index of the images', async () => {
    await importIndex(store, `oci:${dir}/in`, { name: 'multi', keepBlobs: 'none' });
    const { digest, isPublished } = await exportIndex(store, 'multi', `oci:${dir}/out:x`);
    assert.equal(isPublished, false);
    const fresh = new Place();
    const again = await importIndex(fresh.open(), `oci:${dir}/out:x`, { name: 'multi' });
    assert.equal(again.digest, digest);
    assert.deepEqual(
      again.images.map(({ id }) => id),
      images.map(({ configDigest }) => configDigest),
    );
    await fresh.remove();
  });

  it('comes whole or not at all: when its second image is damaged the first goes again, unless it was here before', async () => {
    const blob = join(dir, 'in/blobs', images[1]!.layers[0]!.digest.replace(':', '/'));
    const bytes = readFileSync(blob);
    writeFileSync(blob, Buffer.alloc(bytes.length));
    const tables = () =>
      ['images', 'names', 'layers', 'indexes', 'blobs'].flatMap((name) => [...store.table(name).keys()]);
    await failure(() => importIndex(store, `oci:${dir}/in`, { name: 'multi' }), 'DIGEST_MISMATCH');
    assert.deepEqual(tables(), []);
    writeLayout(join(dir, 'one'), images[0]!, 'x');
    await importImage(store, `oci:${dir}/one:x`, { name: 'mine' });
    const before = tables();
    await failure(() => importIndex(store, `oci:${dir}/in`, { name: 'multi' }), 'DIGEST_MISMATCH');
    assert.deepEqual(tables(), before);
    writeFileSync(blob, bytes);
    await importIndex(store, `oci:${dir}/in`, { name: 'multi' });
    assert.equal(listImages(store).length, 2);
  });

  it('says what is none, and what cannot hold one', async () => {
    writeLayout(join(dir, 'one'), images[0]!, 'x');
    await failure(() => importIndex(store, `oci:${dir}/one:x`, { name: 'one' }), 'NOT_AN_INDEX');
    await failure(() => importIndex(store, `oci:${dir}/in`, {}), 'NAME_NEEDED');
    await importIndex(store, `oci:${dir}/in`, { name: 'multi' });
    await failure(() => exportIndex(store, 'multi', `docker-archive:${dir}/x.tar`), 'DESTINATION_INVALID');
  });
});
