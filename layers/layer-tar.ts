import { BLOCK_BYTES } from './tar-header.ts';
import { END_OF_ARCHIVE, padding } from './tar-writer.ts';

/** A file as a layer's tar has it. Names are latin1: one character is one byte. */
export interface LayerFile {
  type: 'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo';
  /** Without a slash before it; a directory's without one behind it. */
  path: string;
  /** Permission bits, set-id and sticky bits. */
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNsec: number;
  /** Bytes of a file. */
  size: number;
  /** Target of a symlink, or path of the file that a hard link is another name of. */
  linkName: string;
  /** The kernel's 32-bit device number. */
  rdev: number;
  xattrs: ReadonlyMap<string, Uint8Array> | undefined;
  /** The bytes of a file, `size` of them, in pieces. */
  data(): Iterable<Uint8Array>;
}

const TYPES: Record<LayerFile['type'], string> = {
  file: '0',
  hardlink: '1',
  symlink: '2',
  char: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};
const NAME_BYTES = 100;
const OCTAL_7 = 0o7777777;
const OCTAL_11 = 0o77777777777;

/**
 * The tar of a layer: ustar headers (POSIX.1-2001), and pax headers where those do not hold a value, as Go's archive/tar writes them and every engine
 * reads them. A piece is the reader's to keep.
 */
export function* layerTar(files: Iterable<LayerFile>): Generator<Uint8Array> {
  for (const file of files) {
    yield headersOf(file);
    if (file.type !== 'file' || file.size === 0) continue;
    yield* file.data();
    yield padding(file.size);
  }
  yield END_OF_ARCHIVE;
}

function headersOf(file: LayerFile): Buffer {
  const name = file.type === 'directory' ? `${file.path}/` : file.path;
  const records = paxRecords(file, name);
  const header = ustarHeader(file, name, TYPES[file.type], file.type === 'file' ? file.size : 0);
  if (records.length === 0) return header;
  const about = { ...file, mode: 0o644, uid: 0, gid: 0, mtimeSec: 0, linkName: '', rdev: 0 };
  const base = file.path.slice(file.path.lastIndexOf('/') + 1);
  const pax = ustarHeader(about, `PaxHeaders.0/${base}`, 'x', records.length);
  return Buffer.concat([pax, records, padding(records.length), header]);
}

/** What a ustar header cannot hold. */
function paxRecords(file: LayerFile, name: string): Buffer {
  const records: Buffer[] = [];
  const add = (keyword: string, value: string): void =>
    void records.push(paxRecord(keyword, Buffer.from(value, 'latin1')));
  if (name.length > NAME_BYTES) add('path', name);
  if (file.linkName.length > NAME_BYTES) add('linkpath', file.linkName);
  if (file.type === 'file' && file.size > OCTAL_11) add('size', String(file.size));
  if (file.uid > OCTAL_7) add('uid', String(file.uid));
  if (file.gid > OCTAL_7) add('gid', String(file.gid));
  if (file.mtimeNsec !== 0 || file.mtimeSec < 0 || file.mtimeSec > OCTAL_11) add('mtime', paxTime(file));
  for (const [key, value] of file.xattrs ?? []) records.push(paxRecord(`SCHILY.xattr.${key}`, value));
  return Buffer.concat(records);
}

/** Seconds with a fraction; before 1970 the fraction counts backwards, too. */
function paxTime({ mtimeSec, mtimeNsec }: LayerFile): string {
  const fraction = (nsec: number): string => (nsec === 0 ? '' : `.${String(nsec).padStart(9, '0').replace(/0+$/, '')}`);
  if (mtimeSec >= 0 || mtimeNsec === 0) return `${mtimeSec}${fraction(mtimeNsec)}`;
  return `-${-mtimeSec - 1}${fraction(1_000_000_000 - mtimeNsec)}`;
}

/** `LENGTH KEYWORD=VALUE\n`; the length counts its own digits. */
function paxRecord(keyword: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${keyword}=`, 'latin1'), value, Buffer.from('\n')]);
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function ustarHeader(
  file: Pick<LayerFile, 'mode' | 'uid' | 'gid' | 'mtimeSec' | 'linkName' | 'rdev'>,
  name: string,
  type: string,
  size: number,
): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  const octal = (value: number, at: number, digits: number): void => {
    const fits = value >= 0 && value < 8 ** digits;
    block.write(`${(fits ? value : 0).toString(8).padStart(digits, '0')}\0`, at, 'latin1');
  };
  block.write(name.slice(0, NAME_BYTES), 0, 'latin1');
  octal(file.mode, 100, 7);
  octal(file.uid, 108, 7);
  octal(file.gid, 116, 7);
  octal(size, 124, 11);
  octal(file.mtimeSec, 136, 11);
  block.write('        ', 148, 'latin1');
  block.write(type, 156, 'latin1');
  block.write(file.linkName.slice(0, NAME_BYTES), 157, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  // include/linux/kdev_t.h, new_decode_dev.
  octal((file.rdev & 0xfff00) >>> 8, 329, 7);
  octal((file.rdev & 0xff) | ((file.rdev >>> 12) & 0xfff00), 337, 7);
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
