import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { startMount } from '../fs/mount.ts';

/**
 * A file in a mount is written over ten times, whole and at random, while another program writes and syncs 4 KiB in the mount and on the disk below in turn: what the
 * log takes of the disk, and how long those writes take. As root: `scripts/with-node bench/cleaner.ts [MIB]`. The writers are processes of their own.
 */
const MIB = Number(process.argv[2] ?? 1024);
const ROUNDS = 10;

const WRITER = `
const fs = require('node:fs');
const [path, mib, rounds] = [process.argv[1], Number(process.argv[2]), Number(process.argv[3])];
const fd = fs.openSync(path, 'w');
const bytes = Buffer.alloc(1 << 20);
const order = Array.from({ length: mib * 4 }, (_, i) => i);
for (let round = 0; round < rounds; round++) {
  if (round > 0 && round % 2 === 0) for (let i = order.length - 1; i > 0; i--) { const j = Math.floor(Math.random() * (i + 1)); [order[i], order[j]] = [order[j], order[i]]; }
  if (round % 2 === 1) order.sort((a, b) => a - b);
  let count = 0;
  for (const block of order) {
    if (++count % 16 === 0) fs.fdatasyncSync(fd); bytes.fill(round + block); fs.writeSync(fd, bytes, 0, 1 << 18, block << 18); }
  fs.fsyncSync(fd);
  process.stdout.write('round\\n');
}
fs.closeSync(fd);
`;
const PROBE = `
const fs = require('node:fs');
const paths = process.argv.slice(1);
const fds = paths.map((path) => fs.openSync(path, 'w'));
const took = paths.map(() => []);
const bytes = Buffer.alloc(4096, 'probe');
const go = () => {
  for (const [i, fd] of fds.entries()) {
    const start = performance.now();
    fs.writeSync(fd, bytes, 0, 4096, 4096 * (took[i].length % 256));
    fs.fdatasyncSync(fd);
    took[i].push(performance.now() - start);
  }
  setTimeout(go, 5);
};
process.on('SIGTERM', () => { process.stdout.write(JSON.stringify(took)); process.exit(0); });
go();
`;

/** Runs a program of this file in another process; its output when it has ended. `lines` gets every line as it comes. */
function run(
  code: string,
  args: string[],
  lines: (line: string) => void = () => {},
): { output: Promise<string>; stop(): void } {
  const child = spawn(process.execPath, ['-e', code, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    for (const line of text.split('\n')) if (line !== '') lines(line);
  });
  return {
    output: new Promise((resolve) => child.on('close', () => resolve(output))),
    stop: () => child.kill('SIGTERM'),
  };
}

const dir = mkdtempSync('/var/tmp/pg-bench-');
const [mountPoint, logDir] = [join(dir, 'mnt'), join(dir, 'log')];
mkdirSync(mountPoint);
const roots = { data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') };
const mount = await startMount({ roots, treeRoot: null, logDir, mountPoint, label: 'bench' });
try {
  const onDisk = (): number => (statSync(join(logDir, 'log')).blocks * 512) / (1 << 20);
  let most = 0;
  const watch = setInterval(() => (most = Math.max(most, onDisk())), 50);
  const probe = run(PROBE, [join(mountPoint, 'probe'), join(dir, 'probe')]);
  const start = performance.now();
  const rows: Record<string, string>[] = [];
  const note = (after: string): void =>
    void rows.push({
      after,
      'log on disk, x of the file': (onDisk() / MIB).toFixed(2),
      'most until then': (most / MIB).toFixed(2),
    });
  await run(WRITER, [join(mountPoint, 'file'), String(MIB), String(ROUNDS)], () => note(`round ${rows.length + 1}`))
    .output;
  const seconds = (performance.now() - start) / 1000;
  await mount.clean();
  note('cleaned to the end');
  probe.stop();
  const took = JSON.parse(await probe.output) as number[][];
  clearInterval(watch);
  console.table(rows);
  const at = (sorted: readonly number[], share: number): string =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!.toFixed(1);
  console.table(
    took.map((all, i) => {
      const sorted = all.toSorted((a, b) => a - b);
      return {
        '4 KiB, synced': i === 0 ? 'in the mount' : 'on the disk below',
        writes: all.length,
        'median, ms': at(sorted, 0.5),
        '99 %': at(sorted, 0.99),
        '99.9 %': at(sorted, 0.999),
        longest: at(sorted, 1),
      };
    }),
  );
  console.log(`${((MIB * ROUNDS) / seconds).toFixed(0)} MiB/s written`);
} finally {
  await mount.unmount(true);
  await mount.closed.catch(() => undefined);
  rmSync(dir, { recursive: true, force: true });
}
