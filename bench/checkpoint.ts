import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { openTree } from '../layers/tree.ts';
import { openLog } from '../fs/log/log.ts';
import { openView } from '../fs/view/open-view.ts';
import type { View } from '../fs/view/view.ts';
import { openStore } from '../store/store.ts';

/**
 * How long (processor time) a writer waits for a checkpoint, written at once and a little at a time while files are written, and how long it takes to restore:
 * `scripts/with-node bench/checkpoint.ts [INODES...]`. A directory has 1,000 names, but for one that has a tenth of them all.
 */
const COUNTS = process.argv.slice(2).map(Number);
const SLICE_MS = 4;
const ROOT = { uid: 0, gid: 0, pid: 1 };

function fill(view: View, count: number): void {
  const large = view.mkdir(1, 'large', 0o755, ROOT).ino;
  let dir = large;
  for (let i = 0; i < count; i++) {
    if (i >= count / 10 && i % 1000 === 0) dir = view.mkdir(1, `dir${i}`, 0o755, ROOT).ino;
    const { ino } = view.mknod(dir, `file with a name ${i}`, 0o644, 0, ROOT);
    if (i % 2 === 0) view.write(ino, 0, Buffer.alloc(100, i), false);
  }
}

/** Processor time of this thread, ms: other programs on the machine do not count. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

function longest(action: () => boolean): { longestMs: number; totalMs: number } {
  let [longestMs, totalMs] = [0, 0];
  for (let goesOn = true; goesOn;) {
    const start = cpuMs();
    goesOn = action();
    const took = cpuMs() - start;
    longestMs = Math.max(longestMs, took);
    totalMs += took;
  }
  return { longestMs, totalMs };
}

async function measure(count: number): Promise<Record<string, string>> {
  const dir = mkdtempSync('/var/tmp/pg-bench-');
  const store = openStore({ data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') });
  const tree = openTree(store, null);
  try {
    const logDir = join(dir, 'log');
    const view = openView(tree, store, openLog(logDir, { create: true }));
    fill(view, count);
    const large = view.lookup(1, 'large').ino;
    const online = view.beginCheckpoint()!;
    let i = 0;
    let writeMs = 0;
    const slices = longest(() => {
      const isDone = online.step(SLICE_MS);
      const start = cpuMs();
      view.mknod(large, `meanwhile ${i++}`, 0o644, 0, ROOT);
      writeMs = Math.max(writeMs, cpuMs() - start);
      online.take();
      return !isDone;
    });
    const atOnce = longest(() => {
      view.checkpoint();
      return false;
    });
    view.close();
    const restore = longest(() => {
      openView(tree, store, openLog(logDir, { readOnly: true })).close();
      return false;
    });
    const ms = (value: number): string => value.toFixed(1);
    return {
      inodes: String(count),
      'at once, ms': ms(atOnce.longestMs),
      'longest slice, ms': ms(slices.longestMs),
      'longest write, ms': ms(writeMs),
      'slices together, ms': ms(slices.totalMs),
      'restore, ms': ms(restore.longestMs),
    };
  } finally {
    await store.close();
    rmSync(dir, { recursive: true });
  }
}

const rows: Record<string, string>[] = [];
for (const count of COUNTS.length > 0 ? COUNTS : [100_000, 1_000_000]) rows.push(await measure(count));
console.table(rows);
