/**
 * From a layer's blob to its tar. What the first bytes say counts, not the media type: Docker, containerd and podman
 * all sniff, and images with the wrong media type exist.
 *
 * gzip blobs may be several members one after another (RFC 1952 section 2.2; eStargz), zstd blobs several frames,
 * skippable ones among them (RFC 8878 section 3.1; zstd:chunked).
 */
import assert from 'node:assert';
import { createHash, type Hash } from 'node:crypto';
import { constants, createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';
import { PgError, isPgError } from '../../mdm/error.ts';
import { digestMismatch, splitDigest } from './digest.ts';
import { FRAME_HEAD_BYTES, USUAL_WINDOW_LOG, WIDEST_WINDOW_LOG, windowBytes } from './zstd-frame.ts';
import { limited, UNPACK_LIMIT, type UnpackLimit } from './unpack-limit.ts';
import type { ImageSource, LayerBlob } from './source.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

/** Bytes per piece of unpacked output. */
const OUTPUT_BYTES = 512 * 1024;
const MAGIC_BYTES = 10;
/** Others that docker unpacks, or that people try (their first bytes, in hex). */
const OTHERS: readonly (readonly [name: string, magic: RegExp])[] = [
  ['xz', /^fd377a585a00/],
  ['bzip2', /^425a683.314159265359/],
  ['lz4', /^04224d18/],
  ['lzip', /^4c5a495001/],
];

export interface LayerTarOptions {
  signal?: AbortSignal;
  /** Told of every piece of the stored blob as it is taken: drives a bar of `layer.sizeBytes`. */
  onBlobBytes?: (bytes: number) => void;
  /** Waited for before a zstd frame is read whose window is wider than usual (32 MiB): that few are at a time. */
  turn?: () => Promise<void>;
  /** How far it may unpack. Default UNPACK_LIMIT. */
  limit?: UnpackLimit;
}

/** A layer being read: `bytes` once, from front to back. */
export interface LayerTar {
  /**
   * The uncompressed tar. Ends with an error unless blob and tar both hash to what the manifest and config promised.
   */
  bytes: AsyncIterable<Uint8Array>;
  /** How the blob was compressed; known once the first piece of `bytes` has come. */
  compression: Compression | null;
}

/**
 * Opens a layer's tar: blob verified (digest, size), decompressed by its first bytes, verified again (DiffID, code
 * DIGEST_MISMATCH). A blob that does not unpack is BLOB_DAMAGED, one that unpacks too far UNPACKS_TOO_FAR. Stop reading
 * and all is closed.
 */
export function openLayerTar(
  source: Pick<ImageSource, 'openBlob' | 'describe'>,
  layer: LayerBlob,
  options: LayerTarOptions = {},
): LayerTar {
  const tar: LayerTar = { bytes: layerBytes(), compression: null };
  async function* layerBytes(): AsyncGenerator<Uint8Array> {
    const stop = new AbortController();
    const signal = options.signal === undefined ? stop.signal : AbortSignal.any([stop.signal, options.signal]);
    const what = `layer ${layer.index + 1} (${layer.digest ?? layer.diffId}) of ${source.describe()}`;
    try {
      const blob = counted(source.openBlob(layer, signal), options.onBlobBytes);
      const whole = decompressed(blob, what, (compression) => (tar.compression = compression), options.turn);
      const unpacked = limited(whole, () => layer.sizeBytes, options.limit ?? UNPACK_LIMIT, what);
      let hash: Hash | null = null;
      const { algorithm } = splitDigest(layer.diffId, what);
      for await (const chunk of unpacked) {
        // An uncompressed blob whose digest is the DiffID is hashed on its way out of the source already.
        if (tar.compression !== 'none' || layer.digest !== layer.diffId) {
          hash ??= createHash(algorithm);
          hash.update(chunk);
        }
        yield chunk;
      }
      if (tar.compression === 'none' && layer.digest === layer.diffId) return;
      const actual = `${algorithm}:${(hash ?? createHash(algorithm)).digest('hex')}`;
      if (actual !== layer.diffId) throw digestMismatch(`the uncompressed tar of ${what}`, layer.diffId, actual);
    } finally {
      stop.abort();
    }
  }
  return tar;
}

/** What the first bytes of a blob say (RFC 1952 section 2.3.1, RFC 8878 section 3.1). */
export function detectCompression(head: Uint8Array): Compression {
  const [a, b, c, d] = head;
  if (a === 0x1f && b === 0x8b) return 'gzip';
  if (a === 0x28 && b === 0xb5 && c === 0x2f && d === 0xfd) return 'zstd';
  // A skippable frame comes first in some seekable files.
  if (a !== undefined && (a & 0xf0) === 0x50 && b === 0x2a && c === 0x4d && d === 0x18) return 'zstd';
  return 'none';
}

/**
 * Unpacks `blob` by its first bytes, telling `onDetected` before the first piece; uncompressed bytes pass through as
 * they are. All of `blob` is read, also what follows the compressed data, so that whoever verifies it sees the whole.
 * Throws BLOB_DAMAGED.
 */
export async function* decompressed(
  blob: AsyncIterable<Uint8Array>,
  what: string,
  onDetected?: (compression: Compression) => void,
  turn?: () => Promise<void>,
): AsyncGenerator<Uint8Array> {
  const iterator = blob[Symbol.asyncIterator]();
  try {
    const head = await takeHead(iterator);
    const compression = detectCompression(head);
    if (compression === 'none') refuseOthers(head, what);
    onDetected?.(compression);
    const whole = prepended(head, iterator);
    if (compression === 'none') yield* whole;
    else yield* unpack(whole, compression, what, turn);
  } finally {
    // Not awaited: it waits for a read under way, which may be a stalled network; the signal of the owner ends that.
    iterator.return?.().catch(() => undefined);
  }
}

function refuseOthers(head: Uint8Array, what: string): void {
  const hex = Buffer.from(head).toString('hex');
  const other = OTHERS.find(([, magic]) => magic.test(hex));
  if (other === undefined) return;
  throw new PgError('COMPRESSION_UNKNOWN', `${what} is compressed with ${other[0]}, which pg does not unpack`, {
    hint: 'pack the image again: skopeo copy --dest-compress-format gzip ...',
  });
}

async function takeHead(iterator: AsyncIterator<Uint8Array>): Promise<Uint8Array> {
  let head: Uint8Array = new Uint8Array(0);
  while (head.length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done) break;
    head = head.length === 0 ? next.value : Buffer.concat([head, next.value]);
  }
  return head;
}

