import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { closeFd, openInRoot } from './native.ts';

const TEXT_MAX_BYTES = 4 << 20;

/**
 * The text of a file in a container's root, looked up as the container would (its symlinks cannot lead out); empty when there is no
 * such regular file. Asynchronous throughout: the root is served by this process.
 */
export async function readInRoot(rootPath: string, path: string): Promise<string> {
  const root = await open(rootPath, constants.O_RDONLY | constants.O_DIRECTORY);
  let fd: number;
  try {
    // Nonblocking: it might be a FIFO.
    fd = await openInRoot(root.fd, path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  } finally {
    await root.close();
  }
  try {
    const file = await open(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = await file.stat();
      return stat.isFile() && stat.size <= TEXT_MAX_BYTES ? await file.readFile('utf8') : '';
    } finally {
      await file.close();
    }
  } finally {
    closeFd(fd);
  }
}
