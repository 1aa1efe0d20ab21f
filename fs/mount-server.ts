import { PgError } from '../mdm/error.ts';
import type { Mount, MountOptions } from './mount.ts';

export async function mountAndServe(options: MountOptions): Promise<Mount> {
  throw new PgError('MOUNT_FAILED', `cannot mount ${options.label} yet`);
}
