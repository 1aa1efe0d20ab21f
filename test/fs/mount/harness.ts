import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Mount, type MountOptions, startMount } from '../../../fs/mount.ts';
import type { Roots } from '../../../store/paths.ts';

/** Skips the suite, saying why, where nothing can be mounted. */
export function needFuse(context: Mocha.Context): void {
  const reason = process.getuid?.() !== 0 ? 'not root' : existsSync('/dev/fuse') ? undefined : 'no /dev/fuse';
  if (reason === undefined) return;
  console.error(`SKIPPED: real mounts (${reason})`);
  context.skip();
}

/** Directories of one test, and the mounts it makes in them. */
export class Bench {
  readonly dir = mkdtempSync('/var/tmp/pg-test-');
  readonly roots: Roots = { data: join(this.dir, 'data'), run: join(this.dir, 'run'), config: join(this.dir, 'etc') };
  readonly at = join(this.dir, 'mnt');
  readonly logDir = join(this.dir, 'log');
  private readonly mounts: Mount[] = [];

  constructor() {
    mkdirSync(this.at);
  }

  /** Mounts the empty image with the bench's log, unless told otherwise. */
  async mount(options: Partial<MountOptions> = {}): Promise<Mount> {
    const mount = await startMount({
      roots: this.roots,
      treeRoot: null,
      logDir: this.logDir,
      mountPoint: this.at,
      label: 'test',
      ...options,
    });
    this.mounts.push(mount);
    return mount;
  }

  path(name: string): string {
    return join(this.at, name);
  }

  async unmountAll(): Promise<void> {
    for (const mount of this.mounts) {
      // One that ended badly says so again.
      await mount.unmount(true).catch(() => undefined);
      await mount.closed.catch(() => undefined);
    }
  }

  async clean(): Promise<void> {
    await this.unmountAll();
    rmSync(this.dir, { recursive: true, force: true });
  }
}
