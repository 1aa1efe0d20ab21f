import { execFile } from 'node:child_process';
import { constants } from 'node:fs';
import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { closeFd, openInRoot } from './native.ts';
import type { VolumeMount } from './record.ts';

const run = promisify(execFile);

export const volumeDir = (roots: Roots, name: string): string => join(roots.data, 'volumes', name, '_data');

/** A volume that the user gave no name (`-v /path`): 64 random hex digits. */
export const isAnonymousVolume = (name: string): boolean => /^[0-9a-f]{64}$/.test(name);

/**
 * Makes the sources of a container's volumes that are not there: directories of the host for binds, and named volumes, which begin with
 * what the image has at their place (as docker's do). The directory of each named volume.
 */
export async function prepareVolumes(
  roots: Roots,
  volumes: VolumeMount[],
  rootPath: string,
): Promise<Map<string, string>> {
  const dirs = new Map<string, string>();
  for (const volume of volumes) {
    if (volume.kind === 'bind') {
      await stat(volume.source).catch(() => makeSource(volume.source));
      continue;
    }
    const dir = volumeDir(roots, volume.source);
    dirs.set(volume.source, dir);
    // What a container puts there (set-user-id programs, say) is nothing that the host's users may reach.
    await mkdir(dirname(dir), { recursive: true, mode: 0o700 });
    await mkdir(dir, { recursive: true });
    if ((await readdir(dir)).length === 0) await copyFromImage(rootPath, volume.target, dir);
  }
  return dirs;
}

async function makeSource(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (cause) {
    throw new PgError('BAD_VOLUME', `error while creating mount source path '${path}': ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** Copies a directory of the container's root with owners, modes and xattrs. Nothing when there is no such directory. */
async function copyFromImage(rootPath: string, target: string, dir: string): Promise<void> {
  const root = await open(rootPath, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const fd = await openInRoot(root.fd, target, constants.O_RDONLY | constants.O_DIRECTORY).catch(() => -1);
    if (fd < 0) return;
    try {
      await run('cp', ['-a', `/proc/${process.pid}/fd/${fd}/.`, dir]);
    } finally {
      closeFd(fd);
    }
  } finally {
    await root.close();
  }
}
