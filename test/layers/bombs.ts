/** Layers that say much in few bytes: pieces of a tar, each compressed once and repeated, as gzip members or zstd frames one after another. */
import { createHash } from 'node:crypto';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { digestOf } from '../../layers/transport/digest.ts';
import { type RawEntry, tarBytes } from './tar-builder.ts';
import type { SampleLayer } from './transport/samples.ts';

/** Bytes of the tar, and how often they come. */
export type Piece = readonly [bytes: Buffer, times: number];

/** Entries without the end of the archive. */
export const some = (entries: readonly RawEntry[]): Buffer => tarBytes(entries, Buffer.alloc(0));
export const END: Piece = [Buffer.alloc(1024), 1];

/** The header of a file whose data is to come. */
export const headerOf = (name: string, size: number): Piece => [some([{ name, size }]).subarray(0, 512), 1];

/** The layer; its DiffID is right, however large the tar is. */
export function packed(pieces: readonly Piece[], packing: 'gzip' | 'zstd' = 'gzip'): SampleLayer {
  const hash = createHash('sha256');
  const parts: Buffer[] = [];
  for (const [bytes, times] of pieces) {
    const part = packing === 'gzip' ? gzipSync(bytes, { level: 1 }) : zstdCompressSync(bytes);
    for (let i = 0; i < times; i++) {
      parts.push(part);
      hash.update(bytes);
    }
  }
  const blob = Buffer.concat(parts);
  return {
    tar: Buffer.alloc(0),
    blob,
    diffId: `sha256:${hash.digest('hex')}`,
    digest: digestOf(blob),
    mediaType: `application/vnd.oci.image.layer.v1.tar+${packing}`,
  };
}
