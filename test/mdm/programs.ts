// Random files and programs for the machine's property tests, and the plainest possible model of what each instruction
// does to a file.
import fc from 'fast-check';
import { type Instruction, makeInstruction } from '../../mdm/instruction.ts';
import { bufferRoot, SECTOR_BYTES } from '../../mdm/merkle.ts';

/** More cases when asked for: PG_TEST_CASES=100000 npm test. */
export const CASES = Number(process.env['PG_TEST_CASES'] ?? 0);

/** Bytes that differ everywhere, cheaply. */
export function pattern(size: number, seed: number): Uint8Array {
  const bytes = Buffer.alloc(size);
  let x = (seed | 1) >>> 0;
  for (let i = 0; i + 4 <= size; i += 4) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes.writeInt32LE(x | 0, i);
  }
  return new Uint8Array(bytes.buffer, bytes.byteOffset, size);
}

/**
 * One instruction of a program before it meets a file: numbers from 0 to 1 that `place` turns into offsets and lengths.
 */
export interface Draft {
  name: string;
  at: number;
  other: number;
  length: number;
  /** Offsets and lengths are rounded to multiples of this. */
  unit: number;
  /** Both offsets lie this much behind a multiple of `unit`: congruent, but not on a leaf. */
  skew: number;
  /** How long, at most, in bytes. */
  most: number;
  seed: number;
}

// Not fc.double: nearly all of its numbers are next to 0.
const part = fc.nat({ max: 999_983 }).map((n) => n / 999_983);
const drafts = (units: number[], mosts: number[]): fc.Arbitrary<Draft> =>
  fc.record({
    name: fc.constantFrom('Read', 'ReadRoot', 'Write', 'WriteRoot', 'Copy', 'Swap', 'Truncate'),
    at: part,
    other: part,
    length: part,
    unit: fc.constantFrom(...units),
    skew: fc.oneof(fc.constant(0), fc.nat({ max: 63 })),
    most: fc.constantFrom(...mosts),
    seed: fc.nat(),
  });

/** Files of up to a few blocks. */
export const smallPrograms = fc.record({
  size: fc.oneof(fc.integer({ min: 0, max: 700 }), fc.integer({ min: 0, max: 20_000 })),
  seed: fc.nat(),
  drafts: fc.array(drafts([1, 1, 64, 128, 4096], [1, 64, 200, 1000, 20_000]), { maxLength: 6 }),
});

/** Files of up to three sectors, most of them with a ragged end. */
export const largePrograms = fc.record({
  size: fc.oneof(
    fc.integer({ min: SECTOR_BYTES - 100, max: SECTOR_BYTES + 100 }),
    fc.integer({ min: SECTOR_BYTES, max: 3 * SECTOR_BYTES }),
    fc.constantFrom(2 * SECTOR_BYTES, 3 * SECTOR_BYTES),
  ),
  seed: fc.nat(),
  drafts: fc.array(drafts([1, 64, 4096, SECTOR_BYTES], [100, 10_000, 300_000, 2 * SECTOR_BYTES]), { maxLength: 4 }),
});

/** A program's step on a file with these bytes: the instruction, its payload, the bytes after it and its output. */
export interface Placed {
  instruction: Instruction;
  payload: Uint8Array | undefined;
  after: Uint8Array;
  output: Uint8Array;
  changes: boolean;
}

/** Turns a draft into an instruction that is right for `file`, and does to a copy of it what the instruction should. */
export function place(draft: Draft, file: Uint8Array): Placed {
  const size = file.length;
  const round = (x: number, most: number): number => Math.min(most, Math.floor((x * most) / draft.unit) * draft.unit);
  const skew = Math.min(draft.skew, size);
  const length = Math.min(
    size - skew,
    round(draft.length, Math.min(size, draft.most)) + (draft.seed % 3 === 0 ? 0 : 17),
  );
  const at = skew + round(draft.at, size - length - skew);
  const other = skew + round(draft.other, size - length - skew);
  const placed = (fields: (number | Uint8Array)[], rest: Partial<Placed> = {}): Placed => ({
    instruction: makeInstruction(draft.name, fields, true),
    payload: undefined,
    after: file,
    output: new Uint8Array(0),
    changes: length > 0,
    ...rest,
  });
  const changed = (change: (copy: Uint8Array) => void): Uint8Array => {
    const copy = file.slice();
    change(copy);
    return copy;
  };
  const sectors = Math.ceil(size / SECTOR_BYTES);
  switch (draft.name) {
    case 'Read':
      return placed([at, length], { output: file.slice(at, at + length) });
    case 'Write': {
      const payload = pattern(length, draft.seed);
      return placed([at, length], { payload, after: changed((copy) => copy.set(payload, at)) });
    }
    case 'Copy':
      return placed([length, at, other], {
        after: changed((copy) => copy.copyWithin(at, other, other + length)),
        changes: length > 0 && at !== other,
      });
    case 'Swap': {
      const short = Math.min(length, Math.abs(at - other));
      const after = changed((copy) => {
        copy.set(file.subarray(other, other + short), at);
        copy.set(file.subarray(at, at + short), other);
      });
      return placed([short, at, other], { after, changes: short > 0 });
    }
    case 'ReadRoot': {
      const full = Math.floor(size / SECTOR_BYTES);
      if (full === 0) return place({ ...draft, name: 'Read' }, file);
      const start = Math.min(full - 1, Math.floor(draft.other * full)) * SECTOR_BYTES;
      const sector = file.subarray(start, start + SECTOR_BYTES);
      const count = Math.min(length, SECTOR_BYTES);
      const from = round(draft.at, SECTOR_BYTES - count);
      return placed([bufferRoot(sector), from, count], {
        output: sector.slice(from, from + count),
        changes: count > 0,
      });
    }
    case 'WriteRoot': {
      if (size === 0) return place({ ...draft, name: 'Write' }, file);
      const index = Math.min(sectors - 1, Math.floor(draft.other * sectors));
      const sector = file.subarray(index * SECTOR_BYTES, (index + 1) * SECTOR_BYTES);
      const count = Math.min(length, sector.length);
      const from = round(draft.at, sector.length - count);
      const payload = pattern(count, draft.seed);
      const after = changed((copy) => copy.set(payload, index * SECTOR_BYTES + from));
      return placed([bufferRoot(sector), index, from, count], { payload, after, changes: count > 0 });
    }
    default: {
      const newSize = draft.seed % 2 === 0 ? round(draft.at, size) : size + round(draft.length, draft.most);
      const after = new Uint8Array(newSize);
      after.set(file.subarray(0, newSize));
      return placed([newSize], { after, changes: newSize !== size });
    }
  }
}