async function* prepended(head: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (head.length > 0) yield head;
  for (let next = await rest.next(); !next.done; next = await rest.next()) yield next.value;
}

async function* counted(
  chunks: AsyncIterable<Uint8Array>,
  onBytes: ((bytes: number) => void) | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    onBytes?.(chunk.length);
    yield chunk;
  }
}

/**
 * node:zlib's gunzip goes on to the next member by itself; its zstd stops for good at the end of a frame when more
 * follows in the same write, so what follows gets another engine.
 */
async function* unpack(
  packed: AsyncGenerator<Uint8Array>,
  compression: 'gzip' | 'zstd',
  what: string,
  turn: (() => Promise<void>) | undefined,
): AsyncGenerator<Uint8Array> {
  const pieces = new Pieces(packed);
  for (let more = true; more;) {
    const engine: Engine =
      compression === 'gzip' ? createGunzip({ chunkSize: OUTPUT_BYTES }) : await zstdEngine(pieces, turn);
    // Errors come back through `written`; one after the last piece was read has no other listener.
    engine.on('error', () => undefined);
    const feeding = feed(engine, pieces, compression === 'zstd').catch((error: unknown) => {
      engine.destroy(error as Error);
      throw error;
    });
    feeding.catch(() => undefined);
    try {
      for await (const chunk of engine) {
        yield chunk as Uint8Array;
        letGo(chunk as Uint8Array<ArrayBuffer>);
      }
      more = await feeding;
    } catch (error) {
      throw isPgError(error) || !isZlibError(error) ? error : damaged(what, compression, error);
    } finally {
      engine.destroy();
    }
  }
}

/**
 * Gives memory back at once, that the collector would find late and at a price: half the processor time of an import went into looking for it. node:zlib fills one buffer after the other and
 * hands out views of it; with the last view it has done with the buffer.
 */
