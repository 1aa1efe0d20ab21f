import { join, resolve } from 'node:path';

/**
 * The three directories of an installation: what must survive a reboot, what need not, and what the administrator
 * writes.
 */
export interface Roots {
  /** `/var/lib/pg`: index, sectors, containers, node identity. */
  data: string;
  /** `/run/pg`: sockets and mount points of running things. */
  run: string;
  /** `/etc/pg`: configuration. */
  config: string;
}

/**
 * The directories to use: `--root` or `PG_ROOT` (everything below that one directory), else the system's for root, else
 * the XDG base directories.
 */
export function resolveRoots(rootFlag: string | undefined, env: NodeJS.ProcessEnv, uid: number): Roots {
  const root = rootFlag ?? env['PG_ROOT'];
  if (root !== undefined && root !== '') {
    const data = resolve(root);
    return { data, run: join(data, 'run'), config: join(data, 'etc') };
  }
  if (uid === 0) return { data: '/var/lib/pg', run: '/run/pg', config: '/etc/pg' };
  const home = env['HOME'] ?? '/';
  return {
    data: join(env['XDG_DATA_HOME'] ?? join(home, '.local/share'), 'pg'),
    run: join(env['XDG_RUNTIME_DIR'] ?? `/tmp/pg-${uid}`, 'pg'),
    config: join(env['XDG_CONFIG_HOME'] ?? join(home, '.config'), 'pg'),
  };
}

export const indexDir = (roots: Roots): string => join(roots.data, 'index');
export const sectorsDir = (roots: Roots): string => join(roots.data, 'sectors');
export const leasesDir = (roots: Roots): string => join(roots.data, 'leases');
export const containersDir = (roots: Roots): string => join(roots.data, 'containers');
export const containerDir = (roots: Roots, id: string): string => join(roots.data, 'containers', id);
export const containerRunDir = (roots: Roots, id: string): string => join(roots.run, 'containers', id);
export const nodeDir = (roots: Roots): string => join(roots.data, 'node');
