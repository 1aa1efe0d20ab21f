import assert from 'node:assert/strict';
import {
  assembleImage,
  chooseManifest,
  DOCUMENT_BYTES_MAX,
  parseConfig,
  parseDescriptor,
  parseDocument,
  type Descriptor,
} from '../../../layers/transport/manifest.ts';
import { formatPlatform, hostPlatform, parsePlatform, platformFitness } from '../../../layers/transport/platform.ts';
import { failure } from './checks.ts';
import { descriptor, json, smallImage } from './samples.ts';

const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
const SHA = `sha256:${'1'.repeat(64)}`;

function fails(action: () => unknown, code: string): Promise<Error> {
  return failure(async () => action(), code);
}

/** Changes a manifest's upper layer to `mediaType`, which must fail with `code`. */
function layerType(mediaType: string, code: string): (manifest: Record<string, unknown>) => void {
  return (manifest) => {
    (manifest['layers'] as { mediaType: string }[])[1]!.mediaType = mediaType;
    manifest['code'] = code;
  };
}

function indexOfIndex(digest: string, size: number): Buffer {
  return json({ schemaVersion: 2, manifests: [{ mediaType: OCI_INDEX, digest, size }] });
}

function fitness(want: string, have: string): number {
  return platformFitness(parsePlatform(want), parsePlatform(have));
}

function platformEntry(text: string): Descriptor {
  return { mediaType: OCI_MANIFEST, digest: SHA, size: 1, annotations: { name: text }, platform: parsePlatform(text) };
}

describe('platforms', () => {
  it('reads what people write', () => {
    assert.equal(formatPlatform(parsePlatform('linux/x86_64')), 'linux/amd64');
    assert.equal(formatPlatform(parsePlatform('arm64')), 'linux/arm64');
    assert.equal(formatPlatform(parsePlatform('linux/arm64/v8')), 'linux/arm64');
    assert.equal(formatPlatform(parsePlatform('linux/arm')), 'linux/arm/v7');
    assert.equal(formatPlatform(parsePlatform('linux/arm/6')), 'linux/arm/v6');
    assert.equal(hostPlatform().os, 'linux');
  });
  it('takes words that every object has for what they are', () => {
    for (const word of ['constructor', 'toString', '__proto__', 'valueOf', 'hasOwnProperty'])
      assert.equal(platformFitness(hostPlatform(), { os: 'linux', architecture: word, variant: word }), 0);
  });
  it('refuses nonsense', async () => {
    for (const text of ['', 'a/b/c/d', 'linux/', '/amd64', 'linux/am d', '../x'])
      await fails(() => parsePlatform(text), 'PLATFORM_INVALID');
  });
  it('ranks what runs', () => {
    assert.ok(fitness('linux/arm/v7', 'linux/arm/v7') > fitness('linux/arm/v7', 'linux/arm/v6'));
    assert.ok(fitness('linux/arm/v7', 'linux/arm/v6') > fitness('linux/arm/v7', 'linux/arm/v5'));
    assert.equal(fitness('linux/arm/v6', 'linux/arm/v7'), 0);
    assert.equal(fitness('linux/amd64', 'linux/386'), 0);
    assert.equal(fitness('linux/amd64', 'windows/amd64'), 0);
    assert.ok(fitness('linux/amd64/v3', 'linux/amd64') > 0);
    assert.equal(fitness('linux/amd64', 'linux/amd64/v3'), 0);
  });
  it('chooses from an index', async () => {
    const entries = ['linux/amd64', 'linux/arm64', 'linux/arm/v5', 'linux/arm/v7', 'windows/amd64'].map(platformEntry);
    const chosen = (want: string): string | undefined =>
      chooseManifest(entries, parsePlatform(want), 'x').annotations['name'];
    assert.equal(chosen('linux/arm64/v8'), 'linux/arm64');
    assert.equal(chosen('linux/arm/v6'), 'linux/arm/v5');
    assert.equal(chosen('linux/arm'), 'linux/arm/v7');
    const error = await fails(() => chosen('linux/s390x'), 'PLATFORM_NOT_FOUND');
    assert.match(error.message, /linux\/amd64, linux\/arm64, linux\/arm\/v5, linux\/arm\/v7, windows\/amd64/);
  });
  it('passes over attestations', async () => {
    const attestation = {
      ...platformEntry('unknown/unknown'),
      annotations: { 'vnd.docker.reference.type': 'attestation-manifest' },
    };
    assert.equal(
      chooseManifest([attestation, platformEntry('linux/amd64')], parsePlatform('amd64'), 'x').annotations['name'],
      'linux/amd64',
    );
    await fails(() => chooseManifest([attestation], parsePlatform('amd64'), 'x'), 'PLATFORM_NOT_FOUND');
  });
});

