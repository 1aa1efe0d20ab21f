/** Named files to read images from: a directory here, the entries of an archive in tar-files.ts. */
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { tooLarge } from './manifest.ts';

/** Bytes per read of a blob: few enough to be in the processor's cache still when they are hashed and copied. */
const READ_BYTES = 512 * 1024;
/** Buffers that reads of a blob take in turn: one with the consumer, one it has asked for, one being read. */
const READ_BUFFERS = 3;

/**
 * Read-only files by relative path. Paths come from checked digests or are looked up in a table, never joined from
 * foreign text.
 */
export interface FileSet {
  /** For people: the path of the directory or archive. */
  readonly label: string;
  /** Size in bytes; null when there is no such file. */
  sizeOf(path: string): Promise<number | null>;
  /** The whole of a small file, null when there is none. Throws DOCUMENT_TOO_LARGE over `limitBytes`. */
  readWhole(path: string, limitBytes: number): Promise<Buffer | null>;
  /**
   * The file in pieces; each is valid until the second one after it is asked for. Throws FILE_MISSING, TRUNCATED.
   */
  stream(path: string, signal?: AbortSignal): AsyncIterable<Uint8Array>;
  close(): Promise<void>;
}

/** The files of a directory. */
export class DirectoryFiles implements FileSet {
  readonly label: string;

  constructor(directory: string) {
    this.label = directory;
  }

  async sizeOf(path: string): Promise<number | null> {
    const file = await this.#open(path);
    if (file === null) return null;
    await file.handle.close();
    return file.size;
  }

  async readWhole(path: string, limitBytes: number): Promise<Buffer | null> {
    const file = await this.#open(path);
    if (file === null) return null;
    try {
      if (file.size > limitBytes) throw tooLarge(join(this.label, path), file.size);
      return await readExactly(file.handle, 0, file.size, join(this.label, path));
    } finally {
      await file.handle.close();
    }
  }

  async *stream(path: string, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const file = await this.#open(path);
    if (file === null) throw missing(path, this.label);
    try {
      yield* readRange(file.handle, 0, file.size, join(this.label, path), signal);
    } finally {
      await file.handle.close();
    }
  }

  async close(): Promise<void> {}

  async #open(path: string): Promise<{ handle: FileHandle; size: number } | null> {
    const full = join(this.label, path);
    let handle: FileHandle;
    try {
      // Not blocking: a FIFO under a blob's name must not hang us.
      handle = await open(full, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
      throw unreadable(full, error);
    }
    const stat = await handle.stat();
    if (stat.isFile()) return { handle, size: stat.size };
    await handle.close();
    throw new PgError('FILE_UNREADABLE', `${full} is not a regular file`);
  }
}

/** `length` bytes of a file from `offset`, in pieces as `FileSet.stream` gives them; the next read is under way while one is used. */
export async function* readRange(
  handle: FileHandle,
  offset: number,
  length: number,
  what: string,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const end = offset + length;
  // The same memory again and again: a new buffer for each read costs as much as the read itself.
  const buffers: Buffer[] = [];
  let reads = 0;
  const readAt = (from: number): Promise<Buffer> => {
    const buffer = (buffers[reads++ % READ_BUFFERS] ??= Buffer.allocUnsafeSlow(Math.min(READ_BYTES, length)));
    const read = readInto(handle, buffer.subarray(0, Math.min(READ_BYTES, end - from)), from, what);
    read.catch(() => undefined);
    return read;
  };
  let ahead = offset < end ? readAt(offset) : null;
  try {
    for (let at = offset; ahead !== null;) {
      signal?.throwIfAborted();
      const chunk: Buffer = await ahead;
      at += chunk.length;
      ahead = at < end ? readAt(at) : null;
      yield chunk;
    }
  } finally {
    // The owner may close the descriptor now.
    await ahead?.catch(() => undefined);
  }
}

/** Exactly `length` bytes from `offset`, in a buffer of their own. Throws TRUNCATED when the file ends before. */
export async function readExactly(handle: FileHandle, offset: number, length: number, what: string): Promise<Buffer> {
  return readInto(handle, Buffer.allocUnsafeSlow(length), offset, what);
}

async function readInto(handle: FileHandle, buffer: Buffer, offset: number, what: string): Promise<Buffer> {
  for (let done = 0; done < buffer.length;) {
    const { bytesRead } = await handle.read(buffer, done, buffer.length - done, offset + done);
    if (bytesRead === 0) {
      throw new PgError('TRUNCATED', `${what} ends after ${offset + done} bytes, in the middle of something`, {
        hint: 'fetch or copy the file again',
      });
    }
    done += bytesRead;
  }
  return buffer;
}

export function missing(path: string, label: string): PgError {
  return new PgError('FILE_MISSING', `${label} lacks the file ${path}`, {
    hint: 'the copy is incomplete: copy or save the image again, with all of its layers',
  });
}

/** A file or directory the user named could not be opened. */
export function unreadable(path: string, error: unknown): PgError {
  const code = (error as NodeJS.ErrnoException).code;
  const why =
    code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : String(code ?? error);
  return new PgError('FILE_UNREADABLE', `cannot read ${path}: ${why}`, {
    ...(code === 'ENOENT' ? { hint: 'check the path' } : {}),
    cause: error,
  });
}
