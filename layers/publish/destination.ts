/** Where images go: the same places that they come from (containers-transports(5)). */
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseImageName, type Reference } from '../reference.ts';
import type { ManifestDocument } from '../transport/source.ts';
import type { ManifestForm } from './manifests.ts';
import type { OutgoingBlob } from './outgoing.ts';

export type DestinationName =
  | { transport: 'docker-archive'; path: string; ref: string | undefined }
  | { transport: 'oci-archive' | 'oci'; path: string; ref: string | undefined }
  | { transport: 'dir'; path: string }
  | { transport: 'docker-daemon' | 'podman-daemon'; name: string | undefined }
  | { transport: 'docker'; reference: Reference };

/** What a blob came to at its destination. */
export type BlobOutcome = 'written' | 'already there' | 'mounted';

/** A place that keeps manifests and blobs. After an error only `abort` is called. */
export interface BlobDestination {
  /** For people: `the registry localhost:5000`. */
  describe(): string;
  /** What manifests are like there, where the user does not say. */
  readonly form: ManifestForm;
  /** How layers are packed that cannot come out as they were published. */
  readonly packing: 'none' | 'gzip';
  /** Blobs that may be written at the same time. */
  readonly blobsAtOnce: number;
  /** Writes a blob unless it is there. `onBytes` is told of what was written. */
  blob(blob: OutgoingBlob, onBytes: (bytes: number) => void): Promise<BlobOutcome>;
  /** Writes a manifest or index when all that it names is written; the last is the one that the image is called by. */
  manifest(document: ManifestDocument, isLast: boolean): Promise<void>;
  /** Makes it all visible. */
  end(): Promise<void>;
  /** Leaves nothing half-written behind. */
  abort(): Promise<void>;
}

/**
 * Reads `docker-archive:PATH[:NAME]`, `oci-archive:PATH[:NAME]`, `oci:DIR[:NAME]`, `dir:DIR`, `docker-daemon:[NAME]`,
 * `podman-daemon:[NAME]`, `docker://NAME`. PgError `DESTINATION_INVALID`, `REFERENCE_INVALID`.
 */
export function parseDestination(text: string): DestinationName {
  const [, word, rest = ''] = /^([a-z-]+):(.*)$/s.exec(text) ?? [];
  switch (word) {
    case 'docker': {
      if (!rest.startsWith('//')) break;
      const reference = parseImageName(rest.slice(2));
      if (reference.digest === undefined) return { transport: 'docker', reference };
      throw invalid(text, 'a registry gives the digest, it is not chosen', 'leave @sha256:... out, give a tag');
    }
    case 'docker-daemon':
    case 'podman-daemon':
      return { transport: word, name: rest === '' ? undefined : engineName(rest, text) };
    case 'dir':
      if (rest !== '') return { transport: 'dir', path: rest };
      break;
    case 'docker-archive':
    case 'oci-archive':
    case 'oci': {
      const [, path, ref] = /^([^:]+)(?::(.+))?$/s.exec(rest) ?? [];
      if (path !== undefined) return { transport: word, path, ref };
    }
  }
  throw invalid(
    text,
    undefined,
    'write docker-archive:PATH, oci-archive:PATH, oci:DIRECTORY (perhaps with :NAME after it), dir:DIRECTORY, docker-daemon:NAME, podman-daemon:NAME or docker://HOST/NAME:TAG',
  );
}

function engineName(name: string, text: string): string {
  const reference = parseImageName(name);
  if (reference.digest === undefined) return formatReference(reference);
  throw invalid(text, 'an engine names images by tags', 'leave @sha256:... out');
}

function invalid(text: string, why: string | undefined, hint: string): PgError {
  return new PgError('DESTINATION_INVALID', `cannot export to '${text}'${why === undefined ? '' : `: ${why}`}`, {
    hint,
  });
}
