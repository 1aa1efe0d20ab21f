import assert from 'node:assert/strict';
import { PgError } from '../mdm/error.ts';
import {
  badHeader,
  BLOCK_BYTES,
  decodeHeader,
  decodePax,
  isZeroBlock,
  type PaxRecords,
  paxNumber,
  paxTime,
  type RawHeader,
  SPECIAL_BYTES_MAX,
  SPECIALS_MAX,
} from './tar-header.ts';
import { checkedMap, dataMap, hasMapInData, oldGnuMap, paxMap, type SparseMap } from './tar-sparse.ts';

/** What a tar is read from: a stream of bytes, or the recipe of one (see recipe.ts). */
export interface TarInput {
  /** Bytes of the tar that were taken so far. */
  readonly offset: number;
  /** The next `bytes` bytes, or fewer where the input ends. Valid until the next call. */
  take(bytes: number): Promise<Buffer>;
}

export type EntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo';

/** One file of a tar, all its headers taken together. Names are latin1 strings, as they stand in the archive. */
export interface TarEntry {
  /** Byte offset of its first header block. */
  offset: number;
  type: EntryType;
  name: string;
  /** Target of a symlink or hard link. */
  linkName: string;
  /** Permission bits, set-id and sticky bits (07777). */
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** Bytes of the file; more than `bodyBytes` when it is sparse. */
  size: number;
  /** Bytes of its data in the archive: they follow, and have to be taken from the input before the next `next`. */
  bodyBytes: number;
  sparse: SparseMap | undefined;
  devMajor: number;
  devMinor: number;
  xattrs: Map<string, Uint8Array> | undefined;
}

const TYPES: Record<string, EntryType> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
};

/**
 * Reads tar entries one after another, holding one header in memory at a time. Everything that is not a file's data is handed to
 * `keep`, in order, so that together with the data it is the archive again, byte for byte. Where `keep` gives a promise, the reader waits.
 *
 * PgError `TAR_TRUNCATED`, `TAR_BAD_HEADER`, `TAR_UNSUPPORTED`, each with the byte offset.
 */
export class TarReader {
  readonly #input: TarInput;
  readonly #keep: (raw: Buffer) => Promise<void> | undefined;
  #bodyEnd = 0;
  #padding = 0;

  constructor(input: TarInput, keep: (raw: Buffer) => Promise<void> | undefined) {
    this.#input = input;
    this.#keep = keep;
  }

