/** An image on its way out: which documents and blobs make it up, as it was published where that can be, else afresh. */
import { createHash } from 'node:crypto';
import { PgError } from '../../mdm/error.ts';
import type { Store } from '../../store/store.ts';
import { blobBytes, contentBytes, layerTar } from '../blobs/open.ts';
import { loadBlob } from '../blobs/record.ts';
import { type ImageLayer, type ImageRecord, type LayerRecord, loadImage, loadLayer } from '../images.ts';
import { type IndexRecord, publishedAs } from '../indexes.ts';
import type { ManifestDocument } from '../transport/source.ts';
import {
  convertIndex,
  convertManifest,
  freshManifest,
  isOciManifest,
  type ManifestForm,
  OCI_INDEX,
} from './manifests.ts';

/** A blob to be written. */
export interface OutgoingBlob {
  digest: string;
  sizeBytes: number;
  mediaType: string;
  /** For people: `layer 3f8a4339aadd`. */
  label: string;
  /**
   * Its bytes from the front, each time anew. They end with an error unless they hash to `digest`. A piece is valid until the next is
   * asked for.
   */
  open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** One image's manifest and what it names: config first, then the layers, lowest first. */
export interface OutgoingManifest {
  document: ManifestDocument;
  blobs: OutgoingBlob[];
  platform: string;
  /** Whether the manifest is the one that was imported, byte for byte. */
  isPublished: boolean;
}

/** What is written: blobs, then the manifests that an index names, then the document that the image is called by. */
export interface Outgoing {
  document: ManifestDocument;
  manifests: ManifestDocument[];
  blobs: OutgoingBlob[];
  isPublished: boolean;
}

/** Makes a blob of a layer that cannot come out as it was published. */
export type PackLayer = (layer: LayerRecord) => Promise<OutgoingBlob>;

/**
 * The image as it is to be written. The manifest it was imported with is kept if each of its blobs can be had and its form is wanted;
 * else a new one is made around those blobs that can, the rest packed by `pack`. PgError `LAYER_DAMAGED`.
 */
export async function outgoingManifest(
  store: Store,
  image: ImageRecord,
  form: ManifestForm,
  pack: PackLayer,
): Promise<OutgoingManifest> {
  const layers: OutgoingBlob[] = [];
  for (const layer of image.layers)
    layers.push(publishedBlob(store, layer) ?? (await pack(requireLayer(store, layer.diffId))));
  const blobs = [configBlob(image), ...layers];
  const { manifest, platform } = image;
  const same = manifest !== undefined && namesBlobs(manifest, blobs) ? manifest : undefined;
  if (same !== undefined && (form === 'published' || isOciManifest(same) === (form === 'oci')))
    return { document: same, blobs, platform, isPublished: true };
  const document =
    same === undefined ? freshManifest(blobs, form === 'docker') : convertManifest(same, form === 'docker');
  return { document, blobs, platform, isPublished: false };
}

/**
 * All images of an index, and what else it lists. It is the one that was imported if each of its manifests is; else it lists the new ones,
 * and nothing that is not an image: attestations speak of the old.
 */
export async function outgoingIndex(
  store: Store,
  { document, parts }: IndexRecord,
  form: ManifestForm,
  pack: PackLayer,
): Promise<Outgoing> {
  const manifests: ManifestDocument[] = [];
  const blobs: OutgoingBlob[] = [];
  let isPublished = form === 'published' || (document.mediaType === OCI_INDEX) === (form === 'oci');
  for (const part of parts) {
    if (part.kind === 'other') {
      manifests.push(part.document);
      for (const { digest, mediaType, ref } of part.blobs)
        blobs.push({
          digest,
          sizeBytes: ref.size,
          mediaType,
          label: `blob ${shortDigest(digest)}`,
          open: () => contentBytes(store, ref),
        });
      continue;
    }
    const image = loadImage(store, part.image);
    if (image === undefined) {
      throw new PgError('IMAGE_NOT_FOUND', `the image ${shortDigest(part.image)} of the index is not here any more`, {
        hint: 'import it again with --all-platforms',
      });
    }
    const manifest = await outgoingManifest(store, publishedAs(image, part.document), form, pack);
    manifests.push(manifest.document);
    blobs.push(...manifest.blobs);
    isPublished &&= manifest.isPublished;
  }
  if (isPublished) return { document, manifests, blobs, isPublished };
  const isImage = parts.map(({ kind }) => kind === 'image');
  return {
    document: convertIndex(document, manifests, isImage, form),
    manifests: manifests.filter((_, i) => isImage[i]),
    blobs,
    isPublished,
  };
}

/** Whether a manifest is one of just these blobs, config first. What the image came from may have had others than its manifest says. */
function namesBlobs({ bytes }: ManifestDocument, blobs: readonly OutgoingBlob[]): boolean {
  let named: (Named | undefined)[];
  try {
    const { config, layers } = JSON.parse(bytes.toString()) as { config?: Named; layers?: Named[] };
    named = [config, ...(layers ?? [])];
  } catch {
    return false; // a peer may have sent anything
  }
  return (
    named.length === blobs.length &&
    named.every((part, i) => part?.digest === blobs[i]!.digest && part.size === blobs[i]!.sizeBytes)
  );
}

interface Named {
  digest: string;
  size: number;
}

/** A layer's blob as it was published, if it can be had. */
function publishedBlob(
  store: Store,
  { diffId, digest, mediaType, blobBytes: sizeBytes }: ImageLayer,
): OutgoingBlob | undefined {
  if (digest === undefined) return undefined;
  const layer = requireLayer(store, diffId);
  if (digest === diffId) return { ...tarBlob(store, layer), mediaType };
  const blob = loadBlob(store, digest);
  if (blob === undefined || blob.diffId !== diffId || blob.sizeBytes !== sizeBytes) return undefined;
  return { digest, sizeBytes, mediaType, label: labelOf(digest), open: () => blobBytes(store, blob, layer) };
}

/** A layer as an uncompressed blob. */
export function tarBlob(store: Store, layer: LayerRecord): OutgoingBlob {
  const { diffId, tarBytes } = layer;
  return {
    digest: diffId,
    sizeBytes: tarBytes,
    mediaType: 'application/vnd.oci.image.layer.v1.tar',
    label: labelOf(diffId),
    open: () => layerTar(store, layer),
  };
}

/** The record of a layer that an image has. PgError `LAYER_DAMAGED`. */
export function requireLayer(store: Store, diffId: string): LayerRecord {
  const layer = loadLayer(store, diffId);
  if (layer !== undefined) return layer;
  throw new PgError('LAYER_DAMAGED', `layer ${diffId} cannot be written: its record is missing`, {
    hint: 'check the store (pg verify), then import the image again',
  });
}

function configBlob({ id, configBytes }: ImageRecord): OutgoingBlob {
  return documentBlob(id, configBytes, 'application/vnd.oci.image.config.v1+json', `config ${shortDigest(id)}`);
}

/** A small blob that is in memory. */
export function documentBlob(digest: string, bytes: Buffer, mediaType: string, label: string): OutgoingBlob {
  return { digest, sizeBytes: bytes.length, mediaType, label, open: () => [bytes] };
}

export const labelOf = (digest: string): string => `layer ${shortDigest(digest)}`;
export const shortDigest = (digest: string): string => digest.slice(digest.indexOf(':') + 1).slice(0, 12);
export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
