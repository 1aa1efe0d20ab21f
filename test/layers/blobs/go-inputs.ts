import { noise } from '../../store/fixture.ts';

/** Inputs whose packed forms by Go are written down in go-deflate.test.ts. */
export function goInputs(): Record<string, Buffer> {
  return {
    empty: Buffer.alloc(0),
    one: Buffer.from('a'),
    short: Buffer.from('abcabcabcabcabcd'.repeat(3)),
    zeros: Buffer.alloc(1_000_000),
    noise: noise(300_000, 1),
    words: words(3_000_000, 2),
    // Beyond 2^24, where Go begins to count anew.
    long: words(20_000_000, 3),
    mixed: Buffer.concat([words(500_000, 4), noise(200_000, 5), Buffer.alloc(100_000, 7), words(500_000, 4)]),
  };
}

/** Text of a few hundred words, some of them rare. */
function words(bytes: number, seed: number): Buffer {
  const random = noise(bytes, seed);
  const out = Buffer.alloc(bytes);
  for (let at = 0, i = 0; at < bytes; i++) {
    const pick = random[i % random.length]! & random[(i * 7 + 3) % random.length]!;
    at += out.write(`${(pick * 2654435761).toString(36).slice(0, 2 + (pick % 9))} `, at, 'latin1');
  }
  return out;
}
