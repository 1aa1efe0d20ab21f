import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { openStore, type ContentRef, type Store } from '../store/store.ts';

/**
 * `bench/store.ts [MiB]`: how fast contents come into the store, come again, and are read (checked) from it, in MiB/s
 * of wall clock. Sizes of small contents are spread as in a Debian root. Cold reads need root, to drop the page cache.
 */
const MIB = 1 << 20;
const totalBytes = Number(process.argv[2] ?? 512) * MIB;
const SOURCE = noise(32 * MIB);

function noise(bytes: number): Buffer {
  const words = new Int32Array(bytes / 4);
  let x = 1;
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return Buffer.from(words.buffer);
}

/** Sizes from 100 bytes to 8 MB, most of them small. */
function* smallSizes(): Generator<number> {
  let x = 1;
  for (let left = totalBytes; left > 0;) {
    x = (x * 48_271) % 2_147_483_647;
    const size = Math.min(left, Math.floor(100 * Math.exp((x / 2_147_483_647) ** 3 * Math.log(80_000))));
    left -= size;
    yield size;
  }
}

/** Stores one content for each size; the n-th is always the same. */
async function put(store: Store, sizes: Iterable<number>): Promise<ContentRef[]> {
  const writer = store.writer('bench');
  const sinks = [];
  const first = Buffer.alloc(8);
  for (const size of sizes) {
    const sink = writer.add(size);
    first.writeDoubleLE(sinks.length);
    await sink.write(first.subarray(0, Math.min(8, size)));
    for (let at = Math.min(8, size); at < size;) {
      const from = (at + sinks.length * 4096) % (SOURCE.length - 65_536);
      const length = Math.min(65_536, size - at);
      const full = sink.write(SOURCE.subarray(from, from + length));
      if (full) await full;
      at += length;
    }
    sinks.push(sink);
  }
  await writer.finish();
  return Promise.all(sinks.map((sink) => sink.ref));
}

async function timed(what: string, bytes: number, action: () => unknown): Promise<void> {
  const start = performance.now();
  await action();
  const seconds = (performance.now() - start) / 1000;
  console.log(`${what.padEnd(44)} ${(bytes / MIB / seconds).toFixed(0).padStart(6)} MiB/s`);
}

function dropCaches(): void {
  execFileSync('sh', ['-c', 'sync; echo 3 > /proc/sys/vm/drop_caches']);
}

function readAll(store: Store, refs: readonly ContentRef[], stepBytes: number): void {
  const into = Buffer.alloc(stepBytes);
  for (const ref of refs) {
    const content = store.openContent(ref);
    for (let at = 0; at < ref.size; at += stepBytes) content.readAt(into, at);
  }
}

const data = mkdtempSync('/var/tmp/pg-bench-');
const store = openStore({ data, run: join(data, 'run'), config: join(data, 'etc') });
try {
  const sizes = [...smallSizes()];
  console.log(
    `${availableParallelism()} processors; ${sizes.length} small contents of ${totalBytes / MIB} MiB in all, and one large one`,
  );
  let small: ContentRef[] = [];
  let large: ContentRef[] = [];
  await timed('put small', totalBytes, async () => (small = await put(store, sizes)));
  await timed('put small again', totalBytes, () => put(store, sizes));
  await timed('put large', totalBytes, async () => (large = await put(store, [totalBytes])));
  for (const cold of [true, false]) {
    if (cold && process.getuid?.() !== 0) continue;
    for (const [name, refs, step] of [
      ['large, 128 KiB at a time', large, 131_072],
      ['large, 1 MiB at a time', large, MIB],
      ['small, each whole', small, 8 * MIB],
    ] as const) {
      if (cold) dropCaches();
      await timed(`read ${name}, ${cold ? 'cold' : 'warm'}`, totalBytes, () => readAll(store, refs, step));
    }
  }
  await timed('verify', 2 * totalBytes, () => store.verify());
} finally {
  await store.close();
  rmSync(data, { recursive: true, force: true });
}
