import { PgError } from '../mdm/error.ts';
import type { Store } from '../store/store.ts';
import { type ImageRecord, loadImage, removeImage } from './images.ts';
import { bringImage, checkedName, describeSource, type ImportCounts, type ImportOptions, NO_COUNTS } from './import.ts';
import { isPinned } from './pins.ts';
import { digestName, type IndexPart, putIndex } from './indexes.ts';
import { openSource } from './transport/open.ts';
import { hostPlatform, platformFitness } from './transport/platform.ts';
import type { ImageSource, LayerBlob } from './transport/source.ts';

/** Attestations are some kB; more than this beside images is refused. */
const OTHER_BYTES_MAX = 64 * 1024 * 1024;

/** An index that is in the store now. */
export interface ImportedIndex {
  /** Digest of the index. */
  digest: string;
  name: string;
  took: string;
  /** In its order. */
  images: ImageRecord[];
  counts: ImportCounts;
}

/**
 * Brings all images that an index lists, and the index. The name is the image's that fits this machine best (else the first's); each is
 * also called `repository@digest`. All come, or none: images are brought one after another, and those that this call brought go again when a later one fails (what they are made of stays
 * until the store collects it: to try again costs little).
 * What is no image (an attestation) is kept as it came. PgError `NOT_AN_INDEX`, `NAME_NEEDED`, and as importImage.
 */
export async function importIndex(store: Store, text: string, options: ImportOptions): Promise<ImportedIndex> {
  const { from, progress, signal } = options;
  const source = await openSource(text, {
    ...(from === undefined ? {} : { from }),
    ...(progress === undefined ? {} : { progress }),
    ...(signal === undefined ? {} : { signal }),
  });
  try {
    return await importIndexFrom(store, source, options);
  } finally {
    await source.close();
  }
}

async function importIndexFrom(store: Store, source: ImageSource, options: ImportOptions): Promise<ImportedIndex> {
  if (source.index === undefined) {
    throw new PgError('NOT_AN_INDEX', `${source.describe()} is one image, not one for each of several platforms`, {
      hint: 'leave --all-platforms out',
    });
  }
  const index = await source.index();
  const name = options.name === undefined ? index.names[0] : checkedName(options.name);
  if (name === undefined || name.includes('@')) {
    throw new PgError('NAME_NEEDED', `${source.describe()} does not say what its images are called`, {
      hint: 'say a name: pg import --all-platforms SOURCE NAME',
    });
  }
  const images: ImageRecord[] = [];
  const parts: IndexPart[] = [];
  const counts = { ...NO_COUNTS };
  const undo: (() => void)[] = [];
  const writer = store.writer('import of an index');
  try {
    for (const part of index.parts) {
      if (part.kind === 'other') {
        parts.push({
          kind: 'other',
          document: part.document,
          blobs: await keepBlobs(writer, source, part.blobs, options.signal),
        });
        continue;
      }
      const document = part.image.manifest!;
      const ownName = digestName(name, document.digest);
      const wasNamed = store.table('names').has(ownName);
      const brought = await bringImage(store, source, part.image, [ownName], options);
      if (!wasNamed) undo.push(() => forget(store, brought.image.id, ownName, brought.alreadyPresent));
      for (const key of Object.keys(counts) as (keyof ImportCounts)[]) counts[key] += brought.counts[key];
      images.push(brought.image);
      parts.push({ kind: 'image', document, image: brought.image.id });
    }
    const own = bestOf(images, source);
    await writer.finish(() => {
      putIndex(store, name, { document: index.document, parts });
      store.table('names').put(name, Buffer.from(own.id));
    });
  } catch (error) {
    await writer.abort();
    for (const step of undo) step();
    throw error;
  }
  return { digest: index.document.digest, name, took: describeSource(source), images, counts };
}

/** Takes the name away that an image got, and the image, if it was not there before and has got no other name meanwhile. */
function forget(store: Store, id: string, name: string, wasHere: boolean): void {
  store.transaction(() => {
    if (store.table('names').get(name)?.toString() !== id) return;
    const image = loadImage(store, id);
    const isOnlyName = image !== undefined && image.names.length + image.digests.length === 1;
    if (wasHere || !isOnlyName || isPinned(store, id)) store.table('names').remove(name);
    else removeImage(store, name, () => []);
  });
}

async function keepBlobs(
  writer: ReturnType<Store['writer']>,
  source: ImageSource,
  blobs: readonly LayerBlob[],
  signal: AbortSignal | undefined,
): Promise<Extract<IndexPart, { kind: 'other' }>['blobs']> {
  if (blobs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0) > OTHER_BYTES_MAX) {
    throw new PgError('NOT_AN_IMAGE', `${source.describe()} has more than ${OTHER_BYTES_MAX} bytes beside its images`, {
      hint: 'import one platform: --platform OS/ARCH',
    });
  }
  const sinks = [];
  for (const blob of blobs) sinks.push(await writer.put(blob.sizeBytes, source.openBlob(blob, signal)));
  await writer.flush();
  return await Promise.all(
    sinks.map(async ({ ref }, i) => ({ digest: blobs[i]!.digest!, mediaType: blobs[i]!.mediaType, ref: await ref })),
  );
}

/** The image that fits this machine best, else the first. */
function bestOf(images: readonly ImageRecord[], source: ImageSource): ImageRecord {
  const host = hostPlatform();
  const fitness = ({ config }: ImageRecord): number => platformFitness(host, config);
  const [first, ...others] = images;
  if (first === undefined) throw new PgError('IMAGE_NOT_FOUND', `${source.describe()} lists no images`);
  return others.reduce((best, image) => (fitness(image) > fitness(best) ? image : best), first);
}
