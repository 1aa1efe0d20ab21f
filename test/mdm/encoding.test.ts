import assert from 'node:assert/strict';
import fc from 'fast-check';
import { decodeBatch, encodeBatch } from '../../mdm/encoding.ts';
import { isPgError } from '../../mdm/error.ts';
import { makeInstruction } from '../../mdm/instruction.ts';
import { hex } from './vectors.ts';

const batches = fc.record({
  initial: fc.record({ root: fc.uint8Array({ minLength: 32, maxLength: 32 }), size: fc.nat({ max: 2 ** 48 }) }),
  instructions: fc.array(
    fc.record({
      name: fc.constantFrom('Read', 'Write', 'Truncate', 'SixteenLettersOK'),
      inputs: fc.uint8Array({ maxLength: 60 }),
      proofRequired: fc.boolean(),
    }),
    { maxLength: 4 },
  ),
});
const refuses = (bytes: Uint8Array): void =>
  void assert.throws(
    () => decodeBatch(bytes),
    (error) => isPgError(error, 'MDM_BAD_ENCODING'),
  );

describe('a batch as bytes', () => {
  it('is what the format document shows', () => {
    const root = new Uint8Array(32).fill(0xaa);
    const bytes = encodeBatch({ initial: { root, size: 258 }, instructions: [makeInstruction('Truncate', [5], true)] });
    const expected = [
      'aa'.repeat(32),
      '0201000000000000',
      '01000000',
      '5472756e636174650000000000000000',
      '01',
      '0800',
      '0500000000000000',
    ];
    assert.equal(hex(bytes), expected.join(''));
  });

  it('comes back as it was, and neither shorter nor longer', () => {
    fc.assert(
      fc.property(batches, fc.nat(), (batch, cut) => {
        const bytes = encodeBatch(batch);
        // fast-check's records have no prototype.
        assert.deepEqual(decodeBatch(bytes), structuredClone(batch));
        refuses(bytes.subarray(0, cut % bytes.length));
        refuses(Buffer.concat([bytes, Uint8Array.of(0)]));
      }),
    );
  });

  it('has one form only', () => {
    const initial = { root: new Uint8Array(32), size: 0 };
    const bytes = encodeBatch({ initial, instructions: [makeInstruction('Read', [0, 0])] });
    for (const [at, value] of [
      [44, 0],
      [44, 0x20],
      [59, 0x41],
      [60, 2],
      [62, 0x11],
    ] as const) {
      const other = Buffer.from(bytes);
      other[at] = value;
      refuses(other);
    }
    const long = { name: 'SeventeenLettersX', inputs: new Uint8Array(0), proofRequired: false };
    assert.throws(
      () => encodeBatch({ initial, instructions: [long] }),
      (error) => isPgError(error, 'MDM_BAD_ENCODING'),
    );
    const large = makeInstruction('Read', [new Uint8Array(4097)]);
    assert.throws(
      () => encodeBatch({ initial, instructions: [large] }),
      (error) => isPgError(error, 'MDM_INPUT_TOO_LARGE'),
    );
  });
});
