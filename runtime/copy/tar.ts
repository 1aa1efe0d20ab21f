import { StreamInput } from '../../layers/tar-input.ts';
import { type TarEntry, TarReader, truncated } from '../../layers/tar.ts';
import type { CopyEntry } from './entry.ts';

const BLOCK_BYTES = 512;
const CHUNK_BYTES = 1 << 20;
const OCTAL_SIZE_MAX = 0o77777777777;
const TYPE = { file: '0', hardlink: '1', symlink: '2', char: '3', block: '4', directory: '5', fifo: '6' } as const;

/** makedev(3) taken apart. */
const major = (rdev: number): number => (rdev >>> 8) & 0xfff;
const minor = (rdev: number): number => (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);

/** One header block of GNU tar (tar(5)). */
function header(entry: CopyEntry, name: string, linkName: string, type: string, size: number): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, at: number, length: number): void => {
    block.write(
      `${Math.floor(value)
        .toString(8)
        .padStart(length - 1, '0')}\0`,
      at,
      'latin1',
    );
  };
  block.write(name, 0, 100, 'latin1');
  octal(entry.mode, 100, 8);
  octal(Math.min(entry.uid, 0o7777777), 108, 8);
  octal(Math.min(entry.gid, 0o7777777), 116, 8);
  if (size <= OCTAL_SIZE_MAX) octal(size, 124, 12);
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  octal(Math.max(0, entry.mtimeMs / 1000), 136, 12);
  block.write('        ', 148, 'latin1');
  block.write(type, 156, 'latin1');
  block.write(linkName, 157, 100, 'latin1');
  block.write('ustar  \0', 257, 'latin1');
  octal(major(entry.rdev), 329, 8);
  octal(minor(entry.rdev), 337, 8);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** A name that does not fit goes before as the body of an entry of its own: type L, or K for a link's target. */
function longName(entry: CopyEntry, text: string, type: 'L' | 'K'): Buffer {
  const body = Buffer.from(`${text}\0`, 'latin1');
  return Buffer.concat([header(entry, '././@LongLink', '', type, body.length), body, padding(body.length)]);
}

const padding = (size: number): Buffer => Buffer.alloc((BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES);

/** A tar of entries, as GNU tar writes it. */
export async function* writeTar(entries: Iterable<CopyEntry> | AsyncIterable<CopyEntry>): AsyncIterable<Uint8Array> {
  for await (const entry of entries) {
    const name = entry.kind === 'directory' ? `${entry.path}/` : entry.path;
    if (name.length > 100) yield longName(entry, name, 'L');
    if (entry.linkName.length > 100) yield longName(entry, entry.linkName, 'K');
    yield header(entry, name, entry.linkName, TYPE[entry.kind], entry.size);
    // The consumer may keep a chunk: the reader uses its buffer again.
    for await (const chunk of entry.read()) yield Buffer.from(chunk);
    yield padding(entry.size);
  }
  yield Buffer.alloc(2 * BLOCK_BYTES);
}

/** The entries of a tar. PgError('TAR_...') when it is damaged. */
export async function* readTar(stream: AsyncIterable<Uint8Array>): AsyncIterable<CopyEntry> {
  const input = new StreamInput(stream);
  const reader = new TarReader(input, () => undefined);
  for (let found = await reader.next(); found !== undefined; found = await reader.next()) {
    const entry = found;
    yield {
      path: entry.name
        .split('/')
        .filter((part) => part !== '' && part !== '.')
        .join('/'),
      kind: entry.type,
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      mtimeMs: entry.mtimeSec * 1000 + entry.mtimeNsec / 1e6,
      size: entry.size,
      linkName: entry.linkName,
      rdev: (entry.devMajor << 8) | (entry.devMinor & 0xff) | ((entry.devMinor & 0xfff00) << 12),
      read: () => bodyOf(entry, input),
    };
  }
}

/** The bytes of a file; the holes of a sparse one as zeros. */
async function* bodyOf(entry: TarEntry, input: StreamInput): AsyncIterable<Uint8Array> {
  const runs = entry.sparse?.runs ?? [{ offset: 0, length: entry.bodyBytes }];
  let at = 0;
  for (const { offset, length } of runs) {
    yield* zeros(offset - at);
    for (let left = length; left > 0;) {
      const chunk = await input.take(Math.min(left, CHUNK_BYTES));
      if (chunk.length === 0) throw truncated(input.offset, 'in the data of a file');
      yield chunk;
      left -= chunk.length;
    }
    at = offset + length;
  }
  yield* zeros(entry.size - at);
}

function* zeros(count: number): Iterable<Uint8Array> {
  const block = Buffer.alloc(Math.min(Math.max(count, 0), CHUNK_BYTES));
  for (let left = count; left > 0; left -= block.length) yield block.subarray(0, Math.min(left, block.length));
}
