import assert from 'node:assert/strict';
import fc from 'fast-check';
import { resultToJson } from '../../cli/mdm/result.ts';
import { proveRange } from '../../cli/mdm/range-proof.ts';
import { executeBatch } from '../../mdm/batch.ts';
import { MemoryHost } from '../../mdm/memory-file.ts';
import { checkRange, checkResult, type RangeJson, type ResultJson } from './independent.ts';
import { CASES, largePrograms, pattern, place, smallPrograms } from './programs.ts';
import { twinRoot } from './twin.ts';
import { hex } from './vectors.ts';

type Program = typeof smallPrograms extends fc.Arbitrary<infer T> ? T : never;

function run({ size, seed, drafts }: Program): ResultJson {
  let bytes = pattern(size, seed);
  const file = new MemoryHost().createFile(bytes);
  const initial = file.state;
  const steps = drafts.map((draft) => {
    const placed = place(draft, bytes);
    bytes = placed.after;
    return placed;
  });
  const instructions = steps.map(({ instruction }) => instruction);
  const payloads = steps.map(({ payload }) => payload);
  const result = executeBatch(file, { initial, instructions }, payloads);
  return resultToJson(initial, instructions, payloads, result) as ResultJson;
}

/** `text` with one of its hex digits changed. */
function flipped(text: string, where: number): string {
  const at = where % text.length;
  return text.slice(0, at) + ((parseInt(text[at]!, 16) + 1 + (where % 15)) % 16).toString(16) + text.slice(at + 1);
}

describe('a verifier written from the documents alone', function () {
  this.timeout(CASES > 0 ? 0 : 60_000);

  it('accepts what batches give, and nothing that was tampered with', () => {
    const check = (program: Program, where: number): void => {
      const result = run(program);
      checkResult(result);
      for (const [i, step] of result.instructions.entries()) {
        for (const part of ['proof', 'output'] as const) {
          const text = step[part]!;
          const forgeries = [`${text}00`, ...(text.length > 0 ? [text.slice(2), flipped(text, where)] : [])];
          for (const forged of forgeries) {
            const instructions = result.instructions.with(i, { ...step, [part]: forged });
            assert.throws(() => checkResult({ ...result, instructions }), `${part} of ${step.name}`);
          }
        }
      }
    };
    fc.assert(fc.property(smallPrograms, fc.nat(), check), { numRuns: Math.max(60, Math.floor(CASES * 0.02)) });
    fc.assert(
      fc.property(largePrograms, (program) => checkResult(run(program))),
      {
        numRuns: Math.max(3, Math.floor(CASES * 0.0003)),
      },
    );
  });

  it('accepts proofs of segments, and no other', () => {
    const sizes = fc.integer({ min: 1, max: 20_000 });
    fc.assert(
      fc.property(sizes, fc.nat(), fc.nat(), fc.nat(), (size, seed, a, b) => {
        const bytes = pattern(size, seed);
        const leaves = Math.ceil(size / 64);
        const from = a % leaves;
        const range = { from, to: from + 1 + (b % (leaves - from)) };
        const json = proveRange(new MemoryHost().createFile(bytes), range) as RangeJson;
        assert.equal(json.root, hex(twinRoot(bytes)));
        checkRange(json);
        assert.throws(() => checkRange({ ...json, data: flipped(json.data, a) }));
        assert.throws(() => checkRange({ ...json, proof: `${json.proof}${'00'.repeat(32)}` }));
        if (json.proof.length > 0) assert.throws(() => checkRange({ ...json, proof: flipped(json.proof, b) }));
      }),
      { numRuns: Math.max(60, Math.floor(CASES * 0.02)) },
    );
  });
});
