/**
 * Space for what must be read at random but comes as a stream: a nameless file, gone when it is closed or the process
 * ends.
 */
import { mkdtemp, open, rm, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';

/**
 * Writes all of `chunks` into a nameless file under `directory` (default /var/tmp). Close what it gives. Throws
 * DISK_FULL.
 */
export async function spool(
  chunks: AsyncIterable<Uint8Array>,
  directory: string | undefined,
  onBytes?: (bytes: number) => void,
): Promise<FileHandle> {
  const file = await namelessFile(directory);
  try {
    for await (const chunk of chunks) {
      for (let done = 0; done < chunk.length;) {
        done += (await file.write(chunk, done, chunk.length - done)).bytesWritten;
      }
      onBytes?.(chunk.length);
    }
    return file;
  } catch (error) {
    await file.close();
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    throw new PgError('DISK_FULL', `no space left in ${directory ?? '/var/tmp'} for a temporary copy of the image`, {
      hint: 'free some space, or point TMPDIR at a larger disk',
      cause: error,
    });
  }
}

async function namelessFile(directory: string | undefined): Promise<FileHandle> {
  // /tmp is often memory; images are large.
  const parent = directory ?? process.env['TMPDIR'] ?? '/var/tmp';
  const place = await mkdtemp(join(parent, 'pg-spool-')).catch(() => mkdtemp(join(tmpdir(), 'pg-spool-')));
  try {
    return await open(join(place, 'data'), 'wx+', 0o600);
  } finally {
    await rm(place, { recursive: true, force: true });
  }
}
