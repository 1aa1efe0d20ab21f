/**
 * An archive of an image as a set of files: one pass over the headers makes a table, then every entry is read where it
 * lies.
 *
 * Only what docker save, podman save, skopeo, umoci, crane and tar(1) write around an image is understood here: ustar,
 * GNU long names, PAX path, linkpath and size (POSIX pax, "pax Header Block"; GNU tar manual, "Basic Tar Format").
 * Layers are tars too, with all their oddities, but to this table they are plain files.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { posix } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import type { ProgressSink } from '../progress.ts';
import { decompressed, detectCompression } from './decompress.ts';
import { missing, readExactly, readRange, unreadable, type FileSet } from './files.ts';
import { tooLarge } from './manifest.ts';
import { limited, UNPACK_LIMIT, type UnpackLimit } from './unpack-limit.ts';
import { spool } from './spool.ts';

const BLOCK_BYTES = 512;
/** A PAX header or long name around an image's files has a few hundred bytes. */
const EXTENSION_BYTES_MAX = 1024 * 1024;
const ENTRIES_MAX = 500_000;
const LINK_HOPS_MAX = 16;

type Entry = { kind: 'file'; offset: number; size: number } | { kind: 'link'; target: string } | { kind: 'sparse' };

export interface ArchiveOptions {
  tempDir?: string;
  progress?: ProgressSink;
  signal?: AbortSignal;
  unpack?: UnpackLimit;
}

/** Files of a tar archive that lies in `handle`. Closing it closes the handle. */
export class TarFiles implements FileSet {
  readonly label: string;
  readonly #handle: FileHandle;
  readonly #entries: Map<string, Entry>;

  private constructor(label: string, handle: FileHandle, entries: Map<string, Entry>) {
    this.label = label;
    this.#handle = handle;
    this.#entries = entries;
  }

  /**
   * Opens the archive at `path`: plain, gzip'd or zstd'd (unpacked into temporary space first); a FIFO or /dev/stdin
   * too. Throws FILE_UNREADABLE, ARCHIVE_UNKNOWN, ARCHIVE_DAMAGED, TRUNCATED.
   */
  static async open(path: string, options: ArchiveOptions = {}): Promise<TarFiles> {
    const handle = await open(path, 'r').catch((error: unknown) => {
      throw unreadable(path, error);
    });
    try {
      const stat = await handle.stat();
      if (stat.isDirectory()) {
        throw new PgError('FILE_UNREADABLE', `${path} is a directory, not an archive`, {
          hint: `did you mean oci:${path}?`,
        });
      }
      const head = stat.isFile() ? (await handle.read(Buffer.alloc(6), 0, 6, 0)).buffer : null;
      if (head !== null && detectCompression(head) === 'none') {
        refuseOtherCompressions(head, path);
        return await TarFiles.over(handle, path);
      }
      const copied = await unpackArchive(handle, path, stat.isFile() ? stat.size : undefined, options);
      await handle.close();
      return await TarFiles.over(copied, path);
    } catch (error) {
      await handle.close().catch(() => undefined);
      throw error;
    }
  }

