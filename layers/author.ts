/** Images made here: of a root filesystem, or of another image under a changed config. */
import { createHash } from 'node:crypto';
import { PgError } from '../mdm/error.ts';
import type { Store } from '../store/store.ts';
import { commitImage } from './commit.ts';
import { changeConfig } from './config-change.ts';
import { type ImageRecord, loadImage, putImage } from './images.ts';
import { checkedName } from './import.ts';
import type { ProgressSink } from './progress.ts';
import { describeRoot, type RootSource, rootTar } from './root-tar.ts';
import { hostPlatform, parsePlatform } from './transport/platform.ts';
import type { ImageConfig } from './transport/source.ts';
import type { UnpackLimit } from './transport/unpack-limit.ts';

export interface AuthorOptions {
  /** Without: the image has only its id. */
  name?: string;
  /** Instructions of a Dockerfile (`changeConfig`). */
  changes: readonly string[];
  /** A comment in its history. */
  message?: string;
  /** `os/arch[/variant]`; default: this machine's. */
  platform?: string;
  /** How far a compressed tar may unpack. Default UNPACK_LIMIT. */
  unpack?: UnpackLimit;
  progress?: ProgressSink;
  signal?: AbortSignal;
}

/**
 * Makes an image of one layer, the root filesystem given, as `docker import` does: the layer is the tar as it comes, so the same tar has
 * the same DiffID everywhere. PgError `BAD_CHANGE`, `REFERENCE_INVALID`, what reading the source and applying the tar throw.
 */
export async function authorImage(store: Store, source: RootSource, options: AuthorOptions): Promise<ImageRecord> {
  const names = options.name === undefined ? [] : [checkedName(options.name)];
  const platform = options.platform === undefined ? hostPlatform() : parsePlatform(options.platform);
  const created = new Date().toISOString();
  const what = describeRoot(source);
  const config: ImageConfig = {
    created,
    architecture: platform.architecture,
    os: platform.os,
    ...(platform.variant === undefined ? {} : { variant: platform.variant }),
    config: changeConfig({}, options.changes),
    rootfs: { type: 'layers', diff_ids: [] },
    history: [{ created, comment: options.message ?? `Imported from ${what}` }],
  };
  const { progress, signal } = options;
  progress?.start('root', `reading ${what}`);
  const tar = rootTar(source, (bytes) => progress?.advance('root', bytes), signal, options.unpack);
  const image = await commitImage(store, null, tar, config, names);
  progress?.done('root');
  return image;
}

/** Makes an image of `image`'s layers under a changed config. PgError `NAME_NEEDED`, `BAD_CHANGE`. */
export function editImage(store: Store, image: ImageRecord, options: AuthorOptions): ImageRecord {
  if (options.name === undefined) {
    throw new PgError('NAME_NEEDED', 'a changed config makes another image: it needs a name of its own', {
      hint: 'pg import SOURCE NAME --cmd ...',
    });
  }
  const names = [checkedName(options.name)];
  const created = new Date().toISOString();
  const { message } = options;
  const entry = { created, empty_layer: true, ...(message === undefined ? {} : { comment: message }) };
  const config: ImageConfig = {
    ...image.config,
    created,
    config: changeConfig(image.config.config ?? {}, options.changes),
    history: [...(image.config.history ?? []), entry],
  };
  const configBytes = Buffer.from(JSON.stringify(config));
  const id = `sha256:${createHash('sha256').update(configBytes).digest('hex')}`;
  const { treeRoot, layers, platform, size } = image;
  store.transaction(() =>
    putImage(store, { id, treeRoot, configBytes, layers, platform, importedMs: Date.now(), size }, names),
  );
  return loadImage(store, id)!;
}
