/**
 * The filesystem beside its peers on the same disk in one run: a pg mount, fuse-overlayfs, and the kernel's overlayfs, each with the same
 * lower tree and an empty writable layer. `node bench/fs.ts [ROUNDS] [ROW...]` prints a markdown table of the best round of each: on a
 * shared machine what others do only ever slows a round down.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { canonicalMountPoint, startDetachedMount, stopDetachedMount } from '../fs/detached.ts';
import { importImage } from '../layers/import.ts';
import { openStore } from '../store/store.ts';
import { run, scratch, seconds } from './engines.ts';

const MIB = 1 << 20;
const BIG_MIB = 512;
/** Long enough that a mount's first second, when its code is not compiled yet, is not what is measured. */
const RANDOM_READS = 20_000;
const FSYNCS = 2000;

/** A filesystem under test. */
interface Subject {
  name: string;
  /** Mounts with an empty writable layer; returns the directory. */
  mount(): Promise<string>;
  unmount(): Promise<void>;
}

/** One row: what is measured, in a unit of which more is better. Runs on a fresh mount; `prepare` is not timed. */
interface Row {
  name: string;
  unit: string;
  prepare?(root: string): void;
  /** Whether the caches are dropped before. */
  cold?: boolean;
  measure(root: string): number;
}

const sync = (): void => void run('sync', []);
const dropCaches = (): void => {
  sync();
  writeFileSync('/proc/sys/vm/drop_caches', '3');
};

