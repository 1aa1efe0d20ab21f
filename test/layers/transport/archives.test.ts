/** Archives and directories, ours and those that skopeo, umoci and tar write. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { digestOf } from '../../../layers/transport/digest.ts';
import { openLayerTar } from '../../../layers/transport/decompress.ts';
import { openSource } from '../../../layers/transport/open.ts';
import { parsePlatform } from '../../../layers/transport/platform.ts';
import { assertIsSample, collect, failure, readAll } from './checks.ts';
import {
  blobsOf,
  descriptor,
  dockerLegacyTar,
  dockerOciFiles,
  indexOf,
  json,
  layoutEntry,
  layoutFiles,
  sampleImage,
  sampleLayer,
  smallImage,
  tarOfFiles,
  writeFiles,
  writeLayout,
  type SampleImage,
} from './samples.ts';
import { havePrograms, makeTempDir, removeTempDir, run } from './services.ts';

describe('images in directories and archives', () => {
  let dir: string;
  const at = (name: string): string => join(dir, name);
  beforeEach(() => (dir = makeTempDir()));
  afterEach(() => removeTempDir(dir));

  for (const packing of ['none', 'gzip', 'zstd'] as const) {
    it(`oci: with layers of ${packing}`, async () => {
      const image = await smallImage({ packing });
      writeLayout(at('layout'), image, '1.0');
      const read = await readAll(`oci:${at('layout')}:1.0`);
      assertIsSample(read, image);
      assert.deepEqual(read.compressions, [packing, packing]);
      assert.equal(read.image.manifest?.digest, image.digest);
      assert.ok(read.image.manifest?.bytes.equals(image.manifest));
      assert.deepEqual(read.image.names, [], 'a mere tag names nothing');
    });
  }

  it('oci-archive: plain, gzip, zstd, and through a pipe', async () => {
    const image = await smallImage();
    const archive = await tarOfFiles(layoutFiles([layoutEntry(image, 'docker.io/library/x:1')], blobsOf(image)));
    writeFileSync(at('a.tar'), archive);
    writeFileSync(at('a.tgz'), gzipSync(archive));
    writeFileSync(at('a.tar.zst'), zstdCompressSync(archive));
    run('mkfifo', at('fifo'));
    const feeder = spawn('sh', ['-c', 'cat "$0" > "$1"', at('a.tar'), at('fifo')]);
    for (const name of ['a.tar', 'a.tgz', 'a.tar.zst', 'fifo']) {
      const told: string[] = [];
      const progress = {
        start: (id: string) => told.push(`start ${id}`),
        advance: () => undefined,
        done: (id: string) => told.push(`done ${id}`),
      };
      const read = await readAll(`oci-archive:${at(name)}:x:1`, { tempDir: dir, progress });
      assertIsSample(read, image);
      assert.deepEqual(read.image.names, ['docker.io/library/x:1']);
      assert.equal(told.length, name === 'a.tar' ? 0 : 2);
    }
    if (feeder.exitCode === null) await once(feeder, 'exit');
    assert.deepEqual(
      readdirSync(dir).toSorted(),
      ['a.tar', 'a.tar.zst', 'a.tgz', 'fifo'],
      'no temporary files are left',
    );
  });

  it('docker-archive: old layout, with a layer twice as a symlink', async () => {
    const [a, b] = [await sampleLayer({ a: 'a' }, 'none'), await sampleLayer({ b: 'b' }, 'none')];
    const image = sampleImage([a, b, a, b]);
    writeFileSync(at('d.tar'), await dockerLegacyTar(image, ['x:1', 'quay.io/me/x:2']));
    for (const selector of ['', ':x:1', ':docker.io/library/x:1', ':quay.io/me/x:2', ':@0']) {
      const read = await readAll(`docker-archive:${at('d.tar')}${selector}`);
      assertIsSample(read, image);
      assert.equal(read.image.manifest, null);
      assert.deepEqual(read.image.names, ['docker.io/library/x:1', 'quay.io/me/x:2']);
      assert.equal(read.image.layers[0]?.digest, a.diffId);
    }
    const error = await failure(() => readAll(`docker-archive:${at('d.tar')}:y`), 'IMAGE_NOT_FOUND');
    assert.match(error.message, /docker\.io\/library\/x:1, quay\.io\/me\/x:2/);
  });

  for (const packing of ['none', 'gzip', 'zstd'] as const) {
    it(`docker-archive: the layout since Docker 25, layers of ${packing}`, async () => {
      const image = await smallImage({ packing });
      writeFileSync(at('d.tar'), await tarOfFiles(dockerOciFiles(image, ['x:1'])));
      const read = await readAll(`docker-archive:${at('d.tar')}`);
      assertIsSample(read, image);
      assert.deepEqual(read.compressions, [packing, packing]);
      assert.equal(read.image.manifest?.digest, image.digest);
      assert.deepEqual(
        read.image.layers.map((layer) => layer.digest),
        image.layers.map((layer) => layer.digest),
      );
    });
  }

  it('docker-archive: compressed layers whose digest nobody says', async () => {
    const image = await smallImage();
    const files = new Map<string, Buffer>([['c.json', image.config]]);
    for (const [i, layer] of image.layers.entries()) files.set(`${i}/layer.tar`, layer.blob);
    files.set('manifest.json', json([{ Config: 'c.json', RepoTags: null, Layers: ['0/layer.tar', '1/layer.tar'] }]));
    writeFileSync(at('d.tar'), await tarOfFiles(files));
    const read = await readAll(`docker-archive:${at('d.tar')}`);
    assertIsSample(read, image);
    assert.deepEqual(
      read.image.layers.map((layer) => layer.digest),
      [null, null],
    );
    // Their tars are bound by the DiffID still.
    files.set('0/layer.tar', (await sampleLayer({ evil: 'x' })).blob);
    writeFileSync(at('d.tar'), await tarOfFiles(files));
    const error = await failure(() => readAll(`docker-archive:${at('d.tar')}`), 'DIGEST_MISMATCH');
    assert.ok(error.message.includes(image.layers[0]!.diffId));
  });

  it('dir: and oci: with an index of platforms', async () => {
    const images = await Promise.all(['amd64', 'arm64'].map((architecture) => smallImage({ architecture })));
    const index = indexOf(images);
    const blobs = images.flatMap((image) => [...blobsOf(image)]);
    writeFiles(
      at('layout'),
      layoutFiles([descriptor('application/vnd.oci.image.index.v1+json', index)], [...blobs, [digestOf(index), index]]),
    );
    const files = new Map([['manifest.json', index]]);
    for (const image of images) {
      for (const [digest, bytes] of blobsOf(image))
        files.set(digest.slice(7) + (digest === image.digest ? '.manifest.json' : ''), bytes);
    }
    writeFiles(at('dir'), files);
    for (const source of [`oci:${at('layout')}`, `dir:${at('dir')}`]) {
      for (const image of images) {
        const read = await readAll(source, {}, parsePlatform(image.architecture));
        assertIsSample(read, image);
        assert.equal(read.image.platform.architecture, image.architecture);
        assert.equal(read.image.manifest?.digest, image.digest);
      }
      const error = await failure(() => readAll(source, {}, parsePlatform('linux/s390x')), 'PLATFORM_NOT_FOUND');
      assert.match(error.message, /linux\/amd64, linux\/arm64/);
    }
    writeLayout(at('one'), images[1]!);
    assertIsSample(await readAll(`oci:${at('one')}`), images[1]!);
    const error = await failure(() => readAll(`oci:${at('one')}`, {}, parsePlatform('amd64')), 'PLATFORM_NOT_FOUND');
    assert.match(error.message, /it is one for linux\/arm64/);
  });

  it('several images in one place', async () => {
    const images = await Promise.all(['amd64', 'arm64'].map((architecture) => smallImage({ architecture })));
    const [one, two] = images as [SampleImage, SampleImage];
    const blobs = images.flatMap((image) => [...blobsOf(image)]);
    writeFiles(at('layout'), layoutFiles([layoutEntry(one, 'one'), layoutEntry(two, 'example.com/two:2')], blobs));
    assertIsSample(await readAll(`oci:${at('layout')}:one`), one);
    assertIsSample(await readAll(`oci:${at('layout')}:example.com/two:2`), two);
    assertIsSample(await readAll(`oci:${at('layout')}:${two.digest}`), two);
    assertIsSample(await readAll(`oci:${at('layout')}:@0`), one);
    const error = await failure(() => readAll(`oci:${at('layout')}`), 'IMAGE_AMBIGUOUS');
    assert.match(error.message, /one, example\.com\/two:2/);
    await failure(() => readAll(`oci:${at('layout')}:three`), 'IMAGE_NOT_FOUND');
  });

  describe('written by other tools', () => {
    before(function () {
      if (!havePrograms('skopeo', 'umoci')) this.skip();
    });
    for (const form of ['docker-archive:a.tar:x:1', 'oci-archive:a.tar:x', 'oci:layout:x', 'dir:d']) {
      it(`skopeo copy to ${form.split(':')[0]}`, async () => {
        const image = await smallImage();
        writeLayout(at('in'), image, 'x');
        const [transport, path, ...rest] = form.split(':') as [string, string, ...string[]];
        const suffix = rest.length > 0 ? `:${rest.join(':')}` : '';
        run('skopeo', '--insecure-policy', 'copy', '-q', `oci:${at('in')}:x`, `${transport}:${at(path)}${suffix}`);
        const read = await readAll(`${transport}:${at(path)}${suffix}`);
        assert.deepEqual(
          read.tars.map((tar) => digestOf(tar)),
          image.layers.map((layer) => layer.diffId),
        );
        if (transport !== 'docker-archive') assertIsSample(read, image);
      });
    }
    it('skopeo copy --all of an index to dir: and oci-archive:', async () => {
      const images = await Promise.all(['amd64', 'arm64'].map((architecture) => smallImage({ architecture })));
      const index = indexOf(images);
      const blobs = images.flatMap((image) => [...blobsOf(image)]);
      writeFiles(
        at('in'),
        layoutFiles(
          [descriptor('application/vnd.oci.image.index.v1+json', index)],
          [...blobs, [digestOf(index), index]],
        ),
      );
      for (const [transport, path] of [
        ['dir', at('d')],
        ['oci-archive', at('a.tar')],
      ]) {
        run('skopeo', '--insecure-policy', 'copy', '-q', '--all', `oci:${at('in')}`, `${transport}:${path}`);
        for (const image of images)
          assertIsSample(await readAll(`${transport}:${path}`, {}, parsePlatform(image.architecture)), image);
      }
    });
    it('umoci repack', async () => {
      const image = await smallImage();
      writeLayout(at('layout'), image, 'x');
      run('umoci', 'unpack', '--image', `${at('layout')}:x`, at('bundle'));
      writeFileSync(join(at('bundle'), 'rootfs/new'), 'new file\n');
      run('umoci', 'repack', '--image', `${at('layout')}:y`, at('bundle'));
      const read = await readAll(`oci:${at('layout')}:y`);
      assert.equal(read.tars.length, 3);
      assert.ok(read.tars[0]?.equals(image.layers[0]!.tar));
      assert.match(execFileSync('tar', ['-t'], { input: read.tars[2]! }).toString(), /^new$/m);
    });
    it('tar(1) in each of its formats', async () => {
      const image = await smallImage();
      const long = `${'long-directory-name/'.repeat(9)}name`;
      writeLayout(at('layout'), image);
      mkdirSync(join(at('layout'), long, '..'), { recursive: true });
      writeFileSync(join(at('layout'), long), 'not of the image');
      for (const format of ['gnu', 'pax', 'ustar', 'oldgnu']) {
        run('tar', `--format=${format}`, '-C', at('layout'), '-cf', at('a.tar'), '.');
        assertIsSample(await readAll(`oci-archive:${at('a.tar')}`), image);
      }
    });
  });
});

describe('damaged archives', () => {
  let dir: string;
  const at = (name: string): string => join(dir, name);
  beforeEach(() => (dir = makeTempDir()));
  afterEach(() => removeTempDir(dir));

  const CODES = [
    'DIGEST_MISMATCH',
    'SIZE_MISMATCH',
    'TRUNCATED',
    'ARCHIVE_DAMAGED',
    'ARCHIVE_UNKNOWN',
    'FILE_MISSING',
    'DOCUMENT_INVALID',
    'BLOB_DAMAGED',
    'DIGEST_INVALID',
    'NOT_AN_OCI_LAYOUT',
    'NOT_A_DOCKER_ARCHIVE',
    'MEDIA_TYPE_MISMATCH',
    'SCHEMA1_REFUSED',
  ];

  it('one flipped bit in a blob: the error names the blob and both digests', async () => {
    const image = await smallImage();
    writeLayout(at('layout'), image);
    for (const [i, layer] of image.layers.entries()) {
      const path = join(at('layout'), 'blobs/sha256', layer.digest.slice(7));
      const bytes = Buffer.from(layer.blob);
      bytes[bytes.length >> 1]! ^= 1;
      writeFileSync(path, bytes);
      const source = await openSource(`oci:${at('layout')}`);
      const { layers } = await source.manifest();
      const error = await failure(() => collect(source.openBlob(layers[i]!)), 'DIGEST_MISMATCH');
      assert.ok(error.message.includes(layer.digest) && error.message.includes(digestOf(bytes)), error.message);
      assert.ok(error.hint);
      // Unpacking may stumble earlier than the blob's end; then that is the error.
      await assert.rejects(collect(openLayerTar(source, layers[i]!).bytes), { name: 'PgError' });
      truncateSync(path, bytes.length - 1);
      const short = await failure(() => collect(source.openBlob(layers[i]!)), 'TRUNCATED');
      assert.ok(short.message.includes(layer.digest));
      writeFileSync(path, Buffer.concat([layer.blob, Buffer.alloc(1)]));
      await failure(() => collect(source.openBlob(layers[i]!)), 'SIZE_MISMATCH');
      writeFileSync(path, layer.blob);
      await source.close();
    }
    const config = join(at('layout'), 'blobs/sha256', image.configDigest.slice(7));
    writeFileSync(config, Buffer.from(image.config.toString().replace('amd64', 'arm64')));
    const error = await failure(() => readAll(`oci:${at('layout')}`), 'DIGEST_MISMATCH');
    assert.match(error.message, /the config sha256/);
    rmSync(config);
    await failure(() => readAll(`oci:${at('layout')}`), 'FILE_MISSING');
  });

  it('a layer that is not the DiffID of the config', async () => {
    const [good, other] = [await sampleLayer({ a: 'a' }), await sampleLayer({ a: 'b' })];
    writeLayout(at('layout'), sampleImage([{ ...good, blob: other.blob, digest: other.digest }]));
    const error = await failure(() => readAll(`oci:${at('layout')}`), 'DIGEST_MISMATCH');
    assert.ok(error.message.includes(good.diffId) && error.message.includes(other.diffId));
  });

  for (const kind of ['oci-archive', 'docker-archive'] as const) {
    it(`${kind}: flipped bits and cuts anywhere are errors or harmless, never other bytes`, async () => {
      const image = await smallImage({ packing: 'none' });
      const files = kind === 'oci-archive' ? layoutFiles([layoutEntry(image)], blobsOf(image)) : null;
      const archive = files === null ? await dockerLegacyTar(image, []) : await tarOfFiles(files);
      const attempt = async (bytes: Buffer): Promise<boolean> => {
        writeFileSync(at('a.tar'), bytes);
        try {
          assertIsSample(await readAll(`${kind}:${at('a.tar')}`), image);
          return true;
        } catch (error) {
          assert.ok(CODES.includes((error as { code: string }).code), String(error));
          return false;
        }
      };
      assert.ok(await attempt(archive));
      const refused = { flips: 0, cuts: 0 };
      for (let i = 0; i < 150; i++) {
        const position = Math.floor((archive.length / 150) * i) + (i % 7);
        const flipped = Buffer.from(archive);
        flipped[position]! ^= 1 << (i % 8);
        if (!(await attempt(flipped))) refused.flips++;
        if (i % 5 === 0 && !(await attempt(archive.subarray(0, position)))) refused.cuts++;
      }
      assert.ok(refused.flips > 100, `${refused.flips} flips were refused`);
      assert.ok(refused.cuts >= 28, `${refused.cuts} cuts were refused`);
    });
  }

  it('says what is wrong with the place', async () => {
    writeFileSync(at('text'), 'x'.repeat(5000));
    writeFileSync(at('empty'), '');
    writeFileSync(at('zeros'), Buffer.alloc(10240));
    writeFileSync(at('a.xz'), Buffer.from('fd377a585a0000', 'hex'));
    writeFileSync(at('no-image.tar'), await tarOfFiles(new Map([['x', Buffer.from('x')]])));
    const image = await smallImage();
    writeFileSync(at('oci.tar'), await tarOfFiles(layoutFiles([layoutEntry(image)], blobsOf(image))));
    const cases: [source: string, code: string, hint?: RegExp][] = [
      [`docker-archive:${at('absent')}`, 'FILE_UNREADABLE'],
      [`oci-archive:${dir}`, 'FILE_UNREADABLE', /oci:/],
      [`oci:${at('text')}`, 'FILE_UNREADABLE', /oci-archive:/],
      [`oci:${at('absent')}`, 'FILE_UNREADABLE'],
      [`oci:${dir}`, 'NOT_AN_OCI_LAYOUT'],
      [`dir:${dir}`, 'FILE_MISSING'],
      [`oci-archive:${at('text')}`, 'ARCHIVE_UNKNOWN'],
      [`oci-archive:${at('empty')}`, 'ARCHIVE_UNKNOWN'],
      [`oci-archive:${at('zeros')}`, 'ARCHIVE_UNKNOWN'],
      [`docker-archive:${at('a.xz')}`, 'ARCHIVE_UNKNOWN', /xz -d/],
      [`docker-archive:${at('no-image.tar')}`, 'NOT_A_DOCKER_ARCHIVE'],
      [`docker-archive:${at('oci.tar')}`, 'NOT_A_DOCKER_ARCHIVE', /oci-archive:/],
      [`oci-archive:${at('no-image.tar')}`, 'NOT_AN_OCI_LAYOUT'],
      ['oci:', 'TRANSPORT_UNKNOWN'],
      ['ostree:x', 'TRANSPORT_UNKNOWN', /skopeo copy/],
      ['https://quay.io/x', 'TRANSPORT_UNKNOWN', /docker:\/\//],
      [at('oci.tar'), 'TRANSPORT_UNKNOWN', /docker-archive:/],
      ['Nginx', 'REFERENCE_INVALID'],
      ['docker://', 'REFERENCE_INVALID'],
    ];
    for (const [source, code, hint] of cases) {
      const error = await failure(() => readAll(source), code);
      if (hint) assert.match(error.hint ?? '', hint);
    }
  });

  it('links in an archive lead nowhere else, and not in circles', async () => {
    const image = await smallImage({ packing: 'none' });
    const files = layoutFiles([layoutEntry(image)], blobsOf(image));
    const path = `blobs/sha256/${image.layers[0]!.digest.slice(7)}`;
    writeFiles(at('layout'), files);
    run('tar', '-C', at('layout'), '-cf', at('good.tar'), '.');
    for (const [target, code] of [
      ['/etc/passwd', 'FILE_MISSING'],
      ['../../../../etc/passwd', 'FILE_MISSING'],
      [path.slice(13), 'ARCHIVE_DAMAGED'],
    ] as const) {
      rmSync(join(at('layout'), path));
      symlinkSync(target, join(at('layout'), path));
      run('tar', '-C', at('layout'), '-cf', at('bad.tar'), '.');
      await failure(() => readAll(`oci-archive:${at('bad.tar')}`), code);
    }
    assertIsSample(await readAll(`oci-archive:${at('good.tar')}`), image);
  });

  it('a FIFO in the place of a blob does not hang', async () => {
    const image = await smallImage();
    writeLayout(at('layout'), image);
    const path = join(at('layout'), 'blobs/sha256', image.layers[0]!.digest.slice(7));
    rmSync(path);
    run('mkfifo', path);
    await failure(() => readAll(`oci:${at('layout')}`), 'FILE_UNREADABLE');
    assert.ok(existsSync(path));
    assert.ok(readFileSync(join(at('layout'), 'index.json')).length > 0);
  });

  it('reading can be given up in the middle', async () => {
    const image = sampleImage([await sampleLayer({ big: Buffer.alloc(8 << 20, 'x') }, 'none')]);
    writeLayout(at('layout'), image);
    const source = await openSource(`oci:${at('layout')}`);
    const layer = (await source.manifest()).layers[0]!;
    for await (const chunk of source.openBlob(layer)) {
      assert.ok(chunk.length > 0);
      break;
    }
    const controller = new AbortController();
    const reading = (async () => {
      for await (const chunk of openLayerTar(source, layer, { signal: controller.signal }).bytes)
        if (chunk.length > 0) controller.abort();
    })();
    await assert.rejects(reading, { name: 'AbortError' });
    await source.close();
  });
});
