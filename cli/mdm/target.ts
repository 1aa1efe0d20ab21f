import type { CommittedFile } from '../../mdm/file.ts';
import { isPgError } from '../../mdm/error.ts';
import { Host } from '../../store/host/host.ts';
import { PlainFile } from '../../store/host/plain-file.ts';
import type { Roots } from '../../store/paths.ts';
import { openStore, type Store } from '../../store/store.ts';
import { terminalProgress } from '../progress.ts';
import { statSync } from 'node:fs';

/** Names that begin so are files of the host in pg's store; `./store:x` is a file in the directory. */
const HOST_PREFIX = 'store:';

/** What FILE in `pg mdm` stands for, opened. */
export interface Target {
  file: CommittedFile;
  close(): Promise<void>;
}

export interface TargetOptions {
  quiet: boolean;
  signal?: AbortSignal;
  /** Whether the file may be changed. */
  writable?: boolean;
  /** Makes a file of the host that is not there. */
  create?: boolean;
  /** Whether sectors of pg's store may be read. */
  readsStore?: boolean;
}

/** The name of a file of the host, or undefined if FILE is an ordinary one. */
export const hostName = (file: string): string | undefined =>
  file.startsWith(HOST_PREFIX) ? file.slice(HOST_PREFIX.length) : undefined;

/** Opens FILE: an ordinary one is read first, with progress on a terminal. */
export async function openTarget(roots: Roots, name: string, options: TargetOptions): Promise<Target> {
  const inHost = hostName(name);
  if (inHost !== undefined) return openHosted(roots, inHost, options);
  const store = options.readsStore === true ? storeIfThere(roots) : undefined;
  const progress = terminalProgress(options.quiet);
  try {
    progress.start('file', name, statSync(name, { throwIfNoEntry: false })?.size);
    const file = await PlainFile.open(name, {
      elsewhere: store && ((root) => new Host(store).sector(root)),
      onProgress: (bytes) => progress.advance('file', bytes),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
    });
    return {
      file,
      async close() {
        file.close();
        await store?.close();
      },
    };
  } catch (error) {
    await store?.close();
    throw error;
  } finally {
    progress.end();
  }
}

async function openHosted(roots: Roots, name: string, { writable, create }: TargetOptions): Promise<Target> {
  const store = openStore(roots, { readOnly: writable !== true });
  try {
    const host = new Host(store);
    let file;
    try {
      file = host.open(name);
    } catch (error) {
      if (create !== true || !isPgError(error, 'MDM_NO_SUCH_FILE')) throw error;
      file = host.create(name);
    }
    return { file, close: () => store.close() };
  } catch (error) {
    await store.close();
    throw error;
  }
}

function storeIfThere(roots: Roots): Store | undefined {
  try {
    return openStore(roots, { readOnly: true });
  } catch (error) {
    if (isPgError(error, 'STORE_MISSING')) return undefined;
    throw error;
  }
}
