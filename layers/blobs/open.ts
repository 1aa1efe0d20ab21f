import { createHash } from 'node:crypto';
import { PgError } from '../../mdm/error.ts';
import type { ContentRef } from '../../store/content.ts';
import type { Store } from '../../store/store.ts';
import type { LayerRecord } from '../images.ts';
import { recipeTar } from '../recipe.ts';
import { gzipAgain } from './gzip.ts';
import type { BlobRecord } from './record.ts';

const READ_BYTES = 1 << 20;

/** A layer's tar, from its recipe; ends with LAYER_DAMAGED unless it is the one that was imported. A piece is valid until the next. */
export function* layerTar(store: Store, { diffId, recipe }: LayerRecord): Generator<Uint8Array> {
  const [algorithm = '', hex] = diffId.split(':');
  const hash = createHash(algorithm);
  for (const chunk of recipeTar(store, recipe)) {
    hash.update(chunk);
    yield chunk;
  }
  if (hash.digest('hex') === hex) return;
  throw new PgError('LAYER_DAMAGED', `layer ${diffId} cannot be written: what the store has is another tar`, {
    hint: 'check the store (pg verify), then import the image again',
  });
}

/**
 * A blob as it was published. Ends with BLOB_NOT_REBUILT unless it hashes to its digest: then it was not made as it had seemed, and the
 * caller forgets the record.
 */
export async function* blobBytes(store: Store, blob: BlobRecord, layer: LayerRecord): AsyncGenerator<Uint8Array> {
  const { digest, packing } = blob;
  const [algorithm = '', hex] = digest.split(':');
  const hash = createHash(algorithm);
  const pieces =
    packing.kind === 'kept'
      ? contentBytes(store, packing.ref)
      : gzipAgain(Buffer.from(packing.header, 'hex'), packing.maker, packing.level, layerTar(store, layer));
  for await (const piece of pieces) {
    hash.update(piece);
    yield piece;
  }
  if (hash.digest('hex') !== hex)
    throw new PgError('BLOB_NOT_REBUILT', `blob ${digest} does not come out as it was published`);
}

/** A content in pieces of at most 1 MiB. */
export function* contentBytes(store: Store, ref: ContentRef): Generator<Uint8Array> {
  const content = store.openContent(ref);
  for (let at = 0; at < ref.size;) {
    const piece = Buffer.allocUnsafe(Math.min(READ_BYTES, ref.size - at));
    const count = content.readAt(piece, at);
    yield piece.subarray(0, count);
    at += count;
  }
}
