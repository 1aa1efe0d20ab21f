/** `oci:` and `oci-archive:`: an OCI image layout (image-spec image-layout.md) in a directory or in a tar. */
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseImageName } from '../reference.ts';
import type { ManifestDocument } from '../transport/source.ts';
import type { BlobDestination, BlobOutcome } from './destination.ts';
import { ArchiveFile, DirectoryFiles } from './files.ts';
import { OCI_INDEX } from './manifests.ts';
import type { OutgoingBlob } from './outgoing.ts';

/** OCI image-spec, image-layout.md. */
const LAYOUT = Buffer.from('{"imageLayoutVersion":"1.0.0"}');
const REF_NAME = 'org.opencontainers.image.ref.name';
/** containerd and Docker keep the full name here and only the tag in REF_NAME. */
const FULL_NAME = 'io.containerd.image.name';

interface IndexEntry {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
}

/** A layout being written. In a directory, blobs that are there are not written again, and the index keeps what else it lists. */
export class LayoutDestination implements BlobDestination {
  readonly form = 'oci';
  readonly packing = 'none';
  readonly blobsAtOnce = 1;
  readonly #path: string;
  readonly #files: ArchiveFile | DirectoryFiles;
  readonly #annotations: Record<string, string>;
  /** Blobs of an archive, which can be written once only. */
  readonly #written = new Set<string>();
  readonly #before: readonly IndexEntry[];
  #entry: IndexEntry | undefined;

  private constructor(
    path: string,
    files: ArchiveFile | DirectoryFiles,
    before: readonly IndexEntry[],
    annotations: Record<string, string>,
  ) {
    this.#path = path;
    this.#files = files;
    this.#before = before;
    this.#annotations = annotations;
  }

  /** `ref` is what the image is called there: a mere tag, or a name; without, `names` says. */
  static async directory(path: string, ref: string | undefined, names: readonly string[]): Promise<LayoutDestination> {
    const files = new DirectoryFiles(path, (name) => name.startsWith('blobs/'));
    const before = readIndex(await files.read('index.json'), join(path, 'index.json'));
    await files.file('oci-layout', LAYOUT.length, [LAYOUT]);
    return new LayoutDestination(path, files, before, annotationsOf(ref, names));
  }

  static async archive(path: string, ref: string | undefined, names: readonly string[]): Promise<LayoutDestination> {
    const annotations = annotationsOf(ref, names);
    const file = await ArchiveFile.create(path);
    const layout = new LayoutDestination(path, file, [], annotations);
    await file.file('oci-layout', LAYOUT.length, [LAYOUT]);
    return layout;
  }

  describe(): string {
    return `the OCI ${this.#files instanceof ArchiveFile ? 'archive' : 'directory'} ${this.#path}`;
  }

  async blob({ digest, sizeBytes, open }: OutgoingBlob, onBytes: (bytes: number) => void): Promise<BlobOutcome> {
    if (this.#written.has(digest)) return 'already there';
    this.#written.add(digest);
    const isNew = await this.#files.file(blobPath(digest), sizeBytes, told(open(), onBytes));
    return isNew ? 'written' : 'already there';
  }

  async manifest({ bytes, digest, mediaType }: ManifestDocument, isLast: boolean): Promise<void> {
    if (!this.#written.has(digest)) await this.#files.file(blobPath(digest), bytes.length, [bytes]);
    this.#written.add(digest);
    const annotations = Object.keys(this.#annotations).length === 0 ? {} : { annotations: this.#annotations };
    if (isLast) this.#entry = { mediaType, digest, size: bytes.length, ...annotations };
  }

  async end(): Promise<void> {
    const entry = this.#entry!;
    const name = entry.annotations?.[REF_NAME];
    const kept = this.#before.filter((other) =>
      name === undefined ? other.digest !== entry.digest : other.annotations?.[REF_NAME] !== name,
    );
    const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [...kept, entry] }));
    await this.#files.file('index.json', index.length, [index]);
    if (this.#files instanceof ArchiveFile) await this.#files.end();
  }

  async abort(): Promise<void> {
    if (this.#files instanceof ArchiveFile) await this.#files.abort();
  }
}

/** Passes pieces on, and says how many bytes they had. */
export async function* told(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    onBytes(piece.length);
    yield piece;
  }
}

function annotationsOf(ref: string | undefined, names: readonly string[]): Record<string, string> {
  if (ref !== undefined && !/[:/]/.test(ref)) return { [REF_NAME]: ref };
  const name = ref ?? names[0];
  if (name === undefined) return {};
  const reference = parseImageName(name);
  return { [REF_NAME]: ref ?? reference.tag ?? 'latest', [FULL_NAME]: formatReference(reference) };
}

function readIndex(text: string | undefined, path: string): IndexEntry[] {
  if (text === undefined) return [];
  try {
    const { manifests } = JSON.parse(text) as { manifests: IndexEntry[] };
    if (Array.isArray(manifests)) return manifests;
  } catch {
    // told below
  }
  throw new PgError('DESTINATION_INVALID', `${path} is not the index of an OCI image layout`, {
    hint: 'export to another directory',
  });
}

const blobPath = (digest: string): string => `blobs/${digest.replace(':', '/')}`;
