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
const COPY_BYTES = 1 << 20;

/** A content in the recipe that may not have its name yet. */
interface Slot {
  promise: Promise<ContentRef>;
  ref: ContentRef | undefined;
  runs: Run[] | undefined;
}

/** Takes down the recipe of one tar while it is read. Holds at most a piece, and what waits for contents to be hashed. */
export class RecipeWriter {
  readonly #writer: ContentWriter;
  #piece = Buffer.allocUnsafe(PIECE_BYTES);
  #used = 0;
  /** What cannot be written down yet, because a content before it has no name so far. */
  #waiting: (Buffer | Slot)[] = [];
  #waitingFrom = 0;
  readonly #parts: Promise<ContentRef>[] = [];
  #compressing: Promise<void> = Promise.resolve();

  constructor(writer: ContentWriter) {
    this.#writer = writer;
    this.#append(MAGIC);
  }

  /** Bytes of the tar as they are (copied). */
  raw(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const record = Buffer.concat([varint(RAW), varint(bytes.length), bytes]);
    if (this.#waitingFrom === this.#waiting.length) this.#append(record);
    else this.#waiting.push(record);
  }

  /** Here stands a content, whole or (of a sparse file) these runs of it. */
  content(ref: Promise<ContentRef>, runs: Run[] | undefined): void {
    const slot: Slot = { promise: ref, ref: undefined, runs };
    this.#waiting.push(slot);
    ref.then(
      (known) => {
        slot.ref = known;
        this.#drain();
      },
      () => undefined, // whoever finishes the writer is told
    );
  }

  /** Resolves when what was compressed so far has been taken by the store: wait for it now and then. */
  async settle(): Promise<void> {
    await this.#compressing;
  }

  /** Ends the recipe and gives the rest of it to the store. Waits for all contents' names: flush the writer before. */
  async finish(): Promise<void> {
    for (const next of this.#waiting.slice(this.#waitingFrom))
      if (!Buffer.isBuffer(next)) next.ref ??= await next.promise;
    this.#drain();
    assert.equal(this.#waitingFrom, this.#waiting.length, 'every content of the tar has its name');
    this.#flushPiece();
    await this.#compressing;
  }

  /** The recipe's pieces, after `finish` and another flush of the writer. */
  async pieces(): Promise<ContentRef[]> {
    return await Promise.all(this.#parts);
  }

  #drain(): void {
    while (this.#waitingFrom < this.#waiting.length) {
      const next = this.#waiting[this.#waitingFrom]!;
      if (Buffer.isBuffer(next)) this.#append(next);
      else if (next.ref === undefined) break;
      else this.#append(contentRecord(next.ref, next.runs));
      this.#waitingFrom++;
    }
    if (this.#waitingFrom > 4096 || this.#waitingFrom === this.#waiting.length) {
      this.#waiting = this.#waiting.slice(this.#waitingFrom);
      this.#waitingFrom = 0;
    }
  }

  #append(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const part = Math.min(bytes.length - at, PIECE_BYTES - this.#used);
      bytes.copy(this.#piece, this.#used, at, at + part);
      at += part;
      this.#used += part;
      if (this.#used === PIECE_BYTES) this.#flushPiece();
    }
  }

  #flushPiece(): void {
    if (this.#used === 0) return;
    const piece = this.#piece.subarray(0, this.#used);
    this.#piece = Buffer.allocUnsafe(PIECE_BYTES);
    this.#used = 0;
    this.#compressing = this.#compressing.then(async () => {
      const packed = await compress(piece);
      this.#parts.push((await this.#writer.put(packed.length, [packed])).ref);
    });
    this.#compressing.catch(() => undefined);
  }
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80);
    rest = Math.floor(rest / 0x80);
  }
  bytes.push(rest);
  return Buffer.from(bytes);
}

function contentRecord(ref: ContentRef, runs: Run[] | undefined): Buffer {
  if (runs === undefined) return Buffer.concat([varint(WHOLE), ref.root, varint(ref.size)]);
  const map = runs.flatMap((run) => [varint(run.offset), varint(run.length)]);
  return Buffer.concat([varint(RUNS), ref.root, varint(ref.size), varint(runs.length), ...map]);
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
      const byte = this.take(1)[0]!;
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