  /** The next entry, or undefined after the last (then all of the input has been taken). */
  async next(): Promise<TarEntry | undefined> {
    assert.equal(this.#input.offset, this.#bodyEnd, 'the data of the entry before was taken');
    if (this.#padding > 0 && !(await this.#takePadding())) return this.#finish();
    const offset = this.#input.offset;
    let pax: PaxRecords | undefined;
    let longName: string | undefined;
    let longLink: string | undefined;
    for (let specials = 0; ; specials++) {
      const at = this.#input.offset;
      if (specials > SPECIALS_MAX) throw badHeader(offset, `more than ${SPECIALS_MAX} extended headers in a row`);
      const block = await this.#header();
      if (block === undefined) return undefined;
      const header = decodeHeader(block, at);
      switch (header.type) {
        case 'x':
          pax = decodePax(await this.#special(header), at);
          break;
        case 'g': // docker, podman and containerd ignore global headers, and forget what stood before one
          await this.#special(header);
          pax = longName = longLink = undefined;
          break;
        case 'L':
          longName = untilNul(await this.#special(header));
          break;
        case 'K':
          longLink = untilNul(await this.#special(header));
          break;
        default:
          return this.#entry(offset, header, header.type === 'S' ? Buffer.from(block) : block, pax, longName, longLink);
      }
    }
  }

  async #entry(
    offset: number,
    header: RawHeader,
    block: Buffer,
    pax: PaxRecords | undefined,
    longName: string | undefined,
    longLink: string | undefined,
  ): Promise<TarEntry> {
    let type = TYPES[header.type];
    if (type === undefined) throw unsupported(offset, header);
    const values = pax?.values ?? NONE;
    const number = (keyword: string, plain: number): number => {
      const text = values.get(keyword);
      return text === undefined ? plain : paxNumber(text, offset, keyword);
    };
    const name = longName ?? values.get('GNU.sparse.name') ?? values.get('path') ?? header.name;
    if (header.type === '\0' && name.endsWith('/')) type = 'directory';
    const mtime = values.get('mtime');
    const time = mtime === undefined ? { sec: header.mtimeSec, nsec: 0 } : paxTime(mtime, offset);
    const size = type === 'file' ? number('size', header.size) : 0;
    const entry: TarEntry = {
      offset,
      type,
      name,
      linkName: longLink ?? values.get('linkpath') ?? header.linkName,
      mode: header.mode & 0o7777,
      uid: number('uid', header.uid),
      gid: number('gid', header.gid),
      mtimeSec: time.sec,
      mtimeNsec: time.nsec,
      size,
      bodyBytes: size,
      sparse: undefined,
      devMajor: header.devMajor,
      devMinor: header.devMinor,
      xattrs: xattrsOf(values, offset),
    };
    if (type === 'file') await this.#sparse(entry, header, block, pax);
    checkRanges(entry);
    this.#bodyEnd = this.#input.offset + entry.bodyBytes;
    this.#padding = (BLOCK_BYTES - (this.#bodyEnd % BLOCK_BYTES)) % BLOCK_BYTES;
    return entry;
  }

  async #sparse(entry: TarEntry, header: RawHeader, block: Buffer, pax: PaxRecords | undefined): Promise<void> {
    const more = (): Promise<Buffer> => this.#raw(BLOCK_BYTES);
    let map: SparseMap | undefined;
    if (header.type === 'S') map = await oldGnuMap(block, entry.offset, more);
    else if (pax !== undefined && hasMapInData(pax)) {
      const inData = await dataMap(pax, entry.offset, more);
      map = inData.map;
      entry.bodyBytes -= inData.mapBytes;
    } else if (pax !== undefined) map = paxMap(pax, entry.offset);
    if (map === undefined) return;
    entry.sparse = checkedMap(map, entry.bodyBytes, entry.offset);
    entry.size = map.realSize;
  }

  /** The next header block; undefined at the end marker (everything after it is kept too) or where the input ends between entries. */
  async #header(): Promise<Buffer | undefined> {
    const block = await this.#input.take(BLOCK_BYTES);
    if (block.length === 0) return this.#finish();
    if (block.length < BLOCK_BYTES) throw truncated(this.#input.offset, 'in a header');
    const wait = this.#keep(block);
    if (wait !== undefined) await wait;
    if (!isZeroBlock(block)) return block;
    const at = this.#input.offset;
    const second = await this.#input.take(BLOCK_BYTES);
    if (second.length === BLOCK_BYTES && !isZeroBlock(second))
      throw badHeader(at, 'one block of zeros and then something else');
    await this.#keep(second);
    for (let rest = await this.#input.take(1 << 16); rest.length > 0; rest = await this.#input.take(1 << 16))
      await this.#keep(rest);
    return this.#finish();
  }

  /** The rest of the last block of an entry's data; false where the tar ends in it, which Go takes for the end. */
  async #takePadding(): Promise<boolean> {
    const padding = await this.#input.take(this.#padding);
    await this.#keep(padding);
    return padding.length === this.#padding;
  }

  #finish(): undefined {
    this.#bodyEnd = this.#input.offset;
    this.#padding = 0;
    return undefined;
  }

  /** The data of a header that is about another header, padding taken too. */
  async #special(header: RawHeader): Promise<Buffer> {
    const at = this.#input.offset - BLOCK_BYTES;
    if (header.size < 0 || header.size > SPECIAL_BYTES_MAX) {
      throw badHeader(at, `an extended header of ${header.size} bytes (at most 1 MiB can be)`);
    }
    const padded = Math.ceil(header.size / BLOCK_BYTES) * BLOCK_BYTES;
    return (await this.#raw(padded)).subarray(0, header.size);
  }

  async #raw(bytes: number): Promise<Buffer> {
    const raw = await this.#input.take(bytes);
    if (raw.length < bytes) throw truncated(this.#input.offset, 'in a header or its padding');
    await this.#keep(raw);
    return raw;
  }
}

const NONE: ReadonlyMap<string, string> = new Map();

/** PgError `TAR_TRUNCATED` at this byte of the tar. */
export function truncated(offset: number, where: string): PgError {
  return new PgError('TAR_TRUNCATED', `the tar ends at byte ${offset}, ${where}`, {
    hint: 'the archive is cut off: make or fetch it again',
  });
}

function unsupported(offset: number, header: RawHeader): PgError {
  return new PgError(
    'TAR_UNSUPPORTED',
    `tar entry at byte ${offset}: '${header.name.slice(0, 200)}' is of type '${header.type}', which no layer can have`,
    { hint: 'docker and podman refuse it too; make the layer without multi-volume, dump or label entries' },
  );
}

function untilNul(bytes: Buffer): string {
  const nul = bytes.indexOf(0);
  return bytes.toString('latin1', 0, nul < 0 ? bytes.length : nul);
}

function checkRanges(entry: TarEntry): void {
  const { offset, uid, gid, bodyBytes, devMajor, devMinor } = entry;
  if (bodyBytes < 0 || bodyBytes > Number.MAX_SAFE_INTEGER - offset - (1 << 22))
    throw badHeader(offset, 'a size that cannot be');
  if (uid < 0 || gid < 0 || uid > 0xffff_ffff || gid > 0xffff_ffff)
    throw badHeader(offset, 'an owner that does not fit 32 bits');
  if (entry.type !== 'char' && entry.type !== 'block') return;
  // Linux: 12 bits of major, 20 bits of minor (include/linux/kdev_t.h).
  if (devMajor < 0 || devMajor > 0xfff || devMinor < 0 || devMinor > 0xf_ffff)
    throw badHeader(offset, 'a device number out of range');
}

/** `SCHILY.xattr.NAME` holds the value's bytes; `LIBARCHIVE.xattr.NAME` (name URL-encoded) holds them in base64. The first wins. */
function xattrsOf(values: ReadonlyMap<string, string>, offset: number): Map<string, Uint8Array> | undefined {
  let xattrs: Map<string, Uint8Array> | undefined;
  for (const [keyword, value] of values) {
    if (keyword.startsWith('LIBARCHIVE.xattr.')) {
      const name = keyword
        .slice(17)
        .replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
      xattrs ??= new Map();
      if (!values.has(`SCHILY.xattr.${name}`)) xattrs.set(name, Buffer.from(value, 'base64'));
    } else if (keyword.startsWith('SCHILY.xattr.')) {
      xattrs ??= new Map();
      xattrs.set(keyword.slice(13), Buffer.from(value, 'latin1'));
    }
  }
  for (const [name, value] of xattrs ?? []) {
    // xattr(7): names of 1 to 255 bytes without NUL, values of at most 64 KiB.
    if (name === '' || name.length > 255 || name.includes('\0') || value.length > 65536) {
      throw badHeader(offset, 'an extended attribute that Linux cannot have');
    }
  }
  return xattrs;
}
