/** `dir:`: skopeo's plain directory (containers-transports(5)): manifest.json, blobs under the hex digits of their digest. */
import type { ManifestDocument } from '../transport/source.ts';
import type { BlobDestination, BlobOutcome } from './destination.ts';
import { DirectoryFiles } from './files.ts';
import { told } from './layout.ts';
import type { OutgoingBlob } from './outgoing.ts';

/** containers/image directory_transport.go. */
const VERSION = Buffer.from('Directory Transport Version: 1.1\n');

export class DirectoryDestination implements BlobDestination {
  readonly form = 'published';
  readonly packing = 'none';
  readonly blobsAtOnce = 1;
  readonly #path: string;
  readonly #files: DirectoryFiles;

  constructor(path: string) {
    this.#path = path;
    this.#files = new DirectoryFiles(path, (name) => /^(sha512-)?[0-9a-f]+$/.test(name));
  }

  describe(): string {
    return `the directory ${this.#path}`;
  }

  async blob({ digest, sizeBytes, open }: OutgoingBlob, onBytes: (bytes: number) => void): Promise<BlobOutcome> {
    return (await this.#files.file(fileOf(digest), sizeBytes, told(open(), onBytes))) ? 'written' : 'already there';
  }

  async manifest({ bytes, digest }: ManifestDocument, isLast: boolean): Promise<void> {
    const name = isLast ? 'manifest.json' : `${digest.slice(digest.indexOf(':') + 1)}.manifest.json`;
    await this.#files.file(name, bytes.length, [bytes]);
  }

  async end(): Promise<void> {
    await this.#files.file('version', VERSION.length, [VERSION]);
  }

  async abort(): Promise<void> {}
}

const fileOf = (digest: string): string => digest.replace(/^sha256:/, '').replace(':', '-');
