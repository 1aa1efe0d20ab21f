/** `oci:` and `oci-archive:`: an OCI image layout (image-spec image-layout.md) in a directory or in a tar. */
import { PgError } from '../../mdm/error.ts';
import { formatReference, parseImageName } from '../reference.ts';
import { splitDigest, verified, verifyBytes } from './digest.ts';
import { missing, type FileSet } from './files.ts';
import {
  assembleImage,
  assembleIndex,
  DOCUMENT_BYTES_MAX,
  invalid,
  parseDescriptor,
  parseJson,
  type Descriptor,
  type ReadDocument,
} from './manifest.ts';
import type { Platform } from './platform.ts';
import type { ImageSource, LayerBlob, SourceImage, SourceIndex, TransportName } from './source.ts';

const REF_NAME = 'org.opencontainers.image.ref.name';
/** containerd and Docker keep the full name here and only the tag in REF_NAME. */
const FULL_NAME = 'io.containerd.image.name';

export class OciLayoutSource implements ImageSource {
  readonly transport: TransportName;
  readonly #files: FileSet;
  readonly #selector: string | null;

  /**
   * `selector` chooses one of several images: a ref name, a digest, `@N` for the N-th; null = the only one. Takes over
   * `files`.
   */
  constructor(transport: 'oci' | 'oci-archive', files: FileSet, selector: string | null) {
    this.transport = transport;
    this.#files = files;
    this.#selector = selector;
  }

  describe(): string {
    return `the OCI ${this.transport === 'oci' ? 'directory' : 'archive'} ${this.#files.label}`;
  }

