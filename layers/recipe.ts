import assert from 'node:assert/strict';
import { promisify } from 'node:util';
import { zstdCompress, zstdDecompressSync } from 'node:zlib';
import { PgError } from '../mdm/error.ts';
import type { ContentRef } from '../store/content.ts';
import type { Store } from '../store/store.ts';
import type { ContentWriter } from '../store/writer.ts';
import type { TarInput } from './tar.ts';
import type { Run } from './tar-sparse.ts';

/**
 * The recipe of a tar (docs/formats/recipe.md): everything in it that is not a file's data, verbatim, and the names of the contents
 * that go between. It is kept compressed (headers are mostly zeros), in pieces, as contents of the store.
 */
const compress = promisify(zstdCompress);
const MAGIC = Buffer.from('PGr1', 'latin1');
const RAW = 1;
const WHOLE = 2;
const RUNS = 3;
/** Bytes of a piece before it is compressed. */
const PIECE_BYTES = 4 << 20;
const ROOT_BYTES = 32;
/** Pieces of one recipe in memory, those being compressed among them, before whoever writes it has to wait. */
const PIECES_MAX = 4;
const COPY_BYTES = 1 << 20;

/** A piece of the recipe that is being filled, or waits for the names of contents in it. */
interface Piece {
  bytes: Buffer;
  used: number;
  /** Contents in it whose root is not known yet: their place is filled in when it is. */
  unnamed: number;
  full: boolean;
}

/** Takes down the recipe of one tar while it is read. Holds a piece, and those that wait for contents to be hashed. */
export class RecipeWriter {
  readonly #writer: ContentWriter;
  /** In order; the last is being filled. */
  #pieces: Piece[] = [];
  readonly #parts: Promise<ContentRef>[] = [];
  #compressing: Promise<void> = Promise.resolve();
  #queued = 0;
  #wake: (() => void) | undefined;

  constructor(writer: ContentWriter) {
    this.#writer = writer;
    this.#append(MAGIC);
  }

  /** Bytes of the tar as they are: copied when it returns. A promise, when there is one, is to be waited for before more is written. */
  raw(bytes: Uint8Array): Promise<void> | undefined {
    if (bytes.length === 0) return undefined;
    this.#byte(RAW);
    this.#varint(bytes.length);
    this.#append(bytes);
    return this.#pieces.length + this.#queued > PIECES_MAX ? this.#drained() : undefined;
  }

  /** Here stands a content of `size` bytes, whole or (of a sparse file) these runs of it. */
  content(ref: Promise<ContentRef>, size: number, runs: Run[] | undefined): void {
    this.#byte(runs === undefined ? WHOLE : RUNS);
    const piece = this.#room(ROOT_BYTES);
    const at = piece.used;
    piece.used += ROOT_BYTES;
    piece.unnamed++;
    ref.then(
      ({ root }) => {
        piece.bytes.set(root, at);
        piece.unnamed--;
        this.#compressReady();
        this.#wake?.();
      },
      () => this.#wake?.(), // whoever finishes the writer is told
    );
    this.#varint(size);
    if (runs === undefined) return;
    this.#varint(runs.length);
    for (const run of runs) {
      this.#varint(run.offset);
      this.#varint(run.length);
    }
  }

  /** Waits until pieces have gone to the store. The first may lack the name of a small content, which lies in a sector that is not full. */
  async #drained(): Promise<void> {
    while (this.#pieces.length > 1 && this.#pieces[0]!.unnamed > 0) {
      this.#writer.sealPacks();
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
    await this.#compressing;
  }

  /** Ends the recipe and gives the rest of it to the store. All contents must be hashed by now: flush the writer before. */
  async finish(): Promise<void> {
    for (const piece of this.#pieces) piece.full = true;
    this.#compressReady();
    assert.equal(this.#pieces.length, 0, 'every content of the tar has its name');
    await this.#compressing;
  }

  /** The recipe's pieces, after `finish` and another flush of the writer. */
  async pieces(): Promise<ContentRef[]> {
    return await Promise.all(this.#parts);
  }

  #varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.#byte((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.#byte(rest);
  }

  #byte(value: number): void {
    const piece = this.#room(1);
    piece.bytes[piece.used++] = value;
  }

  #append(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      const piece = this.#room(1);
      const part = Math.min(bytes.length - at, PIECE_BYTES - piece.used);
      piece.bytes.set(part === bytes.length ? bytes : bytes.subarray(at, at + part), piece.used);
      piece.used += part;
      at += part;
    }
  }

  /** The piece being filled if it has room for `bytes` more, else the next one. */
  #room(bytes: number): Piece {
    const last = this.#pieces.at(-1);
    if (last !== undefined && !last.full && last.used + bytes <= PIECE_BYTES) return last;
    if (last !== undefined) last.full = true;
    this.#compressReady();
    const next = { bytes: Buffer.allocUnsafe(PIECE_BYTES), used: 0, unnamed: 0, full: false };
    this.#pieces.push(next);
    return next;
  }

  #compressReady(): void {
    while (this.#pieces[0]?.full && this.#pieces[0].unnamed === 0) {
      const { bytes, used } = this.#pieces.shift()!;
      this.#queued++;
      this.#compressing = this.#compressing.then(async () => {
        const packed = await compress(bytes.subarray(0, used));
        this.#parts.push((await this.#writer.put(packed.length, [packed])).ref);
        this.#queued--;
      });
      this.#compressing.catch(() => undefined);
    }
  }
}

/** One step of a recipe. */
export type Step = { kind: 'raw'; bytes: Buffer } | { kind: 'content'; ref: ContentRef; runs: Run[] };

