/** The same layers, by us and by docker load; and what we export, read by docker, podman, skopeo and umoci. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { exportImage } from '../../layers/export.ts';
import { importImage } from '../../layers/import.ts';
import type { ImageRecord } from '../../layers/images.ts';
import { openTree } from '../../layers/tree.ts';
import { isPgError } from '../../mdm/error.ts';
import type { Store } from '../../store/store.ts';
import { noise, Place } from '../store/fixture.ts';
import { CASES } from './cases.ts';
import { diskListing, treeListing, writeLayout } from './listing.ts';
import { imageOf, type RawEntry, tarBytes } from './tar-builder.ts';
import { json, type SampleImage } from './transport/samples.ts';
import { type Dockerd, havePrograms, run, startDockerd } from './transport/services.ts';

/** Two layers with everything that every engine can hold. */
const UPPER: RawEntry[] = [
  { name: 'd/', mode: 0o711, uid: 5, gid: 6 },
  { name: 'd/.wh.gone' },
  { name: 'd/new', data: noise(70_000, 5), mode: 0o4755 },
  { name: 'opaque/' },
  { name: 'opaque/.wh..wh..opq' },
  { name: 'opaque/b', data: 'b' },
  { name: 'dev/' },
  { name: 'dev/null', type: '3', device: [1, 3], mode: 0o666 },
  { name: 'dev/pipe', type: '6', mode: 0o600 },
  { name: 'link-a', data: 'linked', uid: 7 },
  { name: 'link-b', type: '1', linkName: 'link-a', uid: 7 },
  { name: 'time', data: 't', pax: [['mtime', '1500000000.123456789']] },
  { name: 'x', longName: `d/${'\xe9'.repeat(255)}`, data: 'long' },
  { name: 'attr', data: 'x', pax: [['SCHILY.xattr.user.pg', 'v\x00\xff']] },
];
const LOWER: RawEntry[] = [
  { name: 'd/' },
  { name: 'd/gone', data: 'x' },
  { name: 'd/kept', data: noise(5_000_000, 6) },
  { name: 'opaque/' },
  { name: 'opaque/a', data: 'a' },
  { name: 'usr/' },
  { name: 'lib', type: '2', linkName: 'usr' },
];

let dir: string;
let place: Place;
let store: Store;
let docker: Dockerd;

const dockerCli = (...args: string[]): string => run('docker', '-H', docker.host, ...args);

/** Shows an image of the engine as a container would see it. */
function withDockerRoot<T>(name: string, look: (root: string) => T): T {
  const [{ GraphDriver }] = JSON.parse(dockerCli('inspect', name)) as [
    { GraphDriver: { Data: { UpperDir: string; LowerDir?: string } } },
  ];
  const { UpperDir, LowerDir } = GraphDriver.Data;
  const at = mkdtempSync(join(dir, 'root-'));
  const empty = mkdtempSync(join(dir, 'empty-'));
  run(
    'mount',
    '-t',
    'overlay',
    'overlay',
    '-o',
    `lowerdir=${[UpperDir, ...(LowerDir ? [LowerDir] : []), empty].join(':')}`,
    at,
  );
  try {
    return look(at);
  } finally {
    run('umount', at);
  }
}

function dockerArchive(name: string, image: SampleImage): string {
  const files = mkdtempSync(join(dir, 'files-'));
  const layers = image.layers.map((layer, i) => {
    writeFileSync(join(files, `${i}.tar`), layer.tar);
    return `${i}.tar`;
  });
  writeFileSync(join(files, 'config.json'), image.config);
  writeFileSync(join(files, 'manifest.json'), json([{ Config: 'config.json', RepoTags: [name], Layers: layers }]));
  run('tar', '-C', files, '-cf', `${files}.tar`, '.');
  return `${files}.tar`;
}

before(async function () {
  this.timeout(60_000);
  if (process.getuid?.() !== 0) {
    console.error('SKIPPED: other engines (not root)');
    this.skip();
  }
  if (!havePrograms('dockerd', 'docker', 'podman', 'skopeo', 'umoci')) this.skip();
  dir = mkdtempSync('/var/tmp/pg-test-');
  place = new Place();
  store = place.open();
  docker = await startDockerd();
});

after(async function () {
  this.timeout(60_000);
  await docker?.stop();
  await place?.remove();
  if (dir) rmSync(dir, { recursive: true, force: true });
});

describe('docker load makes the same of', () => {
  for (const [i, [name, { layers, docker: otherwise }]] of Object.entries(CASES).entries()) {
    if (otherwise !== undefined) continue;
    it(name, async () => {
      const image = imageOf(...layers.map((entries) => tarBytes(entries)));
      const archive = dockerArchive(`case:${i}`, image);
      let ours: string[] | undefined;
      try {
        const { image: record } = await importImage(store, `docker-archive:${archive}`);
        ours = treeListing(store, openTree(store, record.treeRoot), { xattrs: true });
      } catch (error) {
        if (!isPgError(error)) throw error;
      }
      if (ours === undefined) assert.throws(() => dockerCli('load', '-qi', archive), /Error processing tar file/);
      else {
        dockerCli('load', '-qi', archive);
        assert.deepEqual(
          ours,
          withDockerRoot(`case:${i}`, (root) => diskListing(root, { xattrs: true })),
        );
      }
    });
  }
});

