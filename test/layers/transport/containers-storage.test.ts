/** What podman has in its own store, read without podman. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digestOf } from '../../../layers/transport/digest.ts';
import { noise } from '../../store/fixture.ts';
import { tarBytes } from '../tar-builder.ts';
import { failure, readAll } from './checks.ts';
import {
  dockerLegacyTar,
  sampleImage,
  type SampleImage,
  type SampleLayer,
  smallImage,
  writeLayout,
} from './samples.ts';
import { havePrograms, makeTempDir, mountsBelow, removeTempDir, run } from './services.ts';

/** Entries of every kind, long and odd names, a gap at the end: what a tar made again must get right. */
function oddLayer(): SampleLayer {
  const tar = tarBytes(
    [
      { name: 'd/' },
      { name: 'd/file', data: noise(200_000, 3), mode: 0o4755, uid: 5, gid: 6 },
      { name: 'd/empty', data: '' },
      { name: 'link', type: '1', linkName: 'd/file' },
      { name: 'soft', type: '2', linkName: '../../../etc/passwd' },
      { name: 'x', longName: `d/${'\xc3\xa9'.repeat(100)}`, data: 'long' },
      { name: 'y', longName: `d/${'\xe9'.repeat(30)}`, data: 'not UTF-8' },
      { name: 'time', data: 't', pax: [['mtime', '1500000000.123456789']] },
    ],
    Buffer.alloc(10_240),
  );
  const digest = digestOf(tar);
  return { tar, blob: tar, diffId: digest, digest, mediaType: 'application/vnd.oci.image.layer.v1.tar' };
}

describe('containers-storage:', function () {
  this.timeout(120_000);
  let dir: string;

  before(function () {
    if (process.getuid?.() !== 0 || !havePrograms('podman', 'skopeo')) this.skip();
    dir = makeTempDir();
  });
  after(() => {
    if (!dir) return;
    // podman leaves its store mounted on itself.
    for (const mount of mountsBelow(dir)) run('umount', '-l', mount);
    removeTempDir(dir);
  });

  /** Has podman load the sample with this driver; returns its store's words for containers-storage. */
  async function podmanStore(driver: string, sample: SampleImage): Promise<string> {
    const root = join(dir, driver);
    const archive = join(dir, `${driver}.tar`);
    writeFileSync(archive, await dockerLegacyTar(sample, ['localhost/sample:1', 'quay.io/team/sample:2']));
    const where = ['--root', root, '--runroot', join(dir, `${driver}-run`), '--storage-driver', driver];
    run('podman', ...where, 'load', '-q', '-i', archive);
    return `[${driver}@${root}+${join(dir, `${driver}-run`)}]`;
  }

  for (const driver of ['overlay', 'vfs']) {
    it(`the same layers, bit for bit, of ${driver}`, async () => {
      const small = await smallImage({ packing: 'none' });
      const sample = sampleImage([...small.layers, oddLayer()]);
      const where = await podmanStore(driver, sample);
      const names = ['localhost/sample:1', 'sample:1', 'quay.io/team/sample:2', sample.configDigest.slice(7, 30)];
      for (const name of names) {
        const { tars, image, description } = await readAll(`containers-storage:${where}${name}`, {
          env: { HOME: dir },
        });
        assert.equal(image.configDigest, sample.configDigest);
        assert.deepEqual(
          tars.map((tar) => digestOf(tar)),
          sample.layers.map(({ diffId }) => diffId),
        );
        assert.deepEqual(image.names.toSorted(), ['localhost/sample:1', 'quay.io/team/sample:2']);
        assert.match(description, /in podman's store/);
      }
      const conf = join(dir, 'storage.conf');
      writeFileSync(conf, `[storage]\ndriver = "${driver}"\ngraphroot = "${join(dir, driver)}"\n`);
      const env = { HOME: dir, CONTAINERS_STORAGE_CONF: conf };
      assert.equal((await readAll('containers-storage:sample:1', { env })).image.configDigest, sample.configDigest);
    });
  }

  it('an image that came compressed from elsewhere', async () => {
    const sample = await smallImage({ packing: 'zstd' });
    writeLayout(join(dir, 'in'), sample, 'x');
    const where = `[overlay@${dir}/pulled+${dir}/pulled-run]`;
    run('skopeo', '--insecure-policy', 'copy', '-q', `oci:${dir}/in:x`, `containers-storage:${where}localhost/z:1`);
    const { tars, image } = await readAll(`containers-storage:${where}localhost/z:1`, { env: { HOME: dir } });
    assert.deepEqual(
      tars.map((tar) => digestOf(tar)),
      sample.layers.map(({ diffId }) => diffId),
    );
    assert.equal(image.manifest?.digest, sample.digest);
  });

  it('says what is not there, what was changed, what cannot be read', async () => {
    const sample = await smallImage({ packing: 'none' });
    const where = await podmanStore('overlay', sample);
    const read = (text: string) => (): Promise<unknown> =>
      readAll(`containers-storage:${text}`, { env: { HOME: dir } });
    await failure(read(`${where}other:1`), 'IMAGE_NOT_FOUND');
    await failure(read(`[overlay@${dir}/nowhere]x`), 'IMAGE_NOT_FOUND');
    await failure(read(`[btrfs@${dir}]x`), 'TRANSPORT_UNKNOWN');
    await failure(read('[relative]x'), 'REFERENCE_INVALID');
    const layers = join(dir, 'overlay/overlay');
    const file = execFileSync('find', [layers, '-name', 'hello'], { encoding: 'utf8' }).trim();
    assert.ok(file);
    cpSync(file, `${file}.kept`);
    const damage: [() => void, string][] = [
      [() => truncateSync(file, 10), 'LAYER_DAMAGED'],
      [() => writeFileSync(file, 'x'.repeat(100_000)), 'DIGEST_MISMATCH'],
      [() => rmSync(file), 'FILE_UNREADABLE'],
      [() => mkdirSync(file), 'LAYER_DAMAGED'],
      [() => (rmSync(file, { recursive: true }), run('mkfifo', file)), 'LAYER_DAMAGED'],
    ];
    for (const [action, code] of damage) {
      action();
      await failure(read(`${where}sample:1`), code);
    }
    rmSync(file);
    cpSync(`${file}.kept`, file);
    await readAll(`containers-storage:${where}sample:1`, { env: { HOME: dir } });
    const lists = join(dir, 'overlay/overlay-layers');
    for (const list of readdirSync(lists).filter((name) => name.endsWith('.tar-split.gz')))
      writeFileSync(join(lists, list), 'not this');
    await failure(read(`${where}sample:1`), 'LAYER_DAMAGED');
    writeFileSync(join(dir, 'overlay/overlay-images/images.json'), '[{"id":"../../x"}]');
    await failure(read(`${where}sample:1`), 'DOCUMENT_INVALID');
  });
});