const kinds = new Map<string, (dir: string, tree: string, treeRoot: Uint8Array) => Subject>([
  [
    'pg',
    (dir, _tree, treeRoot) => {
      const roots = { data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') };
      const mountPoint = join(dir, 'pg-mnt');
      let generation = 0;
      let logDir = '';
      return {
        name: 'pg',
        async mount() {
          mkdirSync(mountPoint, { recursive: true });
          logDir = join(dir, `pg-log${generation++}`);
          await startDetachedMount({
            roots,
            treeRoot,
            logDir,
            mountPoint: canonicalMountPoint(mountPoint),
            label: 'bench',
          });
          return mountPoint;
        },
        async unmount() {
          await stopDetachedMount(roots, mountPoint);
          rmSync(logDir, { recursive: true });
        },
      };
    },
  ],
  [
    'fuse-overlayfs',
    (dir, tree) => overlay('fuse-overlayfs', dir, tree, (options, at) => run('fuse-overlayfs', ['-o', options, at])),
  ],
  [
    'overlayfs',
    (dir, tree) =>
      overlay('overlayfs', dir, tree, (options, at) => run('mount', ['-t', 'overlay', 'overlay', '-o', options, at])),
  ],
]);

function overlay(name: string, dir: string, lower: string, start: (options: string, at: string) => void): Subject {
  const own = join(dir, name);
  const at = join(own, 'mnt');
  return {
    name,
    async mount() {
      for (const part of ['upper', 'work', 'mnt']) mkdirSync(join(own, part), { recursive: true });
      start(`lowerdir=${lower},upperdir=${join(own, 'upper')},workdir=${join(own, 'work')}`, at);
      return at;
    },
    async unmount() {
      run('umount', [at]);
      rmSync(own, { recursive: true });
    },
  };
}

const count = (root: string): number => Number(run('sh', ['-c', `find ${root}/tree -printf '%s\\n' | wc -l`]));

function perSecond(amount: number, work: () => void): number {
  return amount / seconds(work);
}

function readAll(path: string): void {
  run('dd', [`if=${path}`, 'of=/dev/null', 'bs=1M', 'status=none']);
}

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

function smallFiles(dir: string, files: number, create: boolean): void {
  const bytes = Buffer.alloc(1024, 'x');
  if (create) mkdirSync(dir);
  for (let i = 0; i < files; i++) {
    const path = join(dir, `file-${i}`);
    if (create) {
      const fd = openSync(path, 'w');
      writeSync(fd, bytes);
      closeSync(fd);
    } else unlinkSync(path);
  }
}

function fsyncs(path: string, times: number, size: number): void {
  const fd = openSync(path, 'w');
  const bytes = randomBytes(size);
  for (let i = 0; i < times; i++) {
    writeSync(fd, bytes, 0, size, i * size);
    fsyncSync(fd);
  }
  closeSync(fd);
}

const big = (root: string): string => join(root, 'big');

function rows(tarball: string, files: number): Row[] {
  const warm = (root: string): void => void count(root);
  return [
    {
      name: 'lookup + stat, cold',
      unit: 'files/s',
      cold: true,
      measure: (root) => perSecond(files, () => count(root)),
    },
    {
      name: 'lookup + stat, warm',
      unit: 'files/s',
      prepare: warm,
      measure: (root) => perSecond(files, () => count(root)),
    },
    {
      name: 'create + write 1 KiB',
      unit: 'files/s',
      measure: (root) => perSecond(3000, () => smallFiles(join(root, 'new'), 3000, true)),
    },
    {
      name: 'unlink',
      unit: 'files/s',
      prepare: (root) => smallFiles(join(root, 'new'), 3000, true),
      measure: (root) => perSecond(3000, () => smallFiles(join(root, 'new'), 3000, false)),
    },
    {
      name: 'sequential read, cold',
      unit: 'MiB/s',
      cold: true,
      measure: (root) => perSecond(BIG_MIB, () => readAll(big(root))),
    },
    {
      name: 'sequential read, warm',
      unit: 'MiB/s',
      prepare: (root) => readAll(big(root)),
      measure: (root) => perSecond(BIG_MIB, () => readAll(big(root))),
    },
    {
      name: 'random 4 KiB reads, cold',
      unit: 'reads/s',
      cold: true,
      measure: (root) => perSecond(RANDOM_READS, () => randomReads(big(root), RANDOM_READS)),
    },
    {
      name: 'buffered write, then sync',
      unit: 'MiB/s',
      measure: (root) =>
        perSecond(256, () =>
          run('dd', ['if=/dev/zero', `of=${root}/out`, 'bs=1M', 'count=256', 'conv=fsync', 'status=none']),
        ),
    },
    {
      name: 'write 4 KiB + fsync',
      unit: 'writes/s',
      measure: (root) => perSecond(FSYNCS, () => fsyncs(join(root, 'db'), FSYNCS, 4096)),
    },
    {
      name: 'untar of the tree',
      unit: 'files/s',
      measure: (root) =>
        perSecond(files, () => run('sh', ['-c', `mkdir ${root}/untar && tar -C ${root}/untar -xf ${tarball}`])),
    },
    {
      name: 'rm -rf of an untarred tree',
      unit: 'files/s',
      prepare: (root) => run('sh', ['-c', `mkdir ${root}/untar && tar -C ${root}/untar -xf ${tarball}`]),
      measure: (root) => perSecond(files, () => run('rm', ['-rf', join(root, 'untar')])),
    },
    {
      name: `first 4 KiB into a ${BIG_MIB} MiB lower file`,
      unit: 'writes/s',
      measure: (root) =>
        perSecond(1, () => {
          const fd = openSync(big(root), 'r+');
          writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, 123 * 4096);
          fsyncSync(fd);
          closeSync(fd);
        }),
    },
  ];
}

