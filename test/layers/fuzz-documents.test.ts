/** Documents and archives of images, made from a grammar and then damaged: they end in an image whose parts are sound, or in an error that says why. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { parseChallenge } from '../../layers/registry/auth.ts';
import { decompressed } from '../../layers/transport/decompress.ts';
import { isDigest } from '../../layers/transport/digest.ts';
import { assembleImage, parseConfig, parseDocument } from '../../layers/transport/manifest.ts';
import { openSource } from '../../layers/transport/open.ts';
import type { SourceImage } from '../../layers/transport/source.ts';
import { isPgError } from '../../mdm/error.ts';
import { collect } from './transport/checks.ts';
import { blobsOf, dockerOciFiles, json, smallImage, type SampleImage, tarOfFiles } from './transport/samples.ts';

const RUNS = Number(process.env['PG_TEST_CASES'] ?? 3000);

const OF_DOCUMENTS =
  /^(DOCUMENT_|DIGEST_|MEDIA_TYPE_|SCHEMA1_|PLATFORM_NOT_FOUND|NOT_AN?_|FOREIGN_LAYER|LAYER_TYPE_UNKNOWN|SIZE_|TRUNCATED|FILE_MISSING)/;
const OF_ARCHIVES =
  /^(ARCHIVE_|TRUNCATED|IMAGE_NOT_FOUND|IMAGE_AMBIGUOUS|COMPRESSION_UNKNOWN|BLOB_DAMAGED|FILE_UNREADABLE)/;

/** Values that stand where others are expected. */
const odd = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    0,
    -1,
    1.5,
    2 ** 60,
    '',
    'x',
    [],
    {},
    [[]],
    { __proto__: null },
    '__proto__',
    'sha256:',
    '../../etc/passwd',
  ),
  fc.jsonValue({ maxDepth: 3 }),
);
const names = [
  'schemaVersion',
  'mediaType',
  'manifests',
  'layers',
  'config',
  'digest',
  'size',
  'platform',
  'os',
  'architecture',
  'variant',
  'annotations',
];
const name = fc.constantFrom(
  ...names,
  'rootfs',
  'type',
  'diff_ids',
  'history',
  '__proto__',
  'constructor',
  'toString',
  'Layers',
);
const change = fc.record({ at: fc.nat(), name, value: odd, kind: fc.constantFrom('set', 'delete', 'add', 'bytes') });
type Change = typeof change extends fc.Arbitrary<infer T> ? T : never;

/** Every object and list within a value. */
function parts(value: unknown): object[] {
  if (typeof value !== 'object' || value === null) return [];
  return [value, ...Object.values(value).flatMap(parts)];
}

function changed(bytes: Buffer, changes: readonly Change[]): Buffer {
  const value = JSON.parse(bytes.toString()) as object;
  let out: Buffer | undefined;
  for (const { at, name, value: put, kind } of changes) {
    const all = parts(value);
    const part = all[at % all.length] as Record<string, unknown>;
    const keys = Object.keys(part);
    const key = keys[at % Math.max(1, keys.length)] ?? name;
    if (kind === 'bytes') {
      out = Buffer.from(JSON.stringify(value));
      out[at % out.length] = at & 0xff;
      return out;
    }
    if (kind === 'delete') delete part[key];
    else
      Object.defineProperty(part, kind === 'set' ? key : name, {
        value: structuredClone(put),
        enumerable: true,
        configurable: true,
        writable: true,
      });
  }
  return Buffer.from(JSON.stringify(value));
}

function checkImage(image: SourceImage): void {
  assert.ok(isDigest(image.configDigest));
  assert.ok(image.layers.length <= 1000);
  for (const { digest, diffId, sizeBytes } of image.layers) {
    assert.ok((digest === null || isDigest(digest)) && isDigest(diffId));
    assert.ok(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0);
  }
  assert.equal(typeof image.platform.os, 'string');
  JSON.stringify(image.config);
}

async function ends(action: () => Promise<unknown>, codes: RegExp): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    if (isPgError(error) && codes.test(error.code)) return false;
    throw error;
  }
}

