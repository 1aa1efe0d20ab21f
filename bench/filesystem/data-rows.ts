import { closeSync, fsyncSync, openSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { run } from '../engines.ts';
import { BIG_MIB } from './lower.ts';
import { bench, inside, perSecond, type Row } from './row.ts';

/** Long enough that a mount's first second, when its code is not compiled yet, is not what is measured. */
const RANDOM_READS = 20_000;
const FSYNCS = 10_000;
const DIRECT_MIB = 512;
const WRITTEN_MIB = 512;

const readAll = (path: string): string => run('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'status=none']);

function randomReads(path: string, reads: number): void {
  const fd = openSync(path, 'r');
  const blocks = Math.floor(statSync(path).size / 4096);
  const into = Buffer.alloc(4096);
  let seed = 42;
  for (let i = 0; i < reads; i++) {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    readSync(fd, into, 0, 4096, (seed % blocks) * 4096);
  }
  closeSync(fd);
}

function syncedWrites(path: string, times: number, size: number): void {
  const fd = openSync(path, 'w');
  const bytes = randomBytes(size);
  for (let i = 0; i < times; i++) {
    writeSync(fd, bytes, 0, size, i * size);
    fsyncSync(fd);
  }
  closeSync(fd);
}

const big = (root: string): string => bench(root, 'big');
const write = (root: string, ...words: string[]): string =>
  run('dd', ['if=/dev/zero', `of=${root}/out`, ...words, 'status=none']);

/** Bytes of files. */
export function dataRows(): Row[] {
  return [
    {
      name: 'sequential read, cold',
      unit: 'MiB/s',
      cold: true,
      measure: (root) => perSecond(BIG_MIB, () => readAll(big(root))),
    },
    {
      name: 'sequential read, warm',
      unit: 'MiB/s',
      prepare: (root) => void readAll(big(root)),
      measure: (root) => perSecond(BIG_MIB, () => readAll(big(root))),
    },
    {
      name: 'random 4 KiB reads, cold',
      unit: 'reads/s',
      cold: true,
      measure: (root) => perSecond(RANDOM_READS, () => randomReads(big(root), RANDOM_READS)),
    },
    {
      name: 'random 4 KiB reads, warm',
      unit: 'reads/s',
      prepare: (root) => void readAll(big(root)),
      measure: (root) => perSecond(10 * RANDOM_READS, () => randomReads(big(root), 10 * RANDOM_READS)),
    },
    {
      name: 'exec of a 120 MB program, cold',
      unit: 'runs/s',
      cold: true,
      measure: (root) => perSecond(1, () => run(bench(root, 'node'), ['-e', '0'])),
    },
    {
      name: 'exec of a 120 MB program, warm',
      unit: 'runs/s',
      prepare: (root) => void run(bench(root, 'node'), ['-e', '0']),
      measure: (root) =>
        perSecond(10, () => {
          for (let i = 0; i < 10; i++) run(bench(root, 'node'), ['-e', '0']);
        }),
    },
    {
      name: 'buffered write, then fsync',
      unit: 'MiB/s',
      measure: (root) => perSecond(WRITTEN_MIB, () => write(root, 'bs=1M', `count=${WRITTEN_MIB}`, 'conv=fsync')),
    },
    {
      name: 'O_DIRECT write, 1 MiB',
      unit: 'MiB/s',
      measure: (root) => perSecond(DIRECT_MIB, () => write(root, 'bs=1M', `count=${DIRECT_MIB}`, 'oflag=direct')),
    },
    {
      name: 'O_DIRECT write, 4 KiB',
      unit: 'writes/s',
      measure: (root) => perSecond(5000, () => write(root, 'bs=4k', 'count=5000', 'oflag=direct')),
    },
    {
      name: 'write 4 KiB + fsync',
      unit: 'writes/s',
      measure: (root) => perSecond(FSYNCS, () => syncedWrites(join(root, 'db'), FSYNCS, 4096)),
    },
    {
      name: 'write 8 KiB + fsync',
      unit: 'writes/s',
      measure: (root) => perSecond(FSYNCS, () => syncedWrites(join(root, 'db'), FSYNCS, 8192)),
    },
    {
      name: 'first 4 KiB into a 1 GiB lower file',
      unit: 'writes/s',
      measure: (root) =>
        perSecond(1, () => {
          const fd = openSync(big(root), 'r+');
          writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, 123 * 4096);
          fsyncSync(fd);
          closeSync(fd);
        }),
    },
    {
      name: 'cp inside (copy_file_range)',
      unit: 'MiB/s',
      measure: (root) => perSecond(BIG_MIB, () => inside(root, 'cp /bench/big /bench/copy')),
    },
  ];
}