/** The steps of a recipe, in order. PgError `CORRUPT_RECIPE`, and what reading contents throws. */
export function* recipeSteps(store: Store, recipe: readonly ContentRef[]): Generator<Step> {
  const input = new PieceReader(store, recipe);
  if (!input.take(MAGIC.length).equals(MAGIC)) throw corrupt('it does not begin as one, or is of a newer version');
  while (!input.atEnd()) {
    const kind = input.varint();
    if (kind === RAW) yield { kind: 'raw', bytes: input.take(input.varint()) };
    else if (kind === WHOLE || kind === RUNS) {
      const ref = { root: Buffer.from(input.take(ROOT_BYTES)), size: input.varint() };
      const count = kind === WHOLE ? 0 : input.varint();
      const runs = kind === WHOLE ? [{ offset: 0, length: ref.size }] : [];
      for (let i = 0; i < count; i++) runs.push({ offset: input.varint(), length: input.varint() });
      yield { kind: 'content', ref, runs };
    } else throw corrupt(`it has a step of kind ${kind}`);
  }
}

class PieceReader {
  readonly #store: Store;
  readonly #pieces: readonly ContentRef[];
  #next = 0;
  #piece = Buffer.alloc(0);
  #at = 0;

  constructor(store: Store, pieces: readonly ContentRef[]) {
    this.#store = store;
    this.#pieces = pieces;
  }

  atEnd(): boolean {
    return this.#at === this.#piece.length && !this.#refill();
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; scale < Number.MAX_SAFE_INTEGER; scale *= 0x80) {
      if (this.atEnd()) throw corrupt('it ends in the middle of a step');
      const byte = this.#piece[this.#at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
    throw corrupt('it has a number of more than 53 bits');
  }

  take(bytes: number): Buffer {
    if (this.#piece.length - this.#at >= bytes) {
      this.#at += bytes;
      return this.#piece.subarray(this.#at - bytes, this.#at);
    }
    const parts: Buffer[] = [];
    for (let missing = bytes; missing > 0;) {
      if (this.#at === this.#piece.length && !this.#refill()) throw corrupt('it ends in the middle of a step');
      const part = this.#piece.subarray(this.#at, this.#at + missing);
      this.#at += part.length;
      missing -= part.length;
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  #refill(): boolean {
    const ref = this.#pieces[this.#next++];
    if (ref === undefined) return false;
    const packed = Buffer.allocUnsafe(ref.size);
    if (this.#store.openContent(ref).readAt(packed, 0) !== ref.size) throw corrupt('a piece of it is short');
    this.#piece = zstdDecompressSync(packed, { maxOutputLength: PIECE_BYTES });
    this.#at = 0;
    return this.#piece.length > 0;
  }
}

/** The tar of a recipe, bit for bit, in pieces of at most 1 MiB. A piece is valid until the next is asked for. */
export function* recipeTar(store: Store, recipe: readonly ContentRef[]): Generator<Buffer> {
  const buffer = Buffer.allocUnsafe(COPY_BYTES);
  let used = 0;
  for (const step of recipeSteps(store, recipe)) {
    if (step.kind === 'raw') {
      for (let at = 0; at < step.bytes.length;) {
        const part = step.bytes.copy(buffer, used, at);
        at += part;
        used += part;
        if (used === COPY_BYTES) yield buffer;
        if (used === COPY_BYTES) used = 0;
      }
      continue;
    }
    const content = store.openContent(step.ref);
    for (const run of step.runs) {
      for (let done = 0; done < run.length;) {
        const length = Math.min(run.length - done, COPY_BYTES - used);
        // A copy of its own range: readAt may overwrite what follows the count.
        if (content.readAt(buffer.subarray(used, used + length), run.offset + done) !== length)
          throw corrupt('a content of it is short');
        done += length;
        used += length;
        if (used === COPY_BYTES) yield buffer;
        if (used === COPY_BYTES) used = 0;
      }
    }
  }
  if (used > 0) yield buffer.subarray(0, used);
}

/** A tar to be read again from its recipe: the headers come as bytes, the data as names of contents. */
export class RecipeInput implements TarInput {
  offset = 0;
  readonly #steps: Generator<Step>;
  #raw: Buffer = Buffer.alloc(0);
  #content: ContentRef | undefined;

  constructor(store: Store, recipe: readonly ContentRef[]) {
    this.#steps = recipeSteps(store, recipe);
  }

  async take(bytes: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let missing = bytes; missing > 0;) {
      if (this.#raw.length === 0 && !this.#refill()) break;
      const part = this.#raw.subarray(0, missing);
      this.#raw = this.#raw.subarray(part.length);
      missing -= part.length;
      parts.push(part);
    }
    const taken = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
    this.offset += taken.length;
    return taken;
  }

  /** The content whose data, `bytes` of the tar, comes next. */
  content(bytes: number): ContentRef {
    if (this.#raw.length > 0 || this.#refill()) throw corrupt('there are headers where data should be');
    const ref = this.#content;
    if (ref === undefined) throw corrupt('it ends where data should be');
    this.#content = undefined;
    this.offset += bytes;
    return ref;
  }

  /** The next raw bytes; false at a content or at the end. */
  #refill(): boolean {
    if (this.#content !== undefined) return false;
    const next = this.#steps.next();
    if (next.done === true) return false;
    if (next.value.kind === 'raw') this.#raw = next.value.bytes;
    else this.#content = next.value.ref;
    return next.value.kind === 'raw';
  }
}

function corrupt(what: string): PgError {
  return new PgError('CORRUPT_RECIPE', `recipe of a layer: ${what}`, {
    hint: 'remove the image and import it again, or run: pg verify',
  });
}
