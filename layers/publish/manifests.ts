/** Manifests that pg makes: afresh, or the same in OCI's or Docker's words (image-spec manifest.md; Image Manifest V 2, Schema 2). */
import { createHash } from 'node:crypto';
import type { ManifestDocument } from '../transport/source.ts';
import type { OutgoingBlob } from './outgoing.ts';

/** As it was published (afresh: OCI's), OCI's, or Docker's. */
export type ManifestForm = 'published' | 'oci' | 'docker';

export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const DOCKER_INDEX = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json';
const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar';

interface Part {
  mediaType: string;
  [more: string]: unknown;
}

export const isOciManifest = ({ mediaType }: ManifestDocument): boolean => mediaType === OCI_MANIFEST;

/** A manifest of these blobs, config first. */
export function freshManifest([config, ...layers]: readonly OutgoingBlob[], isDocker: boolean): ManifestDocument {
  const part = ({ digest, sizeBytes, mediaType }: OutgoingBlob): Part => ({ mediaType, digest, size: sizeBytes });
  return written(
    { schemaVersion: 2, config: { ...part(config!), mediaType: isDocker ? DOCKER_CONFIG : OCI_CONFIG } },
    layers.map(part),
    isDocker,
  );
}

/** The same config and layers under the other kind's media types. */
export function convertManifest(manifest: ManifestDocument, isDocker: boolean): ManifestDocument {
  const { layers, ...rest } = JSON.parse(manifest.bytes.toString()) as { config: Part; layers: Part[] };
  return written(
    { ...rest, config: { ...rest.config, mediaType: isDocker ? DOCKER_CONFIG : OCI_CONFIG } },
    layers,
    isDocker,
  );
}

/** An index as it was, but of these manifests in the places of its own; only images stay in it. */
export function convertIndex(
  index: ManifestDocument,
  manifests: readonly ManifestDocument[],
  isImage: readonly boolean[],
  form: ManifestForm,
): ManifestDocument {
  const {
    manifests: before,
    mediaType: _,
    ...rest
  } = JSON.parse(index.bytes.toString()) as { manifests: Part[]; mediaType?: string };
  const mediaType = form === 'published' ? index.mediaType : form === 'oci' ? OCI_INDEX : DOCKER_INDEX;
  const listed = before.flatMap((part, i) => {
    const { mediaType, digest, bytes } = manifests[i]!;
    return isImage[i] === true ? [{ ...part, mediaType, digest, size: bytes.length }] : [];
  });
  const bytes = Buffer.from(JSON.stringify({ ...rest, mediaType, manifests: listed }));
  return { bytes, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`, mediaType };
}

function written(head: object, layers: readonly Part[], isDocker: boolean): ManifestDocument {
  const mediaType = isDocker ? DOCKER_MANIFEST : OCI_MANIFEST;
  const { schemaVersion, ...rest } = head as { schemaVersion: number };
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion,
      mediaType,
      ...rest,
      layers: layers.map((layer) => ({ ...layer, mediaType: layerType(layer.mediaType, isDocker) })),
    }),
  );
  return { bytes, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`, mediaType };
}

function layerType(mediaType: string, isDocker: boolean): string {
  const packing = /[+.](gzip|zstd)$/.exec(mediaType)?.[1];
  const plain = isDocker ? DOCKER_LAYER : OCI_LAYER;
  return packing === undefined ? plain : `${plain}${isDocker ? '.' : '+'}${packing}`;
}