function letGo({ buffer, byteOffset, byteLength }: Uint8Array<ArrayBuffer>): void {
  if (byteOffset + byteLength === buffer.byteLength) buffer.transfer(0);
}

/** An engine for the frame that comes next, and for those after it in the same pieces if they want no wider window. */
async function zstdEngine(pieces: Pieces, turn: (() => Promise<void>) | undefined): Promise<ZstdDecompress> {
  const isWide = (windowBytes(await pieces.head(FRAME_HEAD_BYTES)) ?? 0) > 2 ** USUAL_WINDOW_LOG;
  if (isWide) await turn?.();
  const windowLog = isWide ? WIDEST_WINDOW_LOG : USUAL_WINDOW_LOG;
  return createZstdDecompress({ chunkSize: OUTPUT_BYTES, params: { [constants.ZSTD_d_windowLogMax]: windowLog } });
}

type Engine = Gunzip | ZstdDecompress;

/**
 * Pushes pieces through `engine` to their end (false) or to the end of a zstd frame within a piece (true: there is more
 * to unpack).
 */
async function feed(engine: Engine, pieces: Pieces, isZstd: boolean): Promise<boolean> {
  for (let piece = await pieces.next(); piece !== null; piece = await pieces.next()) {
    if (piece.length === 0) continue;
    const before = engine.bytesWritten;
    await written(engine, piece);
    const taken = engine.bytesWritten - before;
    if (isZstd && taken < piece.length) {
      assert(taken > 0, 'zstd took nothing and did not complain');
      pieces.putBack(piece.subarray(taken));
      engine.end();
      return true;
    }
  }
  engine.end();
  return false;
}

/** Pieces in order, the next one asked for while the engine still works on this one. */
class Pieces {
  readonly #iterator: AsyncIterator<Uint8Array>;
  #ahead: Promise<IteratorResult<Uint8Array>>;
  #rest: Uint8Array | null = null;

  constructor(iterator: AsyncIterator<Uint8Array>) {
    this.#iterator = iterator;
    this.#ahead = this.#ask();
  }

  async next(): Promise<Uint8Array | null> {
    const rest = this.#rest;
    this.#rest = null;
    if (rest !== null) return rest;
    const next = await this.#ahead;
    if (next.done) return null;
    this.#ahead = this.#ask();
    return next.value;
  }

  /** The first bytes of what comes next, fewer at the end; they are not taken. */
  async head(bytes: number): Promise<Uint8Array> {
    let head: Uint8Array = new Uint8Array(0);
    for (let piece = await this.next(); piece !== null; piece = await this.next()) {
      head = head.length === 0 ? piece : Buffer.concat([head, piece]);
      if (head.length >= bytes) break;
    }
    if (head.length > 0) this.putBack(head);
    return head.subarray(0, bytes);
  }

  putBack(rest: Uint8Array): void {
    this.#rest = rest;
  }

  #ask(): Promise<IteratorResult<Uint8Array>> {
    const asked = this.#iterator.next();
    // Looked at when its turn comes; until then a failure is not "unhandled".
    asked.catch(() => undefined);
    return asked;
  }
}

/** A write whose engine fails or is destroyed meanwhile never calls back; the engine's `close` always comes. */
function written(engine: Engine, piece: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    const onClose = (): void => reject(engine.errored ?? new Error('the reader has gone'));
    engine.once('close', onClose);
    engine.write(piece, (error) => {
      engine.off('close', onClose);
      if (error) reject(error);
      else resolve();
    });
  });
}

function isZlibError(error: unknown): error is Error & { code: string } {
  return error instanceof Error && /^(Z_|ZSTD_)/.test(String((error as NodeJS.ErrnoException).code));
}

function damaged(what: string, compression: string, error: Error & { code: string }): PgError {
  const why = error.code === 'Z_BUF_ERROR' ? 'the compressed data ends too early' : error.message;
  return new PgError('BLOB_DAMAGED', `${what} does not unpack as ${compression}: ${why}`, {
    hint: 'nothing of it was used; fetch or copy the image again',
    cause: error,
  });
}
