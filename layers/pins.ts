import type { Store } from '../store/store.ts';

/**
 * Pins keep images from being pruned and, unless forced, from being removed. Table `pins` (docs/formats/images.md): the image's id, and what is to be said of it.
 */
const TABLE = 'pins';

/** Pins the image with this id; false if it was pinned already. Call `getImage` before: nothing is looked up here. */
export function pinImage(store: Store, id: string): boolean {
  return store.transaction(() => {
    const pins = store.table(TABLE);
    if (pins.has(id)) return false;
    pins.put(id, Buffer.from(JSON.stringify({ pinnedMs: Date.now() })));
    return true;
  });
}

/** Takes the pin off; false if there was none. */
export function unpinImage(store: Store, id: string): boolean {
  return isPinned(store, id) && store.table(TABLE).remove(id);
}

export function isPinned(store: Store, id: string): boolean {
  return store.table(TABLE).has(id);
}
