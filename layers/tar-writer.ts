import assert from 'node:assert/strict';
import { BLOCK_BYTES } from './tar-header.ts';

/**
 * A ustar header block (POSIX.1-2001) of a plain file, 0644 root:root, at time 0: what archives of images are made of, the same bytes for
 * the same image. `name` is ASCII of at most 100 characters. Sizes of 8 GiB and more are base-256, as GNU, star and Go write them.
 */
export function fileHeader(name: string, size: number): Buffer {
  assert.ok(/^[\x21-\x7e]{1,100}$/.test(name));
  const block = Buffer.alloc(BLOCK_BYTES);
  block.write(name, 0, 'latin1');
  block.write('0000644\x000000000\x000000000\0', 100, 'latin1');
  if (size < 0o100000000000) block.write(`${size.toString(8).padStart(11, '0')}\0`, 124, 'latin1');
  else {
    block[124] = 0x80;
    block.writeBigUInt64BE(BigInt(size), 128);
  }
  block.write('00000000000\0', 136, 'latin1');
  block.write('        0', 148, 'latin1');
  block.write('ustar\x0000', 257, 'latin1');
  block.write('0000000\x000000000\0', 329, 'latin1');
  let sum = 0;
  for (const byte of block) sum += byte;
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}

/** The zeros that fill a file's data up to whole blocks. */
export function padding(size: number): Buffer {
  return Buffer.alloc((BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES);
}

/** The end of an archive: two blocks of zeros. */
export const END_OF_ARCHIVE: Buffer = Buffer.alloc(2 * BLOCK_BYTES);
