import { mkdirSync, rmSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type * as Detached from '../../fs/detached.ts';
import { HOME, run } from '../engines.ts';
import type { Lower } from './lower.ts';

/** The built program, as people run it: from the sources every thread of a server would take its types away first. */
const built = join(HOME, 'dist/fs/detached.js');
const { canonicalMountPoint, startDetachedMount, stopDetachedMount } = (await import(built)) as typeof Detached;

/** A filesystem under test. */
export interface Subject {
  name: string;
  /** Mounts with an empty writable layer, or with the one left by `unmount(true)`; returns the directory. */
  mount(): Promise<string>;
  /** Takes it away, and the writable layer with it unless that is to be kept. */
  unmount(keep?: boolean): Promise<void>;
}

/** pg, fuse-overlayfs and the kernel's overlayfs over the same lower tree, on the same disk. */
export const subjectsIn = (dir: string, lower: Lower): Subject[] => [
  pg(dir, lower.treeRoot),
  overlay('fuse-overlayfs', dir, lower.tree, (options, at) => run('fuse-overlayfs', ['-o', `${options},dev,suid`, at])),
  overlay('overlayfs', dir, lower.tree, (options, at) => run('mount', ['-t', 'overlay', 'overlay', '-o', options, at])),
];

function pg(dir: string, treeRoot: Uint8Array): Subject {
  const roots = { data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') };
  const mountPoint = join(dir, 'pg-mnt');
  const logDir = join(dir, 'pg-log');
  return {
    name: 'pg',
    async mount() {
      mkdirSync(mountPoint, { recursive: true });
      await startDetachedMount({
        roots,
        treeRoot,
        logDir,
        mountPoint: canonicalMountPoint(mountPoint),
        label: 'bench',
      });
      return mountPoint;
    },
    async unmount(keep = false) {
      await stopDetachedMount(roots, mountPoint);
      if (!keep) rmSync(logDir, { recursive: true });
    },
  };
}

function overlay(name: string, dir: string, lower: string, start: (options: string, at: string) => void): Subject {
  const own = join(dir, name);
  const at = join(own, 'mnt');
  return {
    name,
    async mount() {
      for (const part of ['upper', 'work', 'mnt']) mkdirSync(join(own, part), { recursive: true });
      start(`lowerdir=${lower},upperdir=${join(own, 'upper')},workdir=${join(own, 'work')}`, at);
      return at;
    },
    async unmount(keep = false) {
      // A program that was told to end may take a moment.
      for (let tries = 50; tries > 0 && spawnSync('umount', [at]).status !== 0; tries--) await setTimeout(100);
      if (!keep) rmSync(own, { recursive: true });
    },
  };
}
