// The batches of the process that is killed, by number, so that who looks at what it left knows them too.
import { type Draft, pattern } from '../../mdm/programs.ts';
import { SECTOR_BYTES } from '../../../mdm/merkle.ts';

export const START = pattern(2 * SECTOR_BYTES + 12_345, 5);

const NAMES = ['Write', 'Write', 'Copy', 'Swap', 'Truncate', 'WriteRoot', 'Write'];
const MOSTS = [100, 5000, 5000, 300_000, 1_500_000];

/** The drafts of batch `i`: one to three. */
export function draftsOf(i: number): Draft[] {
  const numbers = new Uint32Array(pattern(256, 7919 * (i + 1)).slice().buffer);
  return Array.from({ length: 1 + (numbers[40]! % 3) }, (_, k) => {
    const number = (j: number): number => numbers[10 * k + j + 4]!;
    const part = (j: number): number => number(j) / 2 ** 32;
    const name = NAMES[number(0) % NAMES.length]!;
    return {
      name,
      at: part(1),
      other: part(2),
      // The file neither vanishes nor grows for ever.
      length: name === 'Truncate' ? 0.5 + part(3) / 2 : part(3),
      unit: [1, 64, 4096][number(4) % 3]!,
      skew: number(5) % 64,
      most: name === 'Truncate' ? 3 * SECTOR_BYTES : MOSTS[number(6) % MOSTS.length]!,
      seed: number(7),
    };
  });
}
