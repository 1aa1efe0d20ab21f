import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { openTree } from '../layers/tree.ts';
import { openLog } from '../fs/log/log.ts';
import { openView } from '../fs/view/open-view.ts';
import type { View } from '../fs/view/view.ts';
import { openStore } from '../store/store.ts';

/**
 * What a mount after a crash replays, and how long that takes (processor time and wall clock of this process): a log without a checkpoint is opened again.
 * `scripts/with-node bench/replay.ts [MIB]` of log in each row. No request that a kernel would send is in between, so this is the log and the state alone.
 */
const MIB = Number(process.argv[2] ?? 64);
const ROOT = { uid: 0, gid: 0, pid: 1 };

/** One step of a workload on a view; `i` counts the steps. */
type Step = (view: View, i: number) => void;

/** The directory that a step works in: a thousand names in each. */
function directory(): (view: View, i: number) => number {
  let ino = 1;
  return (view, i) => (i % 1000 === 0 ? (ino = view.mkdir(1, `dir${i}`, 0o755, ROOT).ino) : ino);
}

function data(): Step {
  const bytes = Buffer.alloc(1 << 20, 'data');
  let ino = 0;
  return (view, i) => {
    if (i % 64 === 0) ({ ino } = view.mknod(1, `large${i}`, 0o644, 0, ROOT));
    view.write(ino, (i % 64) * bytes.length, bytes, false);
  };
}

function pages(): Step {
  const bytes = Buffer.alloc(8192, 'page');
  let ino = 0;
  return (view, i) => {
    if (i === 0) ({ ino } = view.mknod(1, 'database', 0o644, 0, ROOT));
    view.write(ino, ((i * 7919) % 131_072) * bytes.length, bytes, false);
  };
}

function creates(): Step {
  const dir = directory();
  return (view, i) => void view.mknod(dir(view, i), `a name of a file ${i}`, 0o644, 0, ROOT);
}

function storm(): Step {
  const dir = directory();
  return (view, i) => {
    const at = dir(view, i);
    const { ino } = view.mknod(at, `name${i}`, 0o644, 0, ROOT);
    view.setattr(ino, { mode: 0o600 }, ROOT);
    view.rename(at, `name${i}`, at, `other${i}`, 0, ROOT);
    if (i % 8 === 0) return;
    view.unlink(at, `other${i}`);
    view.forget(ino);
  };
}

function smallFiles(): Step {
  const dir = directory();
  return (view, i) => {
    const { ino } = view.mknod(dir(view, i), `file${i}`, 0o644, 0, ROOT);
    view.write(ino, 0, Buffer.alloc(1 + ((i * 7919) % 8192), i), false);
  };
}

const WORKLOADS: Record<string, () => Step> = {
  'large files': data,
  'pages of 8 KiB': pages,
  'small files': smallFiles,
  'names made': creates,
  'made, changed, renamed, removed': storm,
};

async function measure(name: string, step: Step): Promise<Record<string, string>> {
  const dir = mkdtempSync('/var/tmp/pg-bench-');
  const store = openStore({ data: join(dir, 'data'), run: join(dir, 'run'), config: join(dir, 'etc') });
  const tree = openTree(store, null);
  const logDir = join(dir, 'log');
  try {
    const log = openLog(logDir, { create: true });
    const view = openView(tree, store, log);
    for (let i = 0; log.size < MIB << 20; i++) {
      step(view, i);
      if (i % 256 === 0) view.synced(view.flush());
    }
    const entries = log.lastSequence;
    view.flush();
    // As it is after a crash: closing it would leave a checkpoint.
    log.close();
    const bytes = statSync(join(logDir, 'log')).size;
    const [start, cpu] = [performance.now(), process.cpuUsage()];
    const again = openView(tree, store, openLog(logDir, { readOnly: true }));
    const [wallMs, { user, system }] = [performance.now() - start, process.cpuUsage(cpu)];
    const { inodes } = again.stats();
    again.close();
    const cpuMs = (user + system) / 1000;
    return {
      written: name,
      'log, MiB': (bytes / (1 << 20)).toFixed(0),
      entries: String(entries),
      inodes: String(inodes),
      'replay, ms': wallMs.toFixed(0),
      'of processor': cpuMs.toFixed(0),
      's per GiB': (((wallMs / 1000) * 2 ** 30) / bytes).toFixed(2),
      'us per entry': ((wallMs * 1000) / entries).toFixed(2),
    };
  } finally {
    await store.close();
    rmSync(dir, { recursive: true });
  }
}

const rows: Record<string, string>[] = [];
for (const [name, workload] of Object.entries(WORKLOADS)) rows.push(await measure(name, workload()));
console.table(rows);
