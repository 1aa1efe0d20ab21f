import type { Store } from '../store/store.ts';
import type { ImageRecord } from './images.ts';
import type { ProgressSink } from './progress.ts';

/** Writes an image to `oci-archive:PATH[:REF]`, `docker-archive:PATH[:REF]` or `oci:DIR[:REF]`; every DiffID stays as it is. */
export async function exportImage(
  _store: Store,
  _image: ImageRecord,
  _destination: string,
  _progress?: ProgressSink,
): Promise<void> {
  throw new Error('being built');
}
