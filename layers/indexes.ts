import type { ContentRef } from '../store/content.ts';
import type { Reachable } from '../store/collect.ts';
import type { Store } from '../store/store.ts';
import { type ImageRecord, loadImage } from './images.ts';
import { formatReference, parseImageName } from './reference.ts';
import type { ManifestDocument } from './transport/source.ts';

/** One manifest that an index lists: an image of the store, or something else (an attestation), of which all is kept as it came. */
export type IndexPart =
  | { kind: 'image'; document: ManifestDocument; image: string }
  | { kind: 'other'; document: ManifestDocument; blobs: { digest: string; mediaType: string; ref: ContentRef }[] };

/** Several images under one name, as a registry has them (docs/formats/images.md, table `indexes`). */
export interface IndexRecord {
  document: ManifestDocument;
  /** In the order of the index. */
  parts: IndexPart[];
}

interface StoredDocument {
  bytes: string;
  digest: string;
  mediaType: string;
}

interface StoredIndex {
  document: StoredDocument;
  parts: (
    | { kind: 'image'; document: StoredDocument; image: string }
    | {
        kind: 'other';
        document: StoredDocument;
        blobs: { digest: string; mediaType: string; root: string; size: number }[];
      }
  )[];
}

/** The index that this name stands for; undefined when it has none, or when the name is another image's by now. */
export function loadIndex(store: Store, name: string): IndexRecord | undefined {
  const key = formatReference(parseImageName(name));
  const value = store.table('indexes').get(key);
  if (value === undefined) return undefined;
  const index = decode(value);
  const called = store.table('names').get(key)?.toString();
  return index.parts.some((part) => part.kind === 'image' && part.image === called) ? index : undefined;
}

/** Writes an index under a full name; call it in the transaction that makes what it refers to visible. */
export function putIndex(store: Store, name: string, { document, parts }: IndexRecord): void {
  const stored: StoredIndex = {
    document: encodeDocument(document),
    parts: parts.map((part) => {
      if (part.kind === 'image') return { ...part, document: encodeDocument(part.document) };
      const blobs = part.blobs.map(({ digest, mediaType, ref }) => ({
        digest,
        mediaType,
        root: Buffer.from(ref.root).toString('hex'),
        size: ref.size,
      }));
      return { kind: 'other', document: encodeDocument(part.document), blobs };
    }),
  };
  store.table('indexes').put(name, Buffer.from(JSON.stringify(stored)));
}

/** What the indexes keep besides images, for `store.collect`. */
export function* indexesReachable(store: Store): Generator<Reachable> {
  for (const { value } of store.table('indexes').range())
    for (const part of decode(value).parts)
      if (part.kind === 'other') for (const { ref } of part.blobs) yield { kind: 'content', ref };
}

/**
 * Forgets the index under a full name that is being removed, and gives the images that it had brought and that have no name of their own
 * besides their digest: they go with it.
 */
export function dropIndex(store: Store, name: string): ImageRecord[] {
  const value = store.table('indexes').get(name);
  if (value === undefined) return [];
  store.table('indexes').remove(name);
  const images = decode(value).parts.flatMap((part) =>
    part.kind === 'image' ? (loadImage(store, part.image) ?? []) : [],
  );
  const kept = new Set(
    [...store.table('indexes').range()].flatMap(({ value: other }) =>
      decode(other).parts.flatMap((part) => (part.kind === 'image' ? part.image : [])),
    ),
  );
  return images.filter(({ id, names }) => names.length === 0 && !kept.has(id));
}

/** The name under which an image of an index is found besides: `repository@digest`. */
export function digestName(name: string, digest: string): string {
  const { domain, path } = parseImageName(name);
  return formatReference({ domain, path, digest });
}

/** An image as this manifest publishes it: the blobs are those that it names. */
export function publishedAs(image: ImageRecord, document: ManifestDocument): ImageRecord {
  const { layers } = JSON.parse(document.bytes.toString()) as {
    layers: { digest: string; size: number; mediaType: string }[];
  };
  return {
    ...image,
    manifest: document,
    layers: image.layers.map(({ diffId }, i) => {
      const { digest, size, mediaType } = layers[i]!;
      return { diffId, digest, mediaType, blobBytes: size };
    }),
  };
}

function encodeDocument({ bytes, digest, mediaType }: ManifestDocument): StoredDocument {
  return { bytes: bytes.toString('base64'), digest, mediaType };
}

function decodeDocument({ bytes, digest, mediaType }: StoredDocument): ManifestDocument {
  return { bytes: Buffer.from(bytes, 'base64'), digest, mediaType };
}

function decode(value: Buffer): IndexRecord {
  const { document, parts } = JSON.parse(value.toString()) as StoredIndex;
  return {
    document: decodeDocument(document),
    parts: parts.map((part) => {
      if (part.kind === 'image') return { ...part, document: decodeDocument(part.document) };
      const blobs = part.blobs.map(({ digest, mediaType, root, size }) => ({
        digest,
        mediaType,
        ref: { root: Buffer.from(root, 'hex'), size },
      }));
      return { kind: 'other', document: decodeDocument(part.document), blobs };
    }),
  };
}
