/**
 * tar-split (github.com/vbatts/tar-split, tar/storage/entry.go): a tar taken apart into its headers and the files that were unpacked from it,
 * as podman and docker keep layers. JSON objects, one a line: type 1 is a file's data, `size` bytes of the unpacked file `name`; type 2 is
 * `payload`, bytes of the tar as they are (base64).
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { decompressed } from './decompress.ts';
import { readRange, unreadable } from './files.ts';

const FILE = 1;
const SEGMENT = 2;
/** A header, PAX records and a gap at most. */
const LINE_BYTES_MAX = 64 * 1024 * 1024;

interface Piece {
  type: number;
  name?: string;
  name_raw?: string;
  size?: number;
  payload?: string;
}

/**
 * The tar, from its tar-split at `path` (gzip or zstd) and the files below `root`. It is unproved until its digest has been compared: files
 * may have been changed. Throws FILE_UNREADABLE, FILE_MISSING, TRUNCATED, LAYER_DAMAGED.
 */
export async function* assembledTar(
  path: string,
  root: string,
  what: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const line of lines(path, what)) {
    signal?.throwIfAborted();
    const piece = parsePiece(line, path);
    if (piece.type === SEGMENT) yield Buffer.from(piece.payload ?? '', 'base64');
    else if (piece.size !== undefined && piece.size > 0) yield* fileBytes(piece, root, piece.size, signal);
  }
}

function parsePiece(line: string, path: string): Piece {
  try {
    const piece = JSON.parse(line) as Piece;
    const isSized = piece.size === undefined || (Number.isSafeInteger(piece.size) && piece.size >= 0);
    if ((piece.type === FILE || piece.type === SEGMENT) && isSized) return piece;
  } catch {
    // said below
  }
  throw new PgError('LAYER_DAMAGED', `${path} is not what podman writes of a layer`, {
    hint: 'take the image out with podman itself: podman save',
  });
}

async function* fileBytes(
  { name, name_raw: raw }: Piece,
  root: string,
  size: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  // The name stands as in the tar; nothing leads out of the layer's directory by its dots, and what a symlink shows fails the digest.
  const given = raw === undefined ? Buffer.from(name ?? '') : Buffer.from(raw, 'base64');
  const inside = posix.normalize(`/${given.toString('latin1')}`);
  const path = join(root, inside);
  const handle = await open(
    Buffer.concat([Buffer.from(root), Buffer.from(inside, 'latin1')]),
    constants.O_RDONLY | constants.O_NONBLOCK,
  ).catch((error: unknown) => {
    throw unreadable(path, error);
  });
  try {
    const stat = await handle.stat();
    if (!stat.isFile() || stat.size < size) {
      throw new PgError('LAYER_DAMAGED', `${path} is not the file that its layer had (${size} bytes)`, {
        hint: 'somebody has changed it; pull the image again',
      });
    }
    yield* readRange(handle, 0, size, path, signal);
  } finally {
    await handle.close();
  }
}

async function* lines(path: string, what: string): AsyncGenerator<string> {
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw unreadable(path, error);
  });
  try {
    const { size } = await handle.stat();
    let rest = Buffer.alloc(0);
    for await (const chunk of decompressed(readRange(handle, 0, size, path), `the list of ${what}`)) {
      let bytes = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
      for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10)) {
        if (end > 0) yield bytes.toString('utf8', 0, end);
        bytes = bytes.subarray(end + 1);
      }
      if (bytes.length > LINE_BYTES_MAX) throw new PgError('LAYER_DAMAGED', `${path} has a line without an end`);
      rest = bytes;
    }
    if (rest.length > 0) yield rest.toString('utf8');
  } finally {
    await handle.close();
  }
}
