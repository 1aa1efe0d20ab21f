/** What every test of a source asserts. */
import assert from 'node:assert/strict';
import type { Compression } from '../../../layers/transport/decompress.ts';
import { openLayerTar } from '../../../layers/transport/decompress.ts';
import { openSource } from '../../../layers/transport/open.ts';
import type { ImageSource, SourceImage, SourceOptions } from '../../../layers/transport/source.ts';
import type { Platform } from '../../../layers/transport/platform.ts';
import { isPgError, type PgError } from '../../../mdm/error.ts';
import type { SampleImage } from './samples.ts';

export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(Buffer.from(chunk)); // a piece does not stay
  return Buffer.concat(all);
}

export interface Read {
  image: SourceImage;
  blobs: Buffer[];
  tars: Buffer[];
  compressions: (Compression | null)[];
  description: string;
  source: ImageSource;
}

/** Opens `source`, reads all of it - all layers at the same time - and closes it. */
export async function readAll(source: string, options: SourceOptions = {}, platform?: Platform): Promise<Read> {
  const opened = await openSource(source, options);
  try {
    const image = await opened.manifest(platform);
    const blobs = await Promise.all(image.layers.map((layer) => collect(opened.openBlob(layer))));
    const tars = image.layers.map((layer) => openLayerTar(opened, layer));
    const contents = await Promise.all(tars.map((tar) => collect(tar.bytes)));
    const compressions = tars.map((tar) => tar.compression);
    return { image, blobs, tars: contents, compressions, description: opened.describe(), source: opened };
  } finally {
    await opened.close();
  }
}

/** What came is the sample: config and tars byte for byte. */
export function assertIsSample(read: Read, sample: SampleImage): void {
  assert.equal(read.image.configDigest, sample.configDigest);
  assert.ok(read.image.configBytes.equals(sample.config), 'config bytes');
  assert.equal(read.tars.length, sample.layers.length);
  for (const [i, layer] of sample.layers.entries()) {
    assert.equal(read.image.layers[i]?.diffId, layer.diffId);
    assert.ok(read.tars[i]?.equals(layer.tar), `tar of layer ${i}`);
    assert.equal(read.blobs[i]?.length, read.image.layers[i]?.sizeBytes);
  }
}

/** Runs `action`, which must fail with this PgError; gives it for more questions. */
export async function failure(action: () => Promise<unknown>, code: string): Promise<PgError> {
  try {
    await action();
  } catch (error) {
    assert.ok(isPgError(error), `a PgError, not ${String(error)}\n${(error as Error).stack}`);
    assert.equal(error.code, code, error.message);
    return error;
  }
  assert.fail(`should have failed with ${code}`);
}
