/**
 * `dir:`: skopeo's plain directory (containers-transports(5)): manifest.json, and every blob under the hex digits of
 * its digest; of an index, the manifests under HEX.manifest.json.
 */
import { PgError } from '../../mdm/error.ts';
import { splitDigest, verified } from './digest.ts';
import { missing, type FileSet } from './files.ts';
import { assembleImage, assembleIndex, DOCUMENT_BYTES_MAX, type ReadDocument } from './manifest.ts';
import type { Platform } from './platform.ts';
import type { ImageSource, LayerBlob, SourceImage, SourceIndex } from './source.ts';

export class DirectorySource implements ImageSource {
  readonly transport = 'dir';
  readonly #files: FileSet;

  /** Takes over `files`. */
  constructor(files: FileSet) {
    this.#files = files;
  }

  describe(): string {
    return `the directory ${this.#files.label}`;
  }

  async manifest(platform?: Platform): Promise<SourceImage> {
    return await assembleImage(await this.#top(), null, this.#read(), platform, this.describe());
  }

  async index(): Promise<SourceIndex> {
    return await assembleIndex(await this.#top(), null, this.#read(), this.describe());
  }

  async #top(): Promise<Buffer> {
    const what = this.describe();
    const bytes = await this.#files.readWhole('manifest.json', DOCUMENT_BYTES_MAX);
    if (bytes === null) {
      throw new PgError('FILE_MISSING', `${what} has no manifest.json, so it holds no image`, {
        hint: 'if it has an index.json, write oci: instead of dir:',
      });
    }
    return bytes;
  }

  #read(): ReadDocument {
    const what = this.describe();
    return async ({ digest }, role) => {
      const path = role === 'manifest' ? `${splitDigest(digest, what).hex}.manifest.json` : blobFile(digest, what);
      const document = await this.#files.readWhole(path, DOCUMENT_BYTES_MAX);
      if (document === null) throw missing(path, this.#files.label);
      return document;
    };
  }

  openBlob(layer: LayerBlob, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const what = `layer ${layer.index + 1} (${layer.digest}) of ${this.describe()}`;
    return verified(this.#files.stream(blobFile(layer.digest, what), signal), layer, what);
  }

  async close(): Promise<void> {
    await this.#files.close();
  }
}

/** containers/image directory_transport.go: the hex digits alone for sha256, `sha512-HEX` otherwise. */
function blobFile(digest: string | null, what: string): string {
  const { algorithm, hex } = splitDigest(digest, what);
  return algorithm === 'sha256' ? hex : `${algorithm}-${hex}`;
}
