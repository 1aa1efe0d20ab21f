/** Files of an archive or of a directory, written one after another. */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { END_OF_ARCHIVE, fileHeader, padding } from '../tar-writer.ts';

/** ustar; only blobs under sha512 have longer ones. */
const NAME_LENGTH_MAX = 100;

export type Pieces = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** Takes the files of an archive or layout. */
export interface FileSink {
  /** A file of `size` bytes; a piece is valid until the next is asked for. False: it was there already, and nothing was read. */
  file(name: string, size: number, pieces: Pieces): Promise<boolean>;
}

/** A tar of files, in pieces that are valid until the next is asked for: for a file or for a socket. */
export async function* tarPieces(
  files: AsyncIterable<{ name: string; size: number; pieces: Pieces }>,
): AsyncGenerator<Uint8Array> {
  for await (const { name, size, pieces } of files) {
    yield fileHeader(name, size);
    yield* pieces;
    yield padding(size);
  }
  yield END_OF_ARCHIVE;
}

/** A tar being written beside `path`; `end` gives it its name when it is on the disk, `abort` leaves nothing behind. */
export class ArchiveFile implements FileSink {
  readonly #beside: Beside;

  private constructor(beside: Beside) {
    this.#beside = beside;
  }

  static async create(path: string): Promise<ArchiveFile> {
    return new ArchiveFile(await Beside.create(path));
  }

  async file(name: string, size: number, pieces: Pieces): Promise<boolean> {
    if (name.length > NAME_LENGTH_MAX) {
      throw new PgError('DESTINATION_INVALID', `an archive cannot hold ${name.slice(0, 60)}...: its name is too long`, {
        hint: 'write a directory instead: oci:DIRECTORY or dir:DIRECTORY',
      });
    }
    await this.#beside.write([fileHeader(name, size)]);
    await this.#beside.write(pieces);
    await this.#beside.write([padding(size)]);
    return true;
  }

  async end(): Promise<void> {
    await this.#beside.write([END_OF_ARCHIVE]);
    await this.#beside.end();
  }

  async abort(): Promise<void> {
    await this.#beside.abort();
  }
}

/** Files below a directory, each whole or not there. One under a digest's name is not written again. */
export class DirectoryFiles implements FileSink {
  readonly #directory: string;
  readonly #isByDigest: (name: string) => boolean;

  constructor(directory: string, isByDigest: (name: string) => boolean) {
    this.#directory = directory;
    this.#isByDigest = isByDigest;
  }

  async file(name: string, size: number, pieces: Pieces): Promise<boolean> {
    const path = join(this.#directory, name);
    const there = this.#isByDigest(name) ? await stat(path).catch(() => undefined) : undefined;
    if (there?.size === size) return false;
    await mkdir(dirname(path), { recursive: true }).catch((error: unknown) => {
      throw unwritable(path, error);
    });
    const file = await Beside.create(path);
    try {
      await file.write(pieces);
      await file.end();
    } catch (error) {
      await file.abort();
      throw error;
    }
    return true;
  }

  /** A file that is there, as text. */
  async read(name: string): Promise<string | undefined> {
    return await readFile(join(this.#directory, name), 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw unwritable(join(this.#directory, name), error);
    });
  }
}

/** A file written under another name, which gets its own when it is whole and on the disk. */
class Beside {
  readonly #path: string;
  readonly #temporary: string;
  readonly #file: FileHandle;

  private constructor(path: string, temporary: string, file: FileHandle) {
    this.#path = path;
    this.#temporary = temporary;
    this.#file = file;
  }

  static async create(path: string): Promise<Beside> {
    const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
    const file = await open(temporary, 'wx', 0o644).catch((error: unknown) => {
      throw unwritable(path, error);
    });
    return new Beside(path, temporary, file);
  }

  async write(pieces: Pieces): Promise<void> {
    for await (const piece of pieces) {
      for (let at = 0; at < piece.length;) {
        at += await this.#file.write(piece, at).then(
          ({ bytesWritten }) => bytesWritten,
          (error: unknown) => {
            throw unwritable(this.#path, error);
          },
        );
      }
    }
  }

  async end(): Promise<void> {
    await this.#file.sync();
    await this.#file.close();
    await rename(this.#temporary, this.#path).catch((error: unknown) => {
      throw unwritable(this.#path, error);
    });
  }

  async abort(): Promise<void> {
    await this.#file.close().catch(() => undefined);
    await rm(this.#temporary, { force: true });
  }
}

function unwritable(path: string, cause: unknown): PgError {
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return new PgError('DISK_FULL', `no room to write ${path}`, {
      hint: 'free some space, or export elsewhere',
      cause,
    });
  const why =
    code === 'ENOENT' ? 'there is no such directory' : code === 'EACCES' ? 'permission denied' : (code ?? message);
  return new PgError('DESTINATION_INVALID', `cannot write ${path}: ${why}`, {
    ...(code === 'ENOENT' ? { hint: 'make the directory first, or write elsewhere' } : {}),
    cause,
  });
}
