import type { Store } from '../store/store.ts';
import type { ImageRecord } from './images.ts';
import type { ProgressSink } from './progress.ts';
import type { BareNameOrigin } from './transport/source.ts';

export interface ImportOptions {
  /** `os/arch[/variant]`; default: this machine's. */
  platform?: string;
  /** For a bare name: where to take it from. */
  from?: BareNameOrigin;
  /** A name for the image instead of those that its source gives it. */
  name?: string;
  progress?: ProgressSink;
  signal?: AbortSignal;
}

export interface Imported {
  image: ImageRecord;
  /** Which source was used, in words. */
  took: string;
  alreadyPresent: boolean;
}

/** Brings an image into the store, wholly or not at all. `source` is what `openSource` takes. */
export async function importImage(_store: Store, _source: string, _options: ImportOptions = {}): Promise<Imported> {
  throw new Error('being built');
}
