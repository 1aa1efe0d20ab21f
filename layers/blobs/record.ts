import type { ContentRef } from '../../store/content.ts';
import type { Store } from '../../store/store.ts';

/**
 * How a layer's blob, as it was published, comes from what the store has (docs/formats/images.md, table `blobs`): kept as it came, or
 * packed again from the layer's tar by the same compressor. A blob that is the tar itself needs no record.
 */
export type Packing =
  | { kind: 'kept'; ref: ContentRef }
  /** One gzip member (RFC 1952): these header bytes (hex), what `maker` makes of the tar at `level`, CRC32 and length. */
  | { kind: 'gzip'; maker: GzipMaker; level: number; header: string };

/** Whose DEFLATE it is: node's zlib, or Go's compress/flate. */
export type GzipMaker = 'zlib' | 'go';

export interface BlobRecord {
  /** What the blob hashes to. */
  digest: string;
  /** Of the tar in it. */
  diffId: string;
  sizeBytes: number;
  packing: Packing;
}

interface StoredBlob {
  diffId: string;
  sizeBytes: number;
  packing: { kind: 'kept'; root: string } | Exclude<Packing, { kind: 'kept' }>;
}

/** What is known of the blob with this digest. */
export function loadBlob(store: Store, digest: string): BlobRecord | undefined {
  const value = store.table('blobs').get(digest);
  return value === undefined ? undefined : decode(digest, value);
}

/** Writes a blob's record; call it in the transaction that makes what it refers to visible. */
export function putBlob(store: Store, { digest, diffId, sizeBytes, packing }: BlobRecord): void {
  const stored: StoredBlob = {
    diffId,
    sizeBytes,
    packing: packing.kind === 'kept' ? { kind: 'kept', root: Buffer.from(packing.ref.root).toString('hex') } : packing,
  };
  store.table('blobs').put(digest, Buffer.from(JSON.stringify(stored)));
}

/** Forgets a blob: it cannot be made as it was published. */
export function forgetBlob(store: Store, digest: string): void {
  store.table('blobs').remove(digest);
}

/** All records of the layer with this DiffID. */
export function blobsOfLayer(store: Store, diffId: string): BlobRecord[] {
  return allBlobs(store).filter((blob) => blob.diffId === diffId);
}

/**
 * Forgets the blobs of layers that are gone, and kept bytes that no image was imported from: `diffIds` and `digests` are those of the
 * images that stay.
 */
export function forgetUnusedBlobs(store: Store, diffIds: ReadonlySet<string>, digests: ReadonlySet<string>): void {
  for (const { digest, diffId, packing } of allBlobs(store)) {
    if (!diffIds.has(diffId) || (packing.kind === 'kept' && !digests.has(digest))) forgetBlob(store, digest);
  }
}

function allBlobs(store: Store): BlobRecord[] {
  return [...store.table('blobs').range()].map(({ key, value }) => decode(key.toString(), value));
}

function decode(digest: string, value: Buffer): BlobRecord {
  const { diffId, sizeBytes, packing } = JSON.parse(value.toString()) as StoredBlob;
  return {
    digest,
    diffId,
    sizeBytes,
    packing:
      packing.kind === 'kept'
        ? { kind: 'kept', ref: { root: Buffer.from(packing.root, 'hex'), size: sizeBytes } }
        : packing,
  };
}
