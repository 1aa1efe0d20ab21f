import { isPgError, PgError } from '../mdm/error.ts';
import type { ContentRef } from '../store/content.ts';
import type { Store } from '../store/store.ts';
import type { ContentSink, ContentWriter } from '../store/writer.ts';
import { LayerApplier } from './apply.ts';
import type { LayerRecord } from './images.ts';
import type { MergedTree } from './merge.ts';
import { RecipeInput, RecipeWriter } from './recipe.ts';
import { StreamInput } from './tar-input.ts';
import type { SparseMap } from './tar-sparse.ts';
import { type TarEntry, TarReader } from './tar.ts';

/** Bytes of memory for entries of a layer that is ahead of those below it, kept until it is its turn; then its stream waits. */
const AHEAD_BYTES_MAX = 32 << 20;
/** What an entry takes beside its strings and attributes. */
const ENTRY_BYTES = 400;
/** No file of an image is larger (4 TiB), and no layer's files together are (8 TiB); a sparse map may claim anything. */
const FILE_BYTES_MAX = 2 ** 42;
const LAYER_BYTES_MAX = 2 ** 43;
/** How far a layer that went wrong is read on, to find out whether its blob is damaged. */
const DRAIN_BYTES_MAX = 4 * 2 ** 30;

/** Lays layers over one another in their order, although they are read at the same time. */
export class LayerStack {
  readonly tree: MergedTree;
  /** Files of the tree whose contents are not hashed yet. */
  unnamed = 0;
  #turn = 0;
  readonly #waiting = new Map<number, { go: () => void; fail: (error: unknown) => void }>();
  #failed = false;

  constructor(tree: MergedTree) {
    this.tree = tree;
  }

