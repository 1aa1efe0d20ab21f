import { closeSync, fdatasync, mkdirSync, openSync } from 'node:fs';
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import type { SectorPlaces } from './sector-builder.ts';
import { diskError } from './sector.ts';

const datasync = promisify(fdatasync);
/** Files synced at once: libuv has four threads, and the archive is read and unpacked by the others. */
const LANES = 2;
/** Files that may wait for it; more, and whoever writes them waits, so that a slow disk slows the import and not the machine. */
const QUEUE = 32;
/** Directories synced at once, at the end. */
const DIR_LANES = 4;

interface Unsettled {
  temporary: string;
  root: Uint8Array;
}

/**
 * Sector files of one import, on their way from being written under a temporary name to being durable under their own.
 * That goes on in the background; the first failure is handed to `failed`.
 */
export class Settler {
  private readonly places: SectorPlaces;
  private readonly beforeNaming: (root: Uint8Array) => void;
  private readonly failed: (error: Error) => void;
  private readonly queue: Unsettled[] = [];
  private readonly lanes = new Set<Promise<void>>();
  private readonly roomWanted: (() => void)[] = [];
  private readonly shards = new Set<string>();
  private readonly temporaries = new Set<string>();

  constructor(places: SectorPlaces, beforeNaming: (root: Uint8Array) => void, failed: (error: Error) => void) {
    this.places = places;
    this.beforeNaming = beforeNaming;
    this.failed = failed;
  }

  /** To be called before the file at `path` is made: it will be removed if it does not get its name. */
  expect(path: string): void {
    this.temporaries.add(path);
  }

  /** The file at `temporary` is written. Resolves at once, or when there is room for more. */
  async settle(temporary: string, root: Uint8Array): Promise<void> {
    this.queue.push({ temporary, root });
    if (this.lanes.size < LANES) this.start();
    if (this.queue.length > QUEUE) await new Promise<void>((resolve) => this.roomWanted.push(resolve));
  }

  private start(): void {
    const lane = this.run()
      .catch((cause: unknown) => {
        this.failed(diskError(cause, 'cannot store a sector'));
        this.queue.length = 0;
      })
      .finally(() => {
        this.lanes.delete(lane);
        for (const wake of this.roomWanted.splice(0)) wake();
      });
    this.lanes.add(lane);
  }

  private async run(): Promise<void> {
    for (let next = this.queue.shift(); next !== undefined; next = this.queue.shift()) {
      this.roomWanted.shift()?.();
      await this.name(next);
    }
  }

  private async name({ temporary, root }: Unsettled): Promise<void> {
    const fd = openSync(temporary, 'r');
    try {
      await datasync(fd);
    } finally {
      closeSync(fd);
    }
    const path = this.places.pathOf(root);
    const shard = dirname(path);
    if (!this.shards.has(shard)) {
      mkdirSync(shard, { recursive: true, mode: 0o700 });
      this.shards.add(shard);
    }
    this.beforeNaming(root);
    await rename(temporary, path);
    this.temporaries.delete(temporary);
  }

  /** Resolves when no file is on its way any more; what failed was told before. Never rejects. */
  async idle(): Promise<void> {
    while (this.lanes.size > 0) await Promise.all(this.lanes);
  }

  /** After `idle`: makes the names durable (fsync(2): the directory itself needs it). DISK_FULL, DISK_ERROR. */
  async syncNames(): Promise<void> {
    if (this.shards.size === 0) return;
    const dirs = [...this.shards];
    const lane = async (): Promise<void> => {
      for (let dir = dirs.pop(); dir !== undefined; dir = dirs.pop()) await syncDir(dir);
    };
    try {
      await Promise.all(Array.from({ length: DIR_LANES }, lane));
      await syncDir(dirname(this.places.temporaryDir));
    } catch (error) {
      throw diskError(error, 'cannot sync the sectors of an import');
    }
  }

  /** Removes the files that have not got their names. Never rejects. */
  async giveUp(): Promise<void> {
    this.queue.length = 0;
    await this.idle();
    for (const path of this.temporaries) await rm(path, { force: true }).catch(() => undefined);
  }
}

async function syncDir(path: string): Promise<void> {
  const dir = await open(path, 'r');
  try {
    await dir.sync();
  } finally {
    await dir.close();
  }
}