describe('image documents', () => {
  it('refuses what is not what it says', async () => {
    const config = descriptor('application/vnd.oci.image.config.v1+json', json({}));
    const manifest = { schemaVersion: 2, config, layers: [] };
    const cases: [document: unknown, claimed: string | null, code: string][] = [
      [{ ...manifest, mediaType: OCI_INDEX }, null, 'MEDIA_TYPE_MISMATCH'],
      [{ ...manifest, mediaType: OCI_MANIFEST }, OCI_INDEX, 'MEDIA_TYPE_MISMATCH'],
      [manifest, OCI_INDEX, 'MEDIA_TYPE_MISMATCH'],
      [{ ...manifest, mediaType: 'application/x' }, null, 'MEDIA_TYPE_MISMATCH'],
      [{ ...manifest, manifests: [] }, null, 'DOCUMENT_INVALID'],
      [{ schemaVersion: 2 }, null, 'DOCUMENT_INVALID'],
      [{ schemaVersion: 1, fsLayers: [] }, null, 'SCHEMA1_REFUSED'],
      [{ name: 'x' }, 'application/vnd.docker.distribution.manifest.v1+prettyjws', 'SCHEMA1_REFUSED'],
      [[], null, 'DOCUMENT_INVALID'],
      ['x', null, 'DOCUMENT_INVALID'],
      [null, null, 'DOCUMENT_INVALID'],
      [{ ...manifest, layers: {} }, null, 'DOCUMENT_INVALID'],
      [{ ...manifest, config: null }, null, 'DOCUMENT_INVALID'],
      [{ ...manifest, layers: Array.from({ length: 1001 }, () => config) }, null, 'DOCUMENT_INVALID'],
    ];
    for (const [document, claimed, code] of cases) await fails(() => parseDocument(json(document), claimed, 'M'), code);
    assert.equal(parseDocument(json(manifest), 'text/plain', 'M').kind, 'manifest');
  });

  it('reads 4 MiB of JSON and no more', async () => {
    await fails(() => parseDocument(Buffer.alloc(DOCUMENT_BYTES_MAX + 1, ' '), null, 'M'), 'DOCUMENT_TOO_LARGE');
    await fails(() => parseDocument(Buffer.from('{'), null, 'M'), 'DOCUMENT_INVALID');
    await fails(() => parseDocument(Buffer.from([0x22, 0xff, 0x22]), null, 'M'), 'DOCUMENT_INVALID');
    await fails(() => parseDocument(Buffer.from('['.repeat(100_000)), null, 'M'), 'DOCUMENT_INVALID');
  });

  it('reads no document in two ways', async () => {
    const half = '"schemaVersion":2,"config":{"mediaType":"x","digest":"x","size":1}';
    const twice = await fails(
      () => parseDocument(Buffer.from(`{${half},"layers":[],"layers":[]}`), null, 'M'),
      'DOCUMENT_INVALID',
    );
    assert.match(twice.message, /'layers' twice/);
    await fails(() => parseDocument(Buffer.from(`{${half},"layers":[],"Layers":[]}`), null, 'M'), 'DOCUMENT_INVALID');
    const deep = `{"rootfs":{"type":"layers","diff_ids":[]},"x":${'['.repeat(2000)}${']'.repeat(2000)}}`;
    await fails(() => parseConfig(Buffer.from(deep), 'C'), 'DOCUMENT_INVALID');
  });

  it('lets no path into a digest', async () => {
    const bad = [
      'sha256:../../etc/passwd',
      `sha256:${'A'.repeat(64)}`,
      `sha256:${'a'.repeat(63)}`,
      `sha256:${'a'.repeat(64)}/..`,
      `md5:${'a'.repeat(32)}`,
      '',
      5,
      null,
      `sha256:${'a'.repeat(64)}\n`,
    ];
    for (const digest of bad)
      await fails(() => parseDescriptor({ mediaType: 'x', digest, size: 1 }, 'D'), 'DIGEST_INVALID');
    for (const size of [-1, 1.5, '1', 2 ** 60, null])
      await fails(() => parseDescriptor({ mediaType: 'x', digest: SHA, size }, 'D'), 'DOCUMENT_INVALID');
    assert.equal(parseDescriptor({ mediaType: 'x', digest: `sha512:${'b'.repeat(128)}`, size: 0 }, 'D').size, 0);
  });

  it('reads configs, old ones too', async () => {
    const config = parseConfig(json({ rootfs: { type: 'layers', diff_ids: null }, config: null }), 'C');
    assert.deepEqual(
      [config.os, config.architecture, config.rootfs.diff_ids, config.config],
      ['linux', 'amd64', [], undefined],
    );
    for (const rootfs of [undefined, { type: 'tar' }, { type: 'layers', diff_ids: 'x' }])
      await fails(() => parseConfig(json({ rootfs }), 'C'), 'DOCUMENT_INVALID');
    await fails(() => parseConfig(json({ rootfs: { type: 'layers', diff_ids: ['x'] } }), 'C'), 'DIGEST_INVALID');
  });

  it('refuses foreign, encrypted and unknown layers, artifacts, and layers that do not add up', async () => {
    const image = await smallImage();
    const assemble = (change: (manifest: Record<string, unknown>) => void): Promise<Error> => {
      const manifest = JSON.parse(image.manifest.toString()) as Record<string, unknown>;
      change(manifest);
      return failure(
        () => assembleImage(json(manifest), null, async () => image.config, undefined, 'IMG'),
        String(manifest['code']),
      );
    };
    await assemble(layerType('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'FOREIGN_LAYER'));
    await assemble(layerType('application/vnd.oci.image.layer.nondistributable.v1.tar+zstd', 'FOREIGN_LAYER'));
    await assemble(layerType('application/vnd.oci.image.layer.v1.tar+gzip+encrypted', 'LAYER_TYPE_UNKNOWN'));
    await assemble(layerType('application/octet-stream', 'LAYER_TYPE_UNKNOWN'));
    await assemble((manifest) => {
      (manifest['layers'] as unknown[]).pop();
      manifest['code'] = 'DOCUMENT_INVALID';
    });
    await assemble((manifest) => {
      (manifest['config'] as { mediaType: string }).mediaType = 'application/vnd.cncf.helm.config.v1+json';
      manifest['code'] = 'NOT_AN_IMAGE';
    });
    await assemble((manifest) => {
      (manifest['config'] as { size: number }).size = DOCUMENT_BYTES_MAX + 1;
      manifest['code'] = 'DOCUMENT_TOO_LARGE';
    });
    await assemble((manifest) => {
      (manifest['config'] as { size: number }).size += 1;
      manifest['code'] = 'TRUNCATED';
    });
  });

  it('does not follow indexes for ever', async () => {
    const documents = new Map<string, Buffer>();
    let top = indexOfIndex(SHA, 1);
    for (let i = 0; i < 10; i++) {
      const { digest, size } = descriptor(OCI_INDEX, top);
      documents.set(digest, top);
      top = indexOfIndex(digest, size);
    }
    await failure(
      () => assembleImage(top, null, async (d) => documents.get(d.digest)!, undefined, 'IMG'),
      'DOCUMENT_INVALID',
    );
  });
});
