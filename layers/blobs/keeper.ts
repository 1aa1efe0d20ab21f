import type { ContentSink, ContentWriter } from '../../store/writer.ts';
import { detectCompression } from '../transport/decompress.ts';
import type { LayerBlob } from '../transport/source.ts';
import { PROBE_TAR_BYTES, recognise } from './probe.ts';
import type { BlobRecord, Packing } from './record.ts';

/**
 * What an import does so that compressed blobs can come out again bit for bit (docs/decisions/0075-blobs-again.md): nothing; notice how
 * they can be packed again; or also keep those of which that is not known.
 */
export type KeepBlobs = 'none' | 'rebuild' | 'keep';

/** While no decision is made the beginning of a blob is held in memory: a tar's first 2 MiB are never more than this, packed. */
const HELD_BYTES_MAX = 8 * 1024 * 1024;

/** Watches one layer's blob and tar as they pass by, and sees to it that the blob can be had again. */
export class BlobKeeper {
  readonly #writer: ContentWriter;
  readonly #policy: KeepBlobs;
  readonly #layer: LayerBlob;
  #state: 'undecided' | 'kept' | 'let go' = 'undecided';
  #packing: Packing | undefined;
  #sink: ContentSink | undefined;
  #blob: Buffer[] = [];
  #blobBytes = 0;
  #tar: Buffer[] = [];
  #tarBytes = 0;

  constructor(writer: ContentWriter, policy: KeepBlobs, layer: LayerBlob) {
    this.#writer = writer;
    this.#policy = policy;
    this.#layer = layer;
    // What is its own tar needs nothing; without a digest nobody can ask for it.
    if (policy === 'none' || layer.digest === null || layer.digest === layer.diffId) this.#state = 'let go';
  }

  /** Passes the blob's pieces on. */
  async *blob(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      if (this.#state === 'kept') await this.#sink!.write(piece);
      else if (this.#state === 'undecided') {
        this.#blob.push(Buffer.from(piece));
        this.#blobBytes += piece.length;
        if (detectCompression(this.#blob[0]!) !== 'gzip' || this.#blobBytes > HELD_BYTES_MAX)
          await this.#decide(undefined);
      }
      yield piece;
    }
  }

  /** Passes the tar's pieces on. */
  async *tar(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      if (this.#state === 'undecided') {
        this.#tar.push(Buffer.from(piece));
        this.#tarBytes += piece.length;
        if (this.#tarBytes >= PROBE_TAR_BYTES) await this.#decide(this.#recognised(false));
      }
      yield piece;
    }
    // Both are whole and verified now.
    if (this.#state === 'undecided') await this.#decide(this.#recognised(true));
  }

  /** How the blob can be had again, once its tar has passed and the writer was flushed; undefined when it cannot. */
  async record(): Promise<BlobRecord | undefined> {
    const packing: Packing | undefined =
      this.#sink === undefined ? this.#packing : { kind: 'kept', ref: await this.#sink.ref };
    if (packing === undefined) return undefined;
    const { digest, diffId, sizeBytes } = this.#layer;
    return { digest: digest!, diffId, sizeBytes, packing };
  }

  #recognised(whole: boolean): Packing | undefined {
    return recognise(Buffer.concat(this.#blob), Buffer.concat(this.#tar), whole);
  }

  async #decide(packing: Packing | undefined): Promise<void> {
    const held = this.#blob;
    [this.#blob, this.#tar] = [[], []];
    this.#packing = packing;
    if (packing !== undefined || this.#policy !== 'keep') {
      this.#state = 'let go';
      return;
    }
    this.#state = 'kept';
    this.#sink = this.#writer.addApart(this.#layer.sizeBytes);
    for (const piece of held) await this.#sink.write(piece);
  }
}
