/** Tars byte by byte: every header as a test wants it, also such as no tool would write. Names are latin1 strings. */
import { digestOf } from '../../layers/transport/digest.ts';
import { sampleImage, type SampleImage, type SampleLayer } from './transport/samples.ts';

export interface RawEntry {
  name: string;
  /** The type flag; default `0`, or `5` for a name that ends in `/`. */
  type?: string;
  linkName?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  data?: Buffer | string;
  /** What the header says, if not the data's length. */
  size?: number;
  device?: [major: number, minor: number];
  magic?: 'ustar' | 'gnu' | 'v7';
  prefix?: string;
  /** Records of a PAX header before it; a pair list, so that keywords may repeat. */
  pax?: [keyword: string, value: string][];
  /** GNU `L` and `K` headers before it. */
  longName?: string;
  longLink?: string;
  /** Changes the finished header block; its checksum is made afterwards, unless `keepSum`. */
  edit?: (block: Buffer) => void;
  keepSum?: boolean;
}

/** A tar of these entries and, unless given, the usual end. */
export function tarBytes(entries: readonly RawEntry[], end: Buffer = Buffer.alloc(1024)): Buffer {
  return Buffer.concat([...entries.flatMap(entryBytes), end]);
}

function entryBytes(entry: RawEntry): Buffer[] {
  const parts: Buffer[] = [];
  if (entry.pax) parts.push(...entryBytes({ name: 'PaxHeaders/x', type: 'x', data: paxBytes(entry.pax) }));
  if (entry.longName !== undefined)
    parts.push(...entryBytes({ name: '././@LongLink', type: 'L', magic: 'gnu', data: latin1(`${entry.longName}\0`) }));
  if (entry.longLink !== undefined)
    parts.push(...entryBytes({ name: '././@LongLink', type: 'K', magic: 'gnu', data: latin1(`${entry.longLink}\0`) }));
  const data = typeof entry.data === 'string' ? Buffer.from(entry.data) : (entry.data ?? Buffer.alloc(0));
  parts.push(headerBytes(entry, data.length), data, Buffer.alloc((512 - (data.length % 512)) % 512));
  return parts;
}

const latin1 = (text: string): Buffer => Buffer.from(text, 'latin1');

/** `LENGTH KEYWORD=VALUE\n`, the length counting itself (pax(1)). */
export function paxBytes(records: readonly [string, string][]): Buffer {
  const lines = records.map(([keyword, value]) => {
    const rest = ` ${keyword}=${value}\n`;
    let length = rest.length + 1;
    while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
    return latin1(`${length}${rest}`);
  });
  return Buffer.concat(lines);
}

function headerBytes(entry: RawEntry, dataBytes: number): Buffer {
  const block = Buffer.alloc(512);
  const type = entry.type ?? (entry.name.endsWith('/') ? '5' : '0');
  const octal = (value: number, at: number, length: number): void => {
    if (value >= 0 && value < 8 ** (length - 1))
      block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at, 'latin1');
    else base256(block, value, at, length);
  };
  block.write(entry.name.slice(0, 100), 0, 'latin1');
  octal(entry.mode ?? (type === '5' ? 0o755 : 0o644), 100, 8);
  octal(entry.uid ?? 0, 108, 8);
  octal(entry.gid ?? 0, 116, 8);
  octal(entry.size ?? dataBytes, 124, 12);
  octal(entry.mtime ?? 1_700_000_000, 136, 12);
  block.write(type, 156, 'latin1');
  block.write((entry.linkName ?? '').slice(0, 100), 157, 'latin1');
  if (entry.magic === 'gnu') block.write('ustar  \0', 257, 'latin1');
  else if (entry.magic !== 'v7') block.write('ustar\x0000', 257, 'latin1');
  if (entry.device !== undefined) {
    octal(entry.device[0], 329, 8);
    octal(entry.device[1], 337, 8);
  }
  if (entry.prefix !== undefined) block.write(entry.prefix, 345, 'latin1');
  entry.edit?.(block);
  if (!entry.keepSum) {
    block.write('        ', 148, 'latin1');
    const sum = block.reduce((total, byte) => total + byte, 0);
    block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  }
  return block;
}

/** Big-endian two's complement with the first bit set, as GNU tar writes what octal cannot hold. */
export function base256(block: Buffer, value: number, at: number, length: number): void {
  let rest = BigInt(value);
  for (let i = at + length - 1; i >= at; i--) {
    block[i] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  block[at]! |= 0x80;
}

/** An uncompressed layer of a tar. */
export function layerOf(tar: Buffer): SampleLayer {
  const digest = digestOf(tar);
  return { tar, blob: tar, diffId: digest, digest, mediaType: 'application/vnd.oci.image.layer.v1.tar' };
}

/** An image of these tars, lowest first. */
export function imageOf(...tars: Buffer[]): SampleImage {
  return sampleImage(tars.map(layerOf));
}