  /** The same over an open file, which is closed if it is no archive. `label` names it for people. */
  static async over(handle: FileHandle, label: string): Promise<TarFiles> {
    try {
      return new TarFiles(label, handle, await indexEntries(handle, label));
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async sizeOf(path: string): Promise<number | null> {
    return this.#find(path)?.size ?? null;
  }

  async readWhole(path: string, limitBytes: number): Promise<Buffer | null> {
    const entry = this.#find(path);
    if (entry === null) return null;
    if (entry.size > limitBytes) throw tooLarge(`${path} in ${this.label}`, entry.size);
    return readExactly(this.#handle, entry.offset, entry.size, this.label);
  }

  /** The first bytes of an entry, at most `lengthBytes`. Throws FILE_MISSING. */
  async head(path: string, lengthBytes: number): Promise<Buffer> {
    const entry = this.#find(path);
    if (entry === null) throw missing(path, this.label);
    return readExactly(this.#handle, entry.offset, Math.min(lengthBytes, entry.size), this.label);
  }

  async *stream(path: string, signal?: AbortSignal): AsyncIterable<Uint8Array> {
    const entry = this.#find(path);
    if (entry === null) throw missing(path, this.label);
    yield* readRange(this.#handle, entry.offset, entry.size, `${path} in ${this.label}`, signal);
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  #find(path: string): { offset: number; size: number } | null {
    let name = cleanName(path);
    for (let hops = 0; hops < LINK_HOPS_MAX; hops++) {
      const entry = this.#entries.get(name);
      if (entry === undefined) return null;
      if (entry.kind === 'file') return entry;
      if (entry.kind === 'sparse') throw damaged(this.label, `its entry ${name} is a sparse file`);
      name = entry.target;
    }
    throw damaged(this.label, `its links around ${path} lead in a circle`);
  }
}

async function unpackArchive(
  handle: FileHandle,
  path: string,
  sizeBytes: number | undefined,
  options: ArchiveOptions,
): Promise<FileHandle> {
  const { progress, tempDir, signal } = options;
  const id = `archive:${path}`;
  progress?.start(id, `reading ${posix.basename(path)}`, sizeBytes);
  let taken = 0;
  async function* packed(): AsyncGenerator<Uint8Array> {
    for (;;) {
      signal?.throwIfAborted();
      const chunk = Buffer.allocUnsafeSlow(1024 * 1024);
      const { bytesRead } = await handle.read(chunk, 0, chunk.length, null);
      if (bytesRead === 0) return;
      progress?.advance(id, bytesRead);
      taken += bytesRead;
      yield chunk.subarray(0, bytesRead);
    }
  }
  const whole = decompressed(packed(), path);
  // What comes through a pipe says no size: what has come of it so far counts.
  const within = limited(whole, () => sizeBytes ?? taken, options.unpack ?? UNPACK_LIMIT, path);
  const copied = await spool(within, tempDir);
  progress?.done(id);
  return copied;
}

function refuseOtherCompressions(head: Uint8Array, path: string): void {
  const name =
    head[0] === 0xfd && head[1] === 0x37
      ? 'xz'
      : head[0] === 0x42 && head[1] === 0x5a && head[2] === 0x68
        ? 'bzip2'
        : null;
  if (name === null) return;
  throw new PgError('ARCHIVE_UNKNOWN', `${path} is compressed with ${name}, which pg does not unpack`, {
    hint: `unpack it first: ${name} -d -k ${path}`,
  });
}

async function indexEntries(handle: FileHandle, label: string): Promise<Map<string, Entry>> {
  const { size: archiveBytes } = await handle.stat();
  const entries = new Map<string, Entry>();
  let extension = new Extension();
  let count = 0;
  for (let at = 0; at + BLOCK_BYTES <= archiveBytes;) {
    const block = await readExactly(handle, at, BLOCK_BYTES, label);
    if (block.every((byte) => byte === 0)) break;
    const header = parseHeader(block, label, at);
    const dataAt = at + BLOCK_BYTES;
    const size = extension.size ?? header.size;
    if (dataAt + size > archiveBytes) {
      throw new PgError('TRUNCATED', `${label} ends after ${archiveBytes} bytes, in the middle of ${header.name}`, {
        hint: 'fetch or copy the archive again',
      });
    }
    if ('xLK'.includes(header.type)) {
      if (header.size > EXTENSION_BYTES_MAX) throw damaged(label, `a name at byte ${at} has ${header.size} bytes`);
      extension.read(header.type, await readExactly(handle, dataAt, header.size, label), label);
    } else if (header.type !== 'g') {
      if (++count > ENTRIES_MAX) throw damaged(label, `it has more than ${ENTRIES_MAX} entries`);
      addEntry(entries, header, extension, dataAt, size);
      extension = new Extension();
    }
    at = dataAt + Math.ceil(size / BLOCK_BYTES) * BLOCK_BYTES;
  }
  if (count === 0)
    throw new PgError('ARCHIVE_UNKNOWN', `${label} is not a tar archive, or an empty one`, { hint: 'check the path' });
  return entries;
}

interface Header {
  name: string;
  size: number;
  type: string;
  linkName: string;
}

function addEntry(
  entries: Map<string, Entry>,
  header: Header,
  extension: Extension,
  offset: number,
  size: number,
): void {
  const name = cleanName(extension.name ?? header.name);
  const linkName = extension.linkName ?? header.linkName;
  // A later entry replaces an earlier one of the same name, as in any tar.
  switch (header.type) {
    case '0':
    case '7':
      entries.set(name, extension.isSparse ? { kind: 'sparse' } : { kind: 'file', offset, size });
      return;
    case 'S':
      entries.set(name, { kind: 'sparse' });
      return;
    case '1':
      entries.set(name, { kind: 'link', target: cleanName(linkName) });
      return;
    case '2':
      entries.set(name, { kind: 'link', target: cleanName(posix.join(posix.dirname(name), linkName)) });
      return;
    default:
      entries.delete(name);
  }
}

/** What `x`, `L` and `K` entries say about the entry after them. */
class Extension {
  name: string | undefined;
  linkName: string | undefined;
  size: number | undefined;
  isSparse = false;

  read(type: string, data: Buffer, label: string): void {
    const text = data.toString('latin1');
    if (type === 'L') this.name = text.replace(/\0[^]*$/, '');
    else if (type === 'K') this.linkName = text.replace(/\0[^]*$/, '');
    else this.#readPax(text, label);
  }

  #readPax(text: string, label: string): void {
    for (let at = 0; at < text.length;) {
      const space = text.indexOf(' ', at);
      const length = Number(text.slice(at, space));
      const record = text.slice(space + 1, at + length - 1);
      const equals = record.indexOf('=');
      if (space < 0 || !Number.isSafeInteger(length) || length < 5 || at + length > text.length || equals < 1) {
        throw damaged(label, 'a PAX header is malformed');
      }
      const [key, value] = [record.slice(0, equals), record.slice(equals + 1)];
      if (key === 'path') this.name = value;
      else if (key === 'linkpath') this.linkName = value;
      else if (key === 'size') this.size = decimal(value, label);
      else if (key.startsWith('GNU.sparse.')) this.isSparse = true;
      at += length;
    }
  }
}

function decimal(text: string, label: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw damaged(label, `an entry has the size '${text.slice(0, 40)}'`);
  return value;
}

function parseHeader(block: Buffer, label: string, at: number): Header {
  let sum = 8 * 0x20;
  for (let i = 0; i < BLOCK_BYTES; i++) if (i < 148 || i >= 156) sum += block[i] as number;
  const stored = Number.parseInt(field(block, 148, 8).trim(), 8);
  if (stored !== sum) {
    if (at === 0) throw new PgError('ARCHIVE_UNKNOWN', `${label} is not a tar archive`, { hint: 'check the path' });
    throw damaged(label, `the tar header at byte ${at} has a wrong checksum`);
  }
  const prefix = block.toString('latin1', 257, 262) === 'ustar' && block[262] === 0 ? field(block, 345, 155) : '';
  const name = field(block, 0, 100);
  const type = block[156] === 0 ? '0' : String.fromCharCode(block[156] as number);
  return {
    name: prefix === '' ? name : `${prefix}/${name}`,
    // Links carry a size in some old tars, but never data.
    size: type === '1' || type === '2' || type === '5' ? 0 : number(block, 124, 12, label, at),
    type: type === '0' && name.endsWith('/') ? '5' : type,
    linkName: field(block, 157, 100),
  };
}

function field(block: Buffer, start: number, length: number): string {
  const end = block.subarray(start, start + length).indexOf(0);
  return block.toString('latin1', start, end < 0 ? start + length : start + end);
}

function number(block: Buffer, start: number, length: number, label: string, at: number): number {
  const first = block[start] as number;
  if (first === 0x80) {
    // GNU base-256: big-endian after the marker byte.
    const value = block.subarray(start + 1, start + length).reduce((sum, byte) => sum * 256 + byte, 0);
    if (Number.isSafeInteger(value)) return value;
  } else {
    const text = field(block, start, length).trim();
    if (text === '') return 0;
    if (/^[0-7]+$/.test(text)) return Number.parseInt(text, 8);
  }
  throw damaged(label, `the tar header at byte ${at} has no sensible size`);
}

/** The one spelling of a path within the archive: `./a//b` and `/a/b` are `a/b`; nothing leads out of it. */
function cleanName(name: string): string {
  return posix.normalize(`/${name}`).replace(/^\/+|\/+$/g, '');
}

function damaged(label: string, why: string): PgError {
  return new PgError('ARCHIVE_DAMAGED', `${label} is damaged: ${why}`, {
    hint: 'fetch, copy or save the archive again',
  });
}
