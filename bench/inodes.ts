/** What a mount's server holds in memory when the kernel holds a million of its inodes: those of an image, and those that were made in the mount. `node bench/inodes.ts [INODES]` */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildTree } from '../layers/build.ts';
import { startMount } from '../fs/mount.ts';
import { openStore } from '../store/store.ts';
import { treeOf } from './mount-tree.ts';
import { machine, scratch, table } from './engines.ts';
import { spawn } from 'node:child_process';

const INODES = Number(process.argv[2] ?? 1_000_000);

/** MiB of a process: resident, its own. */
function memoryOf(pid: number): { resident: number; own: number } {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  const of = (name: string): number => Number(new RegExp(`^${name}: +(\\d+)`, 'm').exec(text)![1]) / 1024;
  return { resident: of('Rss'), own: of('Anonymous') };
}

/** Runs a shell script beside this process, which holds the mount. */
const run = (script: string): Promise<void> =>
  new Promise((resolve, reject) => {
    spawn('sh', ['-ec', script], { stdio: ['ignore', 'ignore', 'inherit'] }).once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${script}: ${code}`)),
    );
  });

const work = scratch('inodes');
const roots = { data: join(work.dir, 'data'), run: join(work.dir, 'run'), config: join(work.dir, 'etc') };
const mountPoint = join(work.dir, 'mnt');
mkdirSync(mountPoint);
const rows: string[][] = [];
try {
  const store = openStore(roots);
  const treeRoot = buildTree(store, treeOf(INODES));
  await store.close();
  const mount = await startMount({ roots, treeRoot, logDir: join(work.dir, 'log'), mountPoint, label: 'bench' });
  const note = async (what: string): Promise<void> => {
    const { kernelInodes } = await mount.stats();
    const { resident, own } = memoryOf(mount.serverPid);
    rows.push([what, String(kernelInodes), resident.toFixed(0), own.toFixed(0)]);
  };
  await note('mounted');
  await run(`find ${mountPoint} -type f -size +1 | wc -l`);
  await note(`${INODES} files of the image looked up`);
  await run(`find ${mountPoint} -type f -size +1 | wc -l`);
  await note('and once more');
  writeFileSync('/proc/sys/vm/drop_caches', '2');
  await run('sleep 2');
  await note('and forgotten by the kernel');
  await mount.unmount();
} finally {
  work.clean();
}
process.stdout.write(`${machine()}\n`);
table('Memory of the server', ['', 'inodes that the kernel holds', 'resident, MiB', 'its own, MiB'], rows);
