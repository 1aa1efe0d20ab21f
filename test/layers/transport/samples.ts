/** Small images made here, byte for byte known, and the archives around them that other tools write. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import tar from 'tar-stream';
import { digestOf } from '../../../layers/transport/digest.ts';

export type Packing = 'none' | 'gzip' | 'zstd';

export interface SampleLayer {
  tar: Buffer;
  blob: Buffer;
  diffId: string;
  digest: string;
  mediaType: string;
}

export interface SampleImage {
  layers: SampleLayer[];
  config: Buffer;
  configDigest: string;
  manifest: Buffer;
  digest: string;
  architecture: string;
}

export interface SampleOptions {
  packing?: Packing;
  architecture?: string;
  variant?: string;
}

/** A tar of files (name to text; a name ending in / is a directory) with fixed times. */
export async function tarOf(files: Readonly<Record<string, string | Buffer>>): Promise<Buffer> {
  const pack = tar.pack();
  for (const [name, content] of Object.entries(files)) {
    const header = { name, mtime: new Date(1_700_000_000_000), mode: name.endsWith('/') ? 0o755 : 0o644 };
    if (name.endsWith('/')) pack.entry({ ...header, type: 'directory' });
    else pack.entry(header, content);
  }
  pack.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of pack) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export async function sampleLayer(
  files: Readonly<Record<string, string | Buffer>>,
  packing: Packing = 'gzip',
): Promise<SampleLayer> {
  const data = await tarOf(files);
  const blob = packing === 'gzip' ? gzipSync(data) : packing === 'zstd' ? zstdCompressSync(data) : data;
  const suffix = packing === 'none' ? '' : `+${packing}`;
  return {
    tar: data,
    blob,
    diffId: digestOf(data),
    digest: digestOf(blob),
    mediaType: `application/vnd.oci.image.layer.v1.tar${suffix}`,
  };
}

/** An OCI image of these layers, lowest first. */
export function sampleImage(layers: SampleLayer[], options: SampleOptions = {}): SampleImage {
  const architecture = options.architecture ?? 'amd64';
  const config = json({
    architecture,
    os: 'linux',
    ...(options.variant === undefined ? {} : { variant: options.variant }),
    created: '2026-01-01T00:00:00Z',
    config: { Cmd: ['/hello'], Env: ['A=b'] },
    rootfs: { type: 'layers', diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map((_, i) => ({ created_by: `step ${i}` })),
  });
  const manifest = json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: descriptor('application/vnd.oci.image.config.v1+json', config),
    layers: layers.map((layer) => descriptor(layer.mediaType, layer.blob)),
  });
  return { layers, config, configDigest: digestOf(config), manifest, digest: digestOf(manifest), architecture };
}

/** Two layers, a few files. */
export async function smallImage(options: SampleOptions = {}): Promise<SampleImage> {
  const packing = options.packing ?? 'gzip';
  const arch = options.architecture ?? 'amd64';
  const base = await sampleLayer(
    { 'etc/': '', 'etc/os-release': 'ID=sample\n', hello: `hello ${arch}\n`.repeat(2000) },
    packing,
  );
  const top = await sampleLayer({ 'etc/motd': 'welcome\n', data: Buffer.alloc(100_000, arch) }, packing);
  return sampleImage([base, top], options);
}

export function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

export function descriptor(
  mediaType: string,
  bytes: Buffer,
  more: object = {},
): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest: digestOf(bytes), size: bytes.length, ...more };
}

/** The blobs of an image by digest. */
export function blobsOf(image: SampleImage): Map<string, Buffer> {
  const blobs = new Map([
    [image.digest, image.manifest],
    [image.configDigest, image.config],
  ]);
  for (const layer of image.layers) blobs.set(layer.digest, layer.blob);
  return blobs;
}

/** An index over images of several platforms. */
export function indexOf(images: readonly SampleImage[], variants: readonly (string | undefined)[] = []): Buffer {
  return json({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: images.map((image, i) =>
      descriptor('application/vnd.oci.image.manifest.v1+json', image.manifest, {
        platform: { os: 'linux', architecture: image.architecture, ...(variants[i] ? { variant: variants[i] } : {}) },
      }),
    ),
  });
}

function blobPath(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

/** Files of an OCI layout (path to bytes): `top` are the entries of index.json. */
export function layoutFiles(top: object[], blobs: Iterable<readonly [string, Buffer]>): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const [digest, bytes] of blobs) files.set(blobPath(digest), bytes);
  files.set('index.json', json({ schemaVersion: 2, manifests: top }));
  files.set('oci-layout', json({ imageLayoutVersion: '1.0.0' }));
  return files;
}

/** The index.json entry of an image. */
export function layoutEntry(image: SampleImage, refName?: string): object {
  const annotations = refName === undefined ? {} : { annotations: { 'org.opencontainers.image.ref.name': refName } };
  return descriptor('application/vnd.oci.image.manifest.v1+json', image.manifest, annotations);
}

export function writeFiles(directory: string, files: ReadonlyMap<string, Buffer>): void {
  for (const [path, bytes] of files) {
    mkdirSync(join(directory, path, '..'), { recursive: true });
    writeFileSync(join(directory, path), bytes);
  }
}

export function writeLayout(directory: string, image: SampleImage, refName?: string): void {
  writeFiles(directory, layoutFiles([layoutEntry(image, refName)], blobsOf(image)));
}

/** What Docker 25 and later save: an OCI layout with a manifest.json beside it. Layers are stored as they are. */
export function dockerOciFiles(image: SampleImage, repoTags: string[]): Map<string, Buffer> {
  const files = layoutFiles([layoutEntry(image)], blobsOf(image));
  const layers = image.layers.map((layer) => blobPath(layer.digest));
  files.set('manifest.json', json([{ Config: blobPath(image.configDigest), RepoTags: repoTags, Layers: layers }]));
  return files;
}

/**
 * What Docker saved until 25: one directory per layer, the tables at the end. A layer that comes twice is a symlink.
 */
export async function dockerLegacyTar(image: SampleImage, repoTags: string[]): Promise<Buffer> {
  const pack = tar.pack();
  const config = `${image.configDigest.slice(7)}.json`;
  const names: string[] = [];
  const seen = new Map<string, string>();
  for (const [i, layer] of image.layers.entries()) {
    const id = digestOf(Buffer.from(`v1 ${i}`)).slice(7);
    pack.entry({ name: `${id}/`, type: 'directory' });
    pack.entry({ name: `${id}/VERSION` }, '1.0');
    const earlier = seen.get(layer.diffId);
    if (earlier === undefined) pack.entry({ name: `${id}/layer.tar` }, layer.tar);
    else pack.entry({ name: `${id}/layer.tar`, type: 'symlink', linkname: `../${earlier}/layer.tar` });
    seen.set(layer.diffId, earlier ?? id);
    names.push(`${id}/layer.tar`);
  }
  pack.entry({ name: config }, image.config);
  pack.entry({ name: 'manifest.json' }, json([{ Config: config, RepoTags: repoTags, Layers: names }]));
  pack.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of pack) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

export async function tarOfFiles(files: ReadonlyMap<string, Buffer>): Promise<Buffer> {
  return tarOf(Object.fromEntries(files));
}