  async manifest(platform?: Platform): Promise<SourceImage> {
    const what = this.describe();
    const manifests = await readLayoutIndex(this.#files, what);
    const chosen = select(manifests, this.#selector, what);
    const read = layoutReader(this.#files);
    const image = await this.#assemble(chosen, read, platform, what);
    if (chosen !== null) image.names = namesOf(chosen);
    return image;
  }

  async index(): Promise<SourceIndex> {
    const what = this.describe();
    const chosen = select(await readLayoutIndex(this.#files, what), this.#selector, what);
    const read = layoutReader(this.#files);
    const bytes = await this.#document(chosen, read, what);
    const index = await assembleIndex(bytes, chosen?.mediaType ?? null, read, what);
    return { ...index, names: chosen === null ? [] : namesOf(chosen) };
  }

  async #assemble(
    chosen: Descriptor | null,
    read: ReadDocument,
    platform: Platform | undefined,
    what: string,
  ): Promise<SourceImage> {
    const bytes = await this.#document(chosen, read, what);
    return assembleImage(bytes, chosen?.mediaType ?? null, read, platform, what);
  }

  /** What is chosen, verified; null is the layout's own index. */
  async #document(chosen: Descriptor | null, read: ReadDocument, what: string): Promise<Buffer> {
    if (chosen === null) return (await this.#files.readWhole('index.json', DOCUMENT_BYTES_MAX)) ?? Buffer.alloc(0);
    const bytes = await read(chosen, 'manifest');
    verifyBytes(bytes, { digest: chosen.digest, sizeBytes: chosen.size }, `the manifest ${chosen.digest} of ${what}`);
    return bytes;
  }

  openBlob(layer: LayerBlob, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    return verified(
      this.#files.stream(blobPath(layer.digest, this.describe()), signal),
      layer,
      `layer ${layer.index + 1} (${layer.digest}) of ${this.describe()}`,
    );
  }

  async close(): Promise<void> {
    await this.#files.close();
  }
}

/** `blobs/sha256/hex`; the digest is checked, so nothing else can stand there. */
export function blobPath(digest: string | null, what: string): string {
  const { algorithm, hex } = splitDigest(digest, what);
  return `blobs/${algorithm}/${hex}`;
}

/** Reads the documents of a layout by digest. */
export function layoutReader(files: FileSet): ReadDocument {
  return async (descriptor) => {
    const path = blobPath(descriptor.digest, files.label);
    const bytes = await files.readWhole(path, DOCUMENT_BYTES_MAX);
    if (bytes === null) throw missing(path, files.label);
    return bytes;
  };
}

/** The descriptors of a layout's index.json. Throws NOT_AN_OCI_LAYOUT. */
export async function readLayoutIndex(files: FileSet, what: string): Promise<Descriptor[]> {
  const marker = await files.readWhole('oci-layout', DOCUMENT_BYTES_MAX);
  const bytes = await files.readWhole('index.json', DOCUMENT_BYTES_MAX);
  if (bytes === null) {
    throw new PgError('NOT_AN_OCI_LAYOUT', `${what} has no index.json, so it is no OCI image layout`, {
      hint: 'is it an archive of docker save? then write docker-archive:',
    });
  }
  if (marker !== null) checkLayoutVersion(parseJson(marker, `oci-layout of ${what}`), what);
  const index = parseJson(bytes, `index.json of ${what}`) as { manifests?: unknown } | null;
  if (!Array.isArray(index?.manifests)) throw invalid(`index.json of ${what}`, 'it lists no manifests');
  return index.manifests.map((item, i) => parseDescriptor(item, `index.json of ${what}, manifests[${i}]`));
}

function checkLayoutVersion(marker: unknown, what: string): void {
  const version = (marker as { imageLayoutVersion?: unknown } | null)?.imageLayoutVersion;
  if (typeof version === 'string' && version.startsWith('1.')) return;
  throw new PgError('NOT_AN_OCI_LAYOUT', `${what} is an OCI image layout of version ${String(version)}; pg reads 1.x`);
}

/** The descriptor meant; null = the index as a whole, when its parts differ only in platform. */
function select(manifests: readonly Descriptor[], selector: string | null, what: string): Descriptor | null {
  const only = manifests[0];
  if (selector === null) {
    if (only === undefined) throw new PgError('IMAGE_NOT_FOUND', `${what} holds no image`);
    if (manifests.length === 1) return only;
    const names = new Set(manifests.map(refName));
    if (names.size === 1 && manifests.every((d) => d.platform !== undefined)) return null;
    throw new PgError('IMAGE_AMBIGUOUS', `${what} holds ${manifests.length} images: ${listNames(manifests)}`, {
      hint: 'say which by :NAME after the path, or by :@0, :@1 and so on',
    });
  }
  const position = /^@(\d+)$/.exec(selector);
  const found = position ? manifests[Number(position[1])] : manifests.find((d) => isCalled(d, selector));
  if (found !== undefined) return found;
  throw new PgError('IMAGE_NOT_FOUND', `${what} holds no image '${selector}'; it holds ${listNames(manifests)}`);
}

function listNames(manifests: readonly Descriptor[]): string {
  const names = manifests.slice(0, 20).map((d) => d.annotations[FULL_NAME] ?? refName(d) ?? d.digest);
  return (names.join(', ') || 'none') + (manifests.length > 20 ? ', ...' : '');
}

function refName(descriptor: Descriptor): string | undefined {
  return descriptor.annotations[REF_NAME];
}

function isCalled(descriptor: Descriptor, selector: string): boolean {
  if (descriptor.digest === selector || descriptor.digest === selector.replace(/^@/, '')) return true;
  if (refName(descriptor) === selector || descriptor.annotations[FULL_NAME] === selector) return true;
  const wanted = imageName(selector);
  return wanted !== null && namesOf(descriptor).includes(wanted);
}

/** Normalised names in a descriptor's annotations. A ref name may be a mere tag, which names nothing by itself. */
export function namesOf(descriptor: Descriptor): string[] {
  const full = imageName(descriptor.annotations[FULL_NAME]);
  if (full !== null) return [full];
  const ref = refName(descriptor);
  const name = ref !== undefined && /[/:]/.test(ref) ? imageName(ref) : null;
  return name === null ? [] : [name];
}

function imageName(text: string | undefined): string | null {
  if (text === undefined) return null;
  try {
    return formatReference(parseImageName(text));
  } catch {
    return null;
  }
}
