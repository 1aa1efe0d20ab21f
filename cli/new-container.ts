import { writeFileSync } from 'node:fs';
import { PgError } from '../mdm/error.ts';
import { findImage, SCRATCH } from '../layers/images.ts';
import { createContainer, type CreateOptions } from '../runtime/create.ts';
import type { ContainerRecord } from '../runtime/record.ts';
import { readSettings } from '../runtime/settings.ts';
import { allowedUlimits } from '../runtime/ulimits.ts';
import { openStore, type Store } from '../store/store.ts';
import type { Roots } from '../store/paths.ts';
import type { RunFlags } from './run-flags.ts';
import { parseRetain } from './retain.ts';
import { createOptions } from './run-options.ts';

/**
 * What `pg run` and `pg create` begin with: the image, brought here first if it is not (`--pull`), and the container made from it.
 * PgError('IMAGE_NOT_FOUND' | 'NAME_TAKEN' | 'BAD_USAGE' | ...).
 */
export async function newContainer(
  roots: Roots,
  imageName: string,
  command: string[],
  flags: RunFlags,
): Promise<ContainerRecord> {
  const options = createOptions(flags, command);
  const settings = await readSettings(roots);
  options.runtime ??= settings.runtime;
  if (settings.retain !== null) options.retain ??= parseRetain(settings.retain);
  const record =
    imageName === SCRATCH
      ? await createContainer(roots, { id: '', name: SCRATCH, treeRoot: null, config: {} }, options)
      : await fromImage(roots, imageName, flags, options);
  for (const { name, hard } of allowedUlimits(record.config.ulimits)) {
    if (hard < record.config.ulimits.find((limit) => limit.name === name)!.hard)
      process.stderr.write(`pg: warning: this host allows no more than ${hard} for --ulimit ${name}: it gets that\n`);
  }
  if (flags.cidfile !== undefined) writeCidFile(flags.cidfile, record.id);
  return record;
}

async function fromImage(
  roots: Roots,
  name: string,
  flags: RunFlags,
  options: CreateOptions,
): Promise<ContainerRecord> {
  const store = openStore(roots);
  // Until the container's record holds the image's tree: else `rmi` and `gc` could take it in between.
  const lease = store.lease(`make a container from ${name}`);
  try {
    const found = flags.pull === 'always' ? undefined : findImage(store, name);
    const image = found ?? (await bring(roots, store, name, flags));
    const base = { id: image.id.replace('sha256:', ''), name, treeRoot: image.treeRoot, config: image.config.config };
    return await createContainer(roots, base, options);
  } finally {
    lease.release();
    await store.close();
  }
}

async function bring(roots: Roots, store: Store, name: string, flags: RunFlags): ReturnType<typeof importedImage> {
  if (flags.pull === 'never') {
    throw new PgError('IMAGE_NOT_FOUND', `No such image: ${name}`, { hint: `pg import ${name}` });
  }
  if (flags.pull !== 'always') process.stderr.write(`Unable to find image '${name}' locally\n`);
  return importedImage(roots, store, name, flags);
}

async function importedImage(roots: Roots, store: Store, name: string, flags: RunFlags) {
  const [{ importImage }, { terminalProgress }] = await Promise.all([
    import('../layers/import.ts'),
    import('./progress.ts'),
  ]);
  const { keepBlobs, unpack } = await readSettings(roots);
  const progress = terminalProgress(flags.quiet === true);
  try {
    const { image, took } = await importImage(store, name, {
      progress,
      keepBlobs,
      unpack,
      ...(flags.platform === undefined ? {} : { platform: flags.platform }),
    });
    progress.end();
    if (flags.quiet !== true) process.stderr.write(`${name}: taken from ${took}\n`);
    return image;
  } finally {
    progress.end();
  }
}

function writeCidFile(path: string, id: string): void {
  try {
    writeFileSync(path, id, { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new PgError(
      'BAD_USAGE',
      `container ID file found, make sure the other container isn't running or delete ${path}`,
    );
  }
}
