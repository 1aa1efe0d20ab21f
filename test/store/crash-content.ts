import { noise } from './fixture.ts';

/**
 * Content `i` of an import by process `seed`: every third one is the same for all processes and all rounds, now and
 * then one is large.
 */
export function crashContent(seed: number, round: number, i: number): Buffer {
  if (i % 3 === 0) return noise(20_000 + i, i + 1);
  const size = i % 50 === 1 ? 5_000_000 : 30_000;
  return noise(size + i, (seed + 1) * 100_000 + round * 1000 + i);
}
