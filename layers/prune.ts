import type { Store } from '../store/store.ts';
import { type ImageRecord, listImages, loadImage, removeImage, type Removal } from './images.ts';
import { loadIndex } from './indexes.ts';
import { isPinned } from './pins.ts';

/** Which images a prune takes; all conditions must hold. */
export interface PruneWish {
  /** Also those with names; else only dangling ones. */
  all: boolean;
  /** Only images made before this (ms since 1970). */
  before?: number;
  /** Only images with these labels (`KEY` or `KEY=VALUE`), and without those. */
  labels: readonly string[];
  withoutLabels: readonly string[];
}

/** Removes the images that nobody needs: no container stands on them (`isUsed`), nobody has pinned them, and `wish` holds. One that is needed after all is left. */
export function pruneImages(store: Store, wish: PruneWish, isUsed: (image: ImageRecord) => boolean): Removal[] {
  return store.transaction(() => {
    const listed = imagesOfIndexes(store);
    return listImages(store, () => undefined)
      .filter((image) => isWanted(image, wish) && !isPinned(store, image.id) && !isUsed(image))
      .filter((image) => image.names.length > 0 || !listed.has(image.id))
      .flatMap(({ id }) => (loadImage(store, id) === undefined ? [] : [removeImage(store, id, () => [], true)]));
  });
}

/** Ids of the images that an index has brought: without names of their own, they go with the index's. */
function imagesOfIndexes(store: Store): Set<string> {
  const names = [...store.table('indexes').keys()].map((key) => key.toString());
  const parts = names.flatMap((name) => loadIndex(store, name)?.parts ?? []);
  return new Set(parts.flatMap((part) => (part.kind === 'image' ? [part.image] : [])));
}

function isWanted(image: ImageRecord, { all, before, labels, withoutLabels }: PruneWish): boolean {
  if (!all && image.names.length > 0) return false;
  const madeMs = Date.parse(image.created ?? '') || image.importedMs;
  if (before !== undefined && madeMs >= before) return false;
  return labels.every((label) => hasLabel(image, label)) && !withoutLabels.some((label) => hasLabel(image, label));
}

function hasLabel(image: ImageRecord, label: string): boolean {
  const labels = image.config.config?.Labels ?? {};
  const at = label.indexOf('=');
  return at < 0 ? Object.hasOwn(labels, label) : labels[label.slice(0, at)] === label.slice(at + 1);
}
