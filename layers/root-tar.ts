/** Root filesystems that become images: a directory, or a tar as `docker import` takes it - a file, stdin, a URL; gzip'd, zstd'd or plain. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { PgError } from '../mdm/error.ts';
import { decompressed } from './transport/decompress.ts';
import { readRange, unreadable } from './transport/files.ts';
import { limited, UNPACK_LIMIT, type UnpackLimit } from './transport/unpack-limit.ts';

export type RootSource =
  { kind: 'directory'; path: string } | { kind: 'file'; path: string } | { kind: 'stdin' } | { kind: 'url'; url: URL };

const STDERR_BYTES_MAX = 4096;
const HEADERS_TIMEOUT_MS = 60_000;

/**
 * The root filesystem that a source names: `rootfs:DIR`, `tar:FILE`, `-`, `http(s)://...`; also `dir:DIR` where that is no image of the
 * transport `dir:` but a directory of files. undefined: it names an image.
 */
export function parseRootSource(source: string): RootSource | undefined {
  if (source === '-') return { kind: 'stdin' };
  if (/^https?:\/\//.test(source) && URL.canParse(source)) return { kind: 'url', url: new URL(source) };
  const [, word, path = ''] = /^(rootfs|tar|dir):(.+)$/s.exec(source) ?? [];
  if (word === 'rootfs') return { kind: 'directory', path };
  if (word === 'tar') return { kind: 'file', path };
  if (word === 'dir' && isNoImage(path)) return { kind: 'directory', path };
  return undefined;
}

/** Neither skopeo's mark nor a manifest: some files. */
function isNoImage(directory: string): boolean {
  return existsSync(directory) && !existsSync(`${directory}/manifest.json`) && !existsSync(`${directory}/version`);
}

/** In words. */
export function describeRoot(source: RootSource): string {
  if (source.kind === 'stdin') return 'stdin';
  return source.kind === 'url' ? source.url.host + source.url.pathname : source.path;
}

/**
 * The tar of a root filesystem, unpacked, read once. `onBytes` is told of what was read. PgError `FILE_UNREADABLE`, `BLOB_DAMAGED`,
 * `URL_UNREADABLE`, `UNPACKS_TOO_FAR` beyond `limit`.
 */
export async function* rootTar(
  source: RootSource,
  onBytes: (bytes: number) => void,
  signal: AbortSignal | undefined,
  limit: UnpackLimit = UNPACK_LIMIT,
): AsyncGenerator<Uint8Array> {
  const what = describeRoot(source);
  let taken = 0;
  const packed = counted(packedTar(source, signal), (bytes) => {
    taken += bytes;
    onBytes(bytes);
  });
  for await (const piece of limited(decompressed(packed, what), () => taken, limit, what)) {
    signal?.throwIfAborted();
    yield piece;
  }
}

function packedTar(source: RootSource, signal: AbortSignal | undefined): AsyncIterable<Uint8Array> {
  switch (source.kind) {
    case 'directory':
      return directoryTar(source.path);
    case 'file':
      return fileBytes(source.path);
    case 'stdin':
      return process.stdin;
    case 'url':
      return urlBytes(source.url, signal);
  }
}

async function* counted(
  pieces: AsyncIterable<Uint8Array>,
  onBytes: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const piece of pieces) {
    onBytes(piece.length);
    yield piece;
  }
}

async function* fileBytes(path: string): AsyncGenerator<Uint8Array> {
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw unreadable(path, error);
  });
  try {
    const found = await handle.stat();
    if (found.isDirectory()) {
      throw new PgError('FILE_UNREADABLE', `${path} is a directory`, { hint: `did you mean rootfs:${path}?` });
    }
    if (found.isFile()) yield* readRange(handle, 0, found.size, path);
    else yield* handle.createReadStream({ autoClose: false });
  } finally {
    await handle.close();
  }
}

/**
 * By tar(1): owners by number, hard links, sparse files, devices, capabilities and user attributes; the names in order, so that the same
 * files are the same tar; not what is mounted below.
 */
async function* directoryTar(path: string): AsyncGenerator<Uint8Array> {
  const found = await stat(path).catch((error: unknown) => {
    throw unreadable(path, error);
  });
  if (!found.isDirectory()) {
    throw new PgError('FILE_UNREADABLE', `${path} is not a directory`, { hint: `did you mean tar:${path}?` });
  }
  const attributes = ['--xattrs', '--xattrs-include=user.*', '--xattrs-include=security.capability'];
  const form = ['--format=posix', '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime'];
  const child = spawn(
    'tar',
    ['-C', path, '-cf', '-', '--numeric-owner', '--sort=name', '--one-file-system', ...form, ...attributes, '.'],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, LC_ALL: 'C' } },
  );
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    if (said.length < STDERR_BYTES_MAX) said += chunk.toString('utf8');
  });
  const ended = once(child, 'close') as Promise<[number | null]>;
  ended.catch(() => undefined);
  try {
    yield* child.stdout;
    const [code] = await ended;
    if (code === 0) return;
    const first = said.split('\n').find((line) => line !== '') ?? `tar ended with ${code}`;
    throw new PgError('FILE_UNREADABLE', `${path} cannot be read whole: ${first.replace(/^tar: /, '')}`, {
      hint: 'nothing was imported; see that nobody writes there, and try again',
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new PgError('FILE_UNREADABLE', 'there is no tar program to read a directory with', { hint: 'install tar' });
  } finally {
    child.kill();
  }
}

/** By GET; what it answers is only as good as its connection: nothing verifies it. */
async function* urlBytes(url: URL, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  const { Connections } = await import('./registry/connections.ts');
  const { request } = await import('undici');
  const connections = new Connections(process.env);
  const failed = (why: string, cause?: unknown): PgError =>
    new PgError('URL_UNREADABLE', `cannot read ${url.host}${url.pathname}: ${why}`, {
      hint: 'check the address; or fetch the file yourself and import tar:FILE',
      ...(cause === undefined ? {} : { cause }),
    });
  try {
    let at = url;
    for (let hops = 0; hops < 5; hops++) {
      const { statusCode, headers, body } = await request(at, {
        dispatcher: connections.to(at, false),
        headersTimeout: HEADERS_TIMEOUT_MS,
        signal: signal ?? null,
      });
      if (statusCode === 200) return void (yield* body as AsyncIterable<Uint8Array>);
      await body.dump();
      const location = headers['location'];
      if (![301, 302, 303, 307, 308].includes(statusCode) || typeof location !== 'string')
        throw failed(`the server answers ${statusCode}`);
      const next = URL.canParse(location, at.href) ? new URL(location, at) : null;
      if (next === null || !/^https?:$/.test(next.protocol) || (at.protocol === 'https:' && next.protocol === 'http:'))
        throw failed('it redirects to what is not followed');
      at = next;
    }
    throw failed('it redirects in circles');
  } catch (error) {
    signal?.throwIfAborted();
    throw error instanceof PgError ? error : failed((error as Error).message, error);
  } finally {
    await connections.close();
  }
}
