import { layerOf } from '../fs/history/layer-of.ts';
import { commitImage } from '../layers/commit.ts';
import { changeConfig } from '../layers/config-change.ts';
import { findImage, type ImageRecord, SCRATCH } from '../layers/images.ts';
import { layerTar } from '../layers/layer-tar.ts';
import { formatReference, parseImageName } from '../layers/reference.ts';
import { hostPlatform } from '../layers/transport/platform.ts';
import type { ImageConfig } from '../layers/transport/source.ts';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import type { Store } from '../store/store.ts';
import { MADE_BY_RUNTIME } from './containers.ts';
import { locate, type Located, withFilesAt } from './history.ts';
import { type ContainerConfig, type ContainerRecord, readRecord } from './record.ts';
import { withStore } from './subject.ts';

/** What `docker commit` lets one say of the new image. */
export interface CommitOptions {
  message: string;
  author: string;
  /** Instructions of a Dockerfile. */
  changes: readonly string[];
}

/**
 * Makes an image of a container at a position (undefined: as it is now; it may run meanwhile): its image, and a layer of what it changed. Bytes that the store
 * has are not stored again. `name` undefined: the image has only its id. PgError as `locate`, IMAGE_NOT_FOUND (of the container's image), BAD_CHANGE.
 */
export async function commitToImage(
  roots: Roots,
  ref: string,
  position: string | undefined,
  name: string | undefined,
  options: CommitOptions,
): Promise<ImageRecord> {
  const names = name === undefined ? [] : [checkedName(name)];
  const located = await locate(roots, ref, position);
  const { id } = located.subject;
  if (id === undefined) {
    throw new PgError(
      'NO_SUCH_CONTAINER',
      `${ref} is a named mount: only a container says how an image of it is to run`,
      {
        hint: `pg export writes images; copy what is in the mount with pg mount ${ref} DIR`,
      },
    );
  }
  const record = readRecord(roots, id);
  return withStore(roots, (store) => commitLocated(store, located, record, names, options));
}

function checkedName(name: string): string {
  if (name === SCRATCH)
    throw new PgError('NAME_RESERVED', `'${SCRATCH}' is the empty image: no other can be called so`, {
      hint: 'take another name',
    });
  return formatReference(parseImageName(name));
}

async function commitLocated(
  store: Store,
  located: Located,
  record: ContainerRecord,
  names: readonly string[],
  options: CommitOptions,
): Promise<ImageRecord> {
  const parent = parentOf(store, record);
  const config = configOf(parent, record.config, options, new Date().toISOString());
  return withFilesAt(store, located, (at) =>
    commitImage(store, parent, layerTar(layerOf(at, MADE_BY_RUNTIME)), config, names),
  );
}

/** The image that the container was made from; null is the empty one. */
function parentOf(store: Store, { image, name }: ContainerRecord): ImageRecord | null {
  if (image.id === '') return null;
  const found = findImage(store, `sha256:${image.id}`);
  if (found !== undefined) return found;
  throw new PgError('IMAGE_NOT_FOUND', `the image of container ${name}, ${image.name}, is not here any more`, {
    hint: `its layers go into the new one: pg import ${image.name}`,
  });
}

function configOf(
  parent: ImageRecord | null,
  container: ContainerConfig,
  { message, author, changes }: CommitOptions,
  created: string,
): ImageConfig {
  const host = hostPlatform();
  const before: ImageConfig = parent?.config ?? {
    architecture: host.architecture,
    os: host.os,
    ...(host.variant === undefined ? {} : { variant: host.variant }),
    rootfs: { type: 'layers', diff_ids: [] },
  };
  // What the engine that made the image below said of its own container.
  const kept = Object.fromEntries(
    Object.entries(before).filter(
      ([key]) => !['comment', 'container', 'container_config', 'id', 'parent'].includes(key),
    ),
  ) as ImageConfig;
  const entry = {
    created,
    created_by: [...container.entrypoint, ...container.cmd].join(' '),
    ...(author === '' ? {} : { author }),
    ...(message === '' ? {} : { comment: message }),
  };
  return {
    ...kept,
    created,
    ...(author === '' ? {} : { author }),
    ...(message === '' ? {} : { comment: message }),
    config: changeConfig(settingsOf(before.config ?? {}, container), changes),
    history: [...(before.history ?? []), entry],
  };
}

/** The image's settings with what the container was given besides; what is only of its life here (ports, limits, mounts) is not in it. */
function settingsOf(
  image: NonNullable<ImageConfig['config']>,
  container: ContainerConfig,
): NonNullable<ImageConfig['config']> {
  const { Entrypoint: _, Cmd: __, ...kept } = image;
  const stops = container.stopSignal !== (image.StopSignal ?? 'SIGTERM');
  return {
    ...kept,
    ...(container.entrypoint.length > 0 ? { Entrypoint: container.entrypoint } : {}),
    ...(container.cmd.length > 0 ? { Cmd: container.cmd } : {}),
    Env: container.env,
    ...(container.workdir === '' ? {} : { WorkingDir: container.workdir }),
    ...(container.user === '' ? {} : { User: container.user }),
    ...(Object.keys(container.labels).length > 0 ? { Labels: container.labels } : {}),
    ...(container.exposedPorts.length > 0
      ? { ExposedPorts: Object.fromEntries(container.exposedPorts.map((port) => [port, {}])) }
      : {}),
    ...(stops ? { StopSignal: container.stopSignal } : {}),
  };
}
