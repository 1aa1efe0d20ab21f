import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { cloneLog } from '../fs/history/clone-log.ts';
import { PgError } from '../mdm/error.ts';
import type { Roots } from '../store/paths.ts';
import { lockStopped } from './containers.ts';
import { putContainer } from './create.ts';
import { locate } from './history.ts';
import { requireOwner } from './migrate-state.ts';
import { checkName, newId, shortId } from './names.ts';
import { type ContainerConfig, type ContainerRecord, type Origin, readRecord } from './record.ts';
import { withStore } from './subject.ts';
import { isAnonymousVolume } from './volumes.ts';

/**
 * Makes a container that begins with the files of another at a position (undefined: as it is now; it may run meanwhile), and with its settings. Nothing is copied
 * but the last sector of the log: the clone's log shares the others, whichever of the two is removed first. PgError as `locate`, NAME_TAKEN, CLONE_LINK.
 */
export async function cloneContainer(
  roots: Roots,
  ref: string,
  position: string | undefined,
  name: string | undefined,
): Promise<ContainerRecord> {
  if (name !== undefined) checkName(name);
  const { subject, size, root, running } = await locate(roots, ref, position);
  const { id: parentId, dir, treeRoot } = subject;
  if (parentId === undefined) {
    throw new PgError('NO_SUCH_CONTAINER', `${ref} is a named mount, not a container`, {
      hint: 'pg mount makes another over the same image: pg mount --rw --name NAME IMAGE DIR',
    });
  }
  const lock = running ? undefined : await lockStopped(roots, parentId);
  try {
    requireOwner(roots, parentId, subject.name);
    const parent = readRecord(roots, parentId);
    const id = newId();
    const record: ContainerRecord = {
      ...parent,
      id,
      name: '',
      createdAt: new Date().toISOString(),
      config: ownConfig(parent, id),
      ...(size === 0 ? {} : { origins: originsOf(parent, size, root) }),
    };
    return await putContainer(roots, record, name, (making) =>
      withStore(roots, (store) => {
        // Until the record is there: else `rmi` of the image and `gc` could take its tree in between, were the parent removed meanwhile.
        const lease = store.lease(`clone ${parent.name}`);
        try {
          if (size > 0) cloneLog(store, treeRoot, dir, join(making, 'log'), size);
        } finally {
          lease.release();
        }
      }),
    );
  } finally {
    lock?.release();
  }
}

/** Whose history the first `size` bytes of a container's log are: its own behind those of its origins. */
function originsOf({ id, name, origins = [] }: ContainerRecord, size: number, root: string | null): Origin[] {
  const earlier = origins.filter((origin) => origin.size < size);
  const writer = origins.find((origin) => origin.size >= size) ?? { id, name };
  return [...earlier, { id: writer.id, name: writer.name, size, root }];
}

/** The parent's settings, but for what can be of one container only: its own host name, its volumes without a name (the clone gets new ones), its end. */
function ownConfig({ id, config }: ContainerRecord, cloneId: string): ContainerConfig {
  return {
    ...config,
    hostname: config.hostname === shortId(id) ? shortId(cloneId) : config.hostname,
    volumes: config.volumes.map((volume) =>
      volume.kind === 'volume' && isAnonymousVolume(volume.source)
        ? { ...volume, source: randomBytes(32).toString('hex') }
        : volume,
    ),
    autoRemove: false,
  };
}