  /** Resolves when all layers below this one are applied; rejects when one of them failed. */
  async turn(layer: number): Promise<void> {
    if (this.#failed) throw givenUp();
    if (this.#turn !== layer) await new Promise<void>((go, fail) => this.#waiting.set(layer, { go, fail }));
  }

  /** The file's content is being hashed. */
  nameLater(row: number, content: Promise<ContentRef>): void {
    this.unnamed++;
    content.then(
      (ref) => {
        this.tree.setRoot(row, ref.root);
        this.unnamed--;
      },
      () => undefined, // the writer's finish throws what went wrong
    );
  }

  isTurn(layer: number): boolean {
    return this.#turn === layer;
  }

  /** This layer is applied wholly: the next may go on. */
  done(): void {
    this.#turn++;
    this.#waiting.get(this.#turn)?.go();
  }

  /** A layer cannot be applied: those above it need not wait for it. */
  fail(): void {
    this.#failed = true;
    for (const { fail } of this.#waiting.values()) fail(givenUp());
  }
}

function givenUp(): PgError {
  return new PgError('ABORTED', 'a layer below this one could not be applied');
}

/** Applies entries as they come, or keeps them until the layers below are applied. */
class InOrder {
  readonly #stack: LayerStack;
  readonly #layer: number;
  readonly #applier: LayerApplier;
  #aheadBytes = 0;
  #ahead: { entry: TarEntry; content: Promise<ContentRef> | ContentRef | undefined }[] = [];

  constructor(stack: LayerStack, layer: number) {
    this.#stack = stack;
    this.#layer = layer;
    this.#applier = new LayerApplier(stack.tree, layer);
  }

  async take(entry: TarEntry, content: Promise<ContentRef> | ContentRef | undefined): Promise<void> {
    if (!this.#stack.isTurn(this.#layer)) {
      this.#ahead.push({ entry: { ...entry, sparse: undefined }, content });
      this.#aheadBytes += entryBytes(entry);
      if (this.#aheadBytes < AHEAD_BYTES_MAX) return;
      await this.#stack.turn(this.#layer);
      this.#catchUp();
      return;
    }
    this.#catchUp();
    this.#apply(entry, content);
  }

  async end(): Promise<void> {
    await this.#stack.turn(this.#layer);
    this.#catchUp();
    this.#stack.done();
  }

  #catchUp(): void {
    const ahead = this.#ahead;
    this.#ahead = [];
    this.#aheadBytes = 0;
    for (const { entry, content } of ahead) this.#apply(entry, content);
  }

  #apply(entry: TarEntry, content: Promise<ContentRef> | ContentRef | undefined): void {
    const row = this.#applier.apply(entry);
    if (row === undefined || content === undefined) return;
    if (!(content instanceof Promise)) this.#stack.tree.setRoot(row, content.root);
    else this.#stack.nameLater(row, content);
  }
}

function entryBytes({ name, linkName, xattrs }: TarEntry): number {
  const attributes = [...(xattrs ?? [])].reduce((sum, [key, value]) => sum + key.length + value.length + 100, 0);
  return ENTRY_BYTES + name.length + linkName.length + attributes;
}

/** A layer that has been read. Its recipe can be finished once all contents have their names, and its record made from that. */
export interface Ingested extends Omit<LayerRecord, 'recipe'> {
  recipe: RecipeWriter;
}

/**
 * Reads a layer's tar: contents to the store, headers to the recipe, entries to the stack. `tar` verifies itself: where it ends
 * without an error it was the right one. PgError of the tar reader, of applying, or of the stream; `what` names the layer in them.
 */
export async function ingestLayer(
  writer: ContentWriter,
  stack: LayerStack,
  layer: number,
  diffId: string,
  tar: AsyncIterable<Uint8Array>,
  what: string,
): Promise<Ingested> {
  const input = new StreamInput(tar);
  try {
    const recipe = new RecipeWriter(writer);
    const reader = new TarReader(input, (raw) => recipe.raw(raw));
    const order = new InOrder(stack, layer);
    let entries = 0;
    let contentBytes = 0;
    for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
      let content: Promise<ContentRef> | undefined;
      if (entry.size > 0) {
        // Not awaited: small contents get their names when others have filled a sector.
        content = (await copyContent(writer, input, entry)).ref;
        if (entry.bodyBytes > 0) recipe.content(content, entry.size, entry.sparse?.runs);
      }
      await order.take(entry, content);
      contentBytes += entry.size;
      if (contentBytes > LAYER_BYTES_MAX) throw tooMuch(entry, 'the files up to here together', '8 TiB');
      entries++;
    }
    await order.end();
    return { diffId, recipe, tarBytes: input.offset, contentBytes, entries };
  } catch (error) {
    throw await diagnosed(error, input, what);
  } finally {
    await input.close();
  }
}

async function copyContent(writer: ContentWriter, input: StreamInput, entry: TarEntry): Promise<ContentSink> {
  if (entry.size > FILE_BYTES_MAX) throw tooMuch(entry, `a file of ${entry.size} bytes`, '4 TiB');
  const sink = writer.add(entry.size);
  sink.ref.catch(() => undefined); // an abort rejects what nobody waits for any more
  if (entry.sparse === undefined) await input.copy(entry.bodyBytes, (piece) => sink.write(piece));
  else await copySparse(input, sink, entry.sparse);
  return sink;
}

function tooMuch(entry: TarEntry, what: string, most: string): PgError {
  return new PgError('TAR_BAD_HEADER', `tar header at byte ${entry.offset}: ${what} (at most ${most} can be)`, {
    hint: 'the archive claims more than it can hold: do not trust where it comes from',
  });
}

async function copyHole(writer: ContentWriter, size: number): Promise<ContentSink> {
  const sink = writer.add(size);
  await sink.writeZeros(size);
  return sink;
}

async function copySparse(input: StreamInput, sink: ContentSink, map: SparseMap): Promise<void> {
  let at = 0;
  for (const run of [...map.runs, { offset: map.realSize, length: 0 }]) {
    await sink.writeZeros(run.offset - at);
    await input.copy(run.length, (piece) => sink.write(piece));
    at = run.offset + run.length;
  }
}

/**
 * The error to show for a layer that went wrong: when the rest of the stream shows that the blob is not what the manifest promised,
 * that; else the error itself, saying in which layer.
 */
async function diagnosed(error: unknown, input: StreamInput, what: string): Promise<unknown> {
  if (!isPgError(error) || !/^(TAR_|HOSTILE_|HARDLINK_)/.test(error.code)) return error;
  try {
    const end = input.offset + DRAIN_BYTES_MAX;
    while (input.offset < end && (await input.take(1 << 20)).length > 0);
  } catch (damage) {
    if (isPgError(damage)) return damage;
  }
  const hint = error.hint === undefined ? {} : { hint: error.hint };
  return new PgError(error.code, `${what}: ${error.message}`, { ...hint, cause: error });
}

/**
 * Applies a layer that is in the store already, from its recipe: nothing of its blob is read. Files that are nothing but a hole are not in the
 * recipe; `writer` makes their contents again.
 */
export async function replayLayer(
  store: Store,
  writer: ContentWriter,
  stack: LayerStack,
  layer: number,
  record: LayerRecord,
): Promise<void> {
  await stack.turn(layer);
  const input = new RecipeInput(store, record.recipe);
  const reader = new TarReader(input, () => undefined);
  const applier = new LayerApplier(stack.tree, layer);
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const content = entry.bodyBytes > 0 ? input.content(entry.bodyBytes) : undefined;
    const row = applier.apply(entry);
    if (row === undefined) continue;
    if (content !== undefined) stack.tree.setRoot(row, content.root);
    else stack.nameLater(row, (await copyHole(writer, entry.size)).ref);
  }
  stack.done();
}