/** A tree of small files from this machine, and one big file, as a directory, a tarball of the small files, and an image. */
async function makeLower(dir: string): Promise<{ tree: string; tarball: string; treeRoot: Uint8Array; files: number }> {
  const tree = join(dir, 'lower');
  mkdirSync(join(tree, 'tree'), { recursive: true });
  const source = ['/usr/share/perl', '/usr/lib/python3', '/usr/include', '/usr/share/doc'].filter((path) =>
    existsSync(path),
  );
  run('sh', ['-c', `cp -a ${source.join(' ')} ${tree}/tree/`]);
  const fd = openSync(big(tree), 'w');
  for (let i = 0; i < BIG_MIB / 4; i++) writeSync(fd, randomBytes(4 * MIB));
  closeSync(fd);
  const tarball = join(dir, 'tree.tar');
  run('tar', ['-C', join(tree, 'tree'), '-cf', tarball, '.']);
  const archive = join(dir, 'archive');
  mkdirSync(archive);
  run('tar', ['-C', tree, '-cf', join(archive, 'layer.tar'), '.']);
  const diffId = createHash('sha256');
  const layer = openSync(join(archive, 'layer.tar'), 'r');
  const chunk = Buffer.alloc(MIB);
  for (let got = 0; (got = readSync(layer, chunk)) > 0;) diffId.update(chunk.subarray(0, got));
  closeSync(layer);
  const rootfs = { type: 'layers', diff_ids: [`sha256:${diffId.digest('hex')}`] };
  writeFileSync(
    join(archive, 'config.json'),
    JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs }),
  );
  writeFileSync(
    join(archive, 'manifest.json'),
    JSON.stringify([{ Config: 'config.json', RepoTags: ['bench/fs:1'], Layers: ['layer.tar'] }]),
  );
  run('tar', ['-C', archive, '-cf', join(dir, 'image.tar'), 'manifest.json', 'config.json', 'layer.tar']);
  rmSync(archive, { recursive: true });
  const store = openStore({ data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') });
  const { image } = await importImage(store, `docker-archive:${join(dir, 'image.tar')}`, {});
  await store.close();
  rmSync(join(dir, 'image.tar'));
  const files = readdirSync(join(tree, 'tree'), { recursive: true }).length;
  return { tree, tarball, treeRoot: image.treeRoot, files };
}

async function measureAll(subjects: Subject[], chosen: Row[], rounds: number): Promise<Map<string, number[]>> {
  const results = new Map<string, number[]>();
  for (let round = 0; round < rounds; round++) {
    for (const row of chosen) {
      for (const subject of subjects) {
        let root = await subject.mount();
        try {
          row.prepare?.(root);
          if (row.cold) {
            await subject.unmount();
            dropCaches();
            root = await subject.mount();
            lstatSync(root);
          } else sync();
          const key = `${row.name}/${subject.name}`;
          results.set(key, [...(results.get(key) ?? []), row.measure(root)]);
        } finally {
          await subject.unmount();
        }
      }
    }
  }
  return results;
}

async function main(): Promise<void> {
  const rounds = Number(process.argv[2] ?? 3);
  const wanted = process.argv.slice(3);
  const { dir, clean } = scratch('fs');
  try {
    const { tree, tarball, treeRoot, files } = await makeLower(dir);
    const subjects = [...kinds.values()].map((make) => make(dir, tree, treeRoot));
    const chosen = rows(tarball, files).filter(
      (row) => wanted.length === 0 || wanted.some((word) => row.name.includes(word)),
    );
    const results = await measureAll(subjects, chosen, rounds);
    const show = (value: number): string => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
    console.log(
      `| ${files} small files, ${rounds} rounds | unit | ${subjects.map((s) => s.name).join(' | ')} | to fuse-overlayfs | to overlayfs |`,
    );
    console.log(`|---|---|${'---|'.repeat(subjects.length + 2)}`);
    for (const row of chosen) {
      const [ours, fuse, kernel] = subjects.map((s) => Math.max(...results.get(`${row.name}/${s.name}`)!)) as [
        number,
        number,
        number,
      ];
      const cells = [ours, fuse, kernel].map(show).join(' | ');
      console.log(
        `| ${row.name} | ${row.unit} | ${cells} | ${(ours / fuse).toFixed(2)} | ${(ours / kernel).toFixed(2)} |`,
      );
    }
  } finally {
    clean();
  }
}

await main();