describe(`damaged documents of images (${RUNS} of each kind)`, function () {
  this.timeout(600_000);
  let image: SampleImage;
  let dir: string;
  before(async () => {
    image = await smallImage();
    dir = mkdtempSync('/var/tmp/pg-test-');
  });
  after(() => rmSync(dir, { recursive: true, force: true }));

  it('manifests and configs', async () => {
    let whole = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 3 }),
        fc.array(change, { maxLength: 2 }),
        async (ofManifest, ofConfig) => {
          const config = changed(image.config, ofConfig);
          const manifest = changed(image.manifest, ofManifest);
          await ends(async () => parseConfig(config, 'C'), OF_DOCUMENTS);
          await ends(async () => parseDocument(manifest, null, 'M'), OF_DOCUMENTS);
          const assembled = (): Promise<SourceImage> =>
            assembleImage(manifest, null, async () => config, undefined, 'IMG');
          if (await ends(async () => checkImage(await assembled()), OF_DOCUMENTS)) whole++;
        },
      ),
      { numRuns: RUNS },
    );
    assert.ok(whole > RUNS / 50 && whole < RUNS, `${whole} were sound`);
    assert.equal(({} as { polluted?: unknown }).polluted, undefined);
  });

  it('indexes', async () => {
    const index = json({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: 'application/vnd.oci.image.manifest.v1+json',
          digest: image.digest,
          size: image.manifest.length,
          platform: { os: 'linux', architecture: 'amd64' },
        },
      ],
    });
    const blobs = blobsOf(image);
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 3 }), async (changes) => {
        const read = async ({ digest }: { digest: string }): Promise<Buffer> => blobs.get(digest) ?? Buffer.alloc(0);
        const bytes = changed(index, changes);
        await ends(async () => checkImage(await assembleImage(bytes, null, read, undefined, 'IMG')), OF_DOCUMENTS);
      }),
      { numRuns: RUNS },
    );
  });

  it('archives', async () => {
    const archive = await tarOfFiles(dockerOciFiles(image, ['a:1']));
    const path = join(dir, 'archive.tar');
    const mutation = fc.record({
      at: fc.nat(archive.length - 1),
      byte: fc.nat(255),
      kind: fc.constantFrom('set', 'set', 'set', 'cut', 'sum'),
    });
    let whole = 0;
    const runs = Math.ceil(RUNS / 4);
    await fc.assert(
      fc.asyncProperty(
        fc.array(mutation, { maxLength: 4 }),
        fc.constantFrom('docker-archive', 'oci-archive'),
        async (mutations, transport) => {
          let bytes: Buffer = Buffer.from(archive);
          for (const { at, byte, kind } of mutations) {
            // Headers are what an archive is known by.
            const where = kind === 'cut' ? at : at - (at % 512) + (at % 345);
            if (kind === 'cut') bytes = bytes.subarray(0, at);
            else if (where < bytes.length) bytes[where] = byte;
          }
          writeFileSync(path, bytes);
          const open = async (): Promise<void> => {
            const source = await openSource(`${transport}:${path}`);
            try {
              checkImage(await source.manifest());
            } finally {
              await source.close();
            }
          };
          if (await ends(open, new RegExp(`${OF_ARCHIVES.source}|${OF_DOCUMENTS.source}`))) whole++;
        },
      ),
      { numRuns: runs },
    );
    assert.ok(whole > 0 && whole < runs, `${whole} were sound`);
  });

  it('compressed blobs', async () => {
    const text = Buffer.alloc(20_000, 'some text that can be packed ');
    const packed = [gzipSync(text), zstdCompressSync(text), Buffer.concat([gzipSync('a'), gzipSync(text)])];
    const mutation = fc.record({ at: fc.nat(), byte: fc.nat(255) });
    await fc.assert(
      fc.asyncProperty(
        fc.nat(2),
        fc.array(mutation, { minLength: 1, maxLength: 3 }),
        fc.integer({ min: 1, max: 300 }),
        async (which, mutations, piece) => {
          const bytes = Buffer.from(packed[which]!);
          for (const { at, byte } of mutations) bytes[at % bytes.length] = byte;
          const pieces = async function* (): AsyncGenerator<Uint8Array> {
            for (let at = 0; at < bytes.length; at += piece) yield bytes.subarray(at, at + piece);
          };
          await ends(() => collect(decompressed(pieces(), 'blob')), /^(BLOB_DAMAGED|COMPRESSION_UNKNOWN)$/);
        },
      ),
      { numRuns: Math.ceil(RUNS / 2) },
    );
  });

  it('challenges', () => {
    const word = fc.oneof(
      fc.constantFrom('Bearer', 'Basic', 'realm', '=', '"', ',', ' ', '\\', '__proto__', 'https://x/', '\t'),
      fc.string({ maxLength: 5 }),
    );
    fc.assert(
      fc.property(fc.array(word, { maxLength: 30 }), (words) => {
        const found = parseChallenge(words.join(''));
        assert.ok(found === null || found.scheme === 'basic' || found.scheme === 'bearer');
      }),
      { numRuns: RUNS },
    );
    assert.equal(parseChallenge(`${'Bearer realm="'.repeat(100_000)}`)?.scheme, 'bearer');
  });
});
