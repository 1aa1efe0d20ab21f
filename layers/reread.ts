import { bufferRoot, rootOfRoots, SECTOR_BYTES } from '../mdm/merkle.ts';
import { contentKey, contentOfKey } from '../store/content.ts';
import type { SectorMender } from '../store/mend.ts';
import type { ProgressSink } from './progress.ts';
import { StreamInput } from './tar-input.ts';
import { TarReader } from './tar.ts';
import { openLayerTar } from './transport/decompress.ts';
import type { ImageSource } from './transport/source.ts';

/**
 * Reads the layers of the image that `source` has again, and gives `mender` every file, or piece of 4 MiB of one, that it lacks. Nothing is taken on trust: roots are
 * compared. Sparse files are passed over. Ends as soon as nothing is missing. PgError of the source, and of a tar that is none.
 */
export async function rereadLayers(
  source: ImageSource,
  mender: SectorMender,
  progress: ProgressSink,
  signal?: AbortSignal,
): Promise<void> {
  const image = await source.manifest();
  const by = source.describe();
  for (const layer of image.layers) {
    if (mender.missing.length === 0) return;
    const id = `reread:${layer.index}`;
    progress.start(id, `layer ${layer.index + 1} again`, layer.sizeBytes);
    const tar = openLayerTar(source, layer, {
      ...(signal === undefined ? {} : { signal }),
      onBlobBytes: (bytes) => progress.advance(id, bytes),
    });
    const input = new StreamInput(tar.bytes);
    try {
      await rereadTar(input, mender, by);
    } finally {
      await input.close();
    }
    progress.done(id);
  }
}

async function rereadTar(input: StreamInput, mender: SectorMender, by: string): Promise<void> {
  const reader = new TarReader(input, () => undefined);
  const sizes = wantedSizes(mender);
  for (let entry = await reader.next(); entry !== undefined; entry = await reader.next()) {
    const isCandidate = entry.bodyBytes > 0 && entry.sparse === undefined && sizes.has(entry.size);
    if (isCandidate) await giveFile(entry.size, (bytes) => input.take(bytes), mender, by);
    else await input.copy(entry.bodyBytes, () => undefined);
    if (mender.missing.length === 0) return;
  }
}

/** Sizes of the contents that the mender lacks pieces of. */
export function wantedSizes(mender: SectorMender): ReadonlySet<number> {
  return new Set([...mender.wanted].map((key) => contentOfKey(Buffer.from(key, 'latin1')).size));
}

/** Pieces of 4 MiB of a file that are held until its root is known: of a larger file only the last ones are given. */
const HELD_PIECES = 16;

/**
 * Gives `mender` what it lacks of a file of `size` bytes that somebody has: `take` gives its bytes, as many as asked for, from front to back (valid
 * until the next call). A piece of 4 MiB may be a sector by itself; all others are given when the root of the whole file is known to be that of a lost
 * one.
 */
export async function giveFile(
  size: number,
  take: (bytes: number) => Promise<Uint8Array> | Uint8Array,
  mender: SectorMender,
  by: string,
): Promise<void> {
  const roots: Uint8Array[] = [];
  const held: { start: number; bytes: Uint8Array }[] = [];
  for (let start = 0; start < size; start += SECTOR_BYTES) {
    const bytes = Uint8Array.from(await take(Math.min(SECTOR_BYTES, size - start)));
    const root = bufferRoot(bytes);
    roots.push(root);
    if (bytes.length === SECTOR_BYTES) mender.giveSector(root, bytes, by);
    held.push({ start, bytes });
    if (held.length > HELD_PIECES) held.shift();
  }
  const ref = { root: roots.length === 1 ? roots[0]! : rootOfRoots(roots), size };
  if (!mender.wanted.has(contentKey(ref).toString('latin1'))) return;
  for (const { start, bytes } of held) mender.giveBytes(ref, start, bytes, by);
}