const diffIds = (inspected: string): string[] => (JSON.parse(inspected) as { Layers: string[] }).Layers;
const fails = (code: string) => (error: unknown) => isPgError(error, code);

describe('an exported image', () => {
  let image: ImageRecord;
  let sample: SampleImage;
  let listing: string[];

  before(async () => {
    sample = imageOf(tarBytes(LOWER), tarBytes(UPPER, Buffer.alloc(10_240)), tarBytes(LOWER.slice(0, 1)));
    image = (await importImage(store, await writeLayout(join(dir, 'sample'), sample), { name: 'localhost/sample:1' }))
      .image;
    listing = treeListing(store, openTree(store, image.treeRoot), { xattrs: true });
  });

  it('is what docker loads', async () => {
    const archive = join(dir, 'out.docker.tar');
    await exportImage(store, image, `docker-archive:${archive}`);
    assert.match(dockerCli('load', '-i', archive), /localhost\/sample:1/);
    const [loaded] = JSON.parse(dockerCli('inspect', 'localhost/sample:1')) as [
      { Id: string; RootFS: { Layers: string[] } },
    ];
    assert.equal(loaded.Id, image.id);
    assert.deepEqual(
      loaded.RootFS.Layers,
      sample.layers.map((layer) => layer.diffId),
    );
    assert.deepEqual(
      withDockerRoot('localhost/sample:1', (root) => diskListing(root, { xattrs: true })),
      listing,
    );
  });

  it('is what podman loads, from both archives', async () => {
    for (const transport of ['docker-archive', 'oci-archive']) {
      const home = join(dir, `podman-${transport}`);
      const podman = (...args: string[]): string =>
        run('podman', '--root', join(home, 'root'), '--runroot', join(home, 'run'), '--storage-driver', 'vfs', ...args);
      const archive = join(dir, `out.${transport}.tar`);
      await exportImage(store, image, `${transport}:${archive}:localhost/other:2`);
      assert.match(podman('load', '-qi', archive), /localhost\/other:2/);
      const [loaded] = JSON.parse(podman('image', 'inspect', 'localhost/other:2')) as [
        { Id: string; RootFS: { Layers: string[] } },
      ];
      assert.equal(`sha256:${loaded.Id}`, image.id);
      assert.deepEqual(
        loaded.RootFS.Layers,
        sample.layers.map((layer) => layer.diffId),
      );
      rmSync(home, { recursive: true, force: true });
    }
  });

  it('is what skopeo reads, copies and converts', async () => {
    const archive = join(dir, 'out.oci.tar');
    await exportImage(store, image, `oci-archive:${archive}`);
    assert.deepEqual(
      diffIds(run('skopeo', 'inspect', `oci-archive:${archive}`)),
      sample.layers.map((layer) => layer.diffId),
    );
    // The manifest is the one that was imported: its layers were not compressed either.
    assert.equal(run('skopeo', 'inspect', '--raw', `oci-archive:${archive}`), sample.manifest.toString());
    run(
      'skopeo',
      'copy',
      '--insecure-policy',
      '-q',
      '--dest-compress',
      `oci-archive:${archive}`,
      `oci:${join(dir, 'copied')}:x`,
    );
    const fresh = new Place();
    const again = await importImage(fresh.open(), `oci:${join(dir, 'copied')}:x`);
    assert.equal(again.image.id, image.id);
    assert.deepEqual(again.image.treeRoot, image.treeRoot);
    await fresh.remove();
  });

  it('is what umoci unpacks', async () => {
    const layout = join(dir, 'out.oci');
    await exportImage(store, image, `oci:${layout}:one`);
    await exportImage(store, image, `oci:${layout}:two`);
    const names = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
      manifests: { annotations: Record<string, string> }[];
    };
    assert.deepEqual(
      names.manifests.map(({ annotations }) => annotations['org.opencontainers.image.ref.name']),
      ['one', 'two'],
    );
    run('umoci', 'unpack', '--image', `${layout}:one`, join(dir, 'bundle'));
    assert.deepEqual(diskListing(join(dir, 'bundle/rootfs'), { xattrs: true }), listing);
  });

  it('is not begun where it cannot be finished', async () => {
    await assert.rejects(exportImage(store, image, 'out.tar'), fails('DESTINATION_INVALID'));
    await assert.rejects(exportImage(store, image, `oci-archive:${dir}/no/such/dir.tar`), fails('DESTINATION_INVALID'));
    const small = join(dir, 'small');
    mkdirSync(small);
    run('mount', '-t', 'tmpfs', '-o', 'size=1M', 'tmpfs', small);
    try {
      await assert.rejects(exportImage(store, image, `docker-archive:${small}/out.tar`), fails('DISK_FULL'));
      assert.equal(execFileSync('ls', ['-A', small], { encoding: 'utf8' }), '');
      assert.ok(!existsSync(join(small, 'out.tar')));
    } finally {
      run('umount', small);
    }
  });
});
