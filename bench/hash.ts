/**
 * MiB/s of the Merkle root of a 4 MiB sector on one core: our kernel, and the slow twin on @noble/hashes; then on several cores.
 *
 *     scripts/with-node bench/hash.ts
 *
 * With PG_BENCH_PEER=PROGRAM, another implementation takes turns with ours: it prints the MiB/s of its own sector root.
 */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { blake2b } from '@noble/hashes/blake2.js';
import { Accumulator } from '../mdm/accumulator.ts';
import { input } from '../mdm/kernel/kernel.ts';
import { bufferRoot, inputSector, SECTOR_BYTES, sectorRoot } from '../mdm/merkle.ts';

const sector = new Uint8Array(SECTOR_BYTES).map((_, i) => i * 31 + (i >> 8));
input.set(sector);

const hash = (prefix: number, part: Uint8Array): Uint8Array =>
  blake2b(Buffer.concat([Uint8Array.of(prefix), part]), { dkLen: 32 });

/** The tree written plainly, as in test/mdm/twin.ts. */
function plainRoot(data: Uint8Array): Uint8Array {
  let level = Array.from({ length: data.length / 64 }, (_, i) => hash(0, data.subarray(64 * i, 64 * i + 64)));
  while (level.length > 1) {
    level = Array.from({ length: level.length / 2 }, (_, i) =>
      hash(1, Buffer.concat([level[2 * i]!, level[2 * i + 1]!])),
    );
  }
  return level[0]!;
}

function append(pieceBytes: number): void {
  const accumulator = new Accumulator();
  for (let at = 0; at < SECTOR_BYTES; at += pieceBytes) accumulator.append(sector.subarray(at, at + pieceBytes));
  accumulator.root();
}

function roots(contentBytes: number): void {
  for (let at = 0; at < SECTOR_BYTES; at += contentBytes) bufferRoot(sector.subarray(at, at + contentBytes));
}

const small = Array.from({ length: 1024 }, (_, i) => ({ offset: i * 4096, length: 4000 }));
const rows: { name: string; rounds: number; once(): number | void }[] = [
  { name: 'sector in the kernel (no copy)', rounds: 40, once: () => void inputSector(SECTOR_BYTES) },
  { name: 'sector elsewhere (copied in)', rounds: 40, once: () => void sectorRoot(sector) },
  { name: 'sector with 1,024 contents of 4,000 B', rounds: 40, once: () => void inputSector(SECTOR_BYTES, small) },
  { name: 'accumulator, 64 KiB at a time', rounds: 40, once: () => append(65_536) },
  { name: 'accumulator, 4 KiB at a time', rounds: 40, once: () => append(4096) },
  { name: 'buffers of 1 KiB', rounds: 40, once: () => roots(1024) },
  { name: '@noble/hashes, sector', rounds: 2, once: () => void plainRoot(sector) },
];
const go = process.env['PG_BENCH_PEER'];
if (go !== undefined) {
  const rate = (): number => Number(/([\d.]+) MiB\/s/.exec(execFileSync(go, { encoding: 'utf8' }))?.[1]);
  rows.push({ name: 'peer', rounds: 5, once: rate });
}

const best = new Map<string, number>();
for (let round = 0; round < 40; round++) {
  for (const { name, rounds, once } of rows) {
    if (round % (40 / rounds) !== 0) continue;
    const start = performance.now();
    const rate = once() ?? SECTOR_BYTES / 1048.576 / (performance.now() - start);
    best.set(name, Math.max(rate, best.get(name) ?? 0));
  }
}
const ours = best.get(rows[0]!.name)!;
console.log(`${'one core, best of the rounds'.padEnd(42)} MiB/s   ratio`);
for (const [name, rate] of best)
  console.log(`${name.padEnd(42)} ${rate.toFixed(1).padStart(5)}   ${(ours / rate).toFixed(2).padStart(5)}`);

/** MiB/s of `threads` threads that each compute the roots of so many sectors at the same time; the best of five rounds. */
async function onThreads(threads: Worker[], sectors: number): Promise<number> {
  let rate = 0;
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    for (const thread of threads) thread.postMessage(sectors);
    await Promise.all(threads.map((thread) => once(thread, 'message')));
    rate = Math.max(rate, (threads.length * sectors * SECTOR_BYTES) / 1048.576 / (performance.now() - start));
  }
  return rate;
}

const threads = Array.from(
  { length: availableParallelism() },
  () => new Worker(new URL('hash-thread.ts', import.meta.url)),
);
await Promise.all(threads.map((thread) => onThreads([thread], 5)));
const alone = await onThreads(threads.slice(0, 1), 50);
const together = await onThreads(threads, 50);
console.log(`${'one thread'.padEnd(42)} ${alone.toFixed(1).padStart(5)}`);
console.log(
  `${`${threads.length} threads`.padEnd(42)} ${together.toFixed(1).padStart(5)}   ${(together / alone).toFixed(2)} x one`,
);
await Promise.all(threads.map((thread) => thread.terminate()));
