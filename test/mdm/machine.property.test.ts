import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Accumulator } from '../../mdm/accumulator.ts';
import { appendBatch, executeAppend } from '../../mdm/append-batch.ts';
import { BatchRun, costOf, executeBatch, type Step } from '../../mdm/batch.ts';
import { isPgError } from '../../mdm/error.ts';
import type { Instruction, State } from '../../mdm/instruction.ts';
import { MemoryHost } from '../../mdm/memory-file.ts';
import { bufferRoot } from '../../mdm/merkle.ts';
import { verifyBatch, verifyInstruction } from '../../mdm/verify.ts';
import { CASES, type Draft, largePrograms, pattern, place, type Placed, smallPrograms } from './programs.ts';
import { twinRoot } from './twin.ts';
import { hex } from './vectors.ts';

interface Program {
  size: number;
  seed: number;
  drafts: Draft[];
}

function build({ size, seed, drafts }: Program): { before: Uint8Array; steps: Placed[]; after: Uint8Array } {
  const before = pattern(size, seed);
  let file = before;
  const steps = drafts.map((draft) => {
    const placed = place(draft, file);
    file = placed.after;
    return placed;
  });
  return { before, steps, after: file };
}

/** Runs a program as one batch, checks everything it gives against the model, and returns what a verifier would get. */
function runAndCheck(program: Program, rootOf: (data: Uint8Array) => Uint8Array): Evidence {
  const { before, steps, after } = build(program);
  const file = new MemoryHost().createFile(before);
  const initial = file.state;
  assert.equal(hex(initial.root), hex(rootOf(before)));
  const instructions = steps.map(({ instruction }) => instruction);
  const payloads = steps.map(({ payload }) => payload);
  const result = executeBatch(file, { initial, instructions }, payloads);
  if ('error' in result) throw result.error;
  assert.equal(result.outcome, 'committed');
  assert.deepEqual({ cost: result.cost, size: after.length }, costOf(instructions, initial.size));
  assert.deepEqual(file.state, result.final);
  assert.equal(hex(file.state.root), hex(rootOf(after)));
  const bytes = new Uint8Array(after.length);
  file.readAt(bytes, 0);
  assert.equal(Buffer.compare(bytes, after), 0, 'the bytes');
  for (const [i, step] of result.steps.entries()) {
    assert.equal(step.state.size, steps[i]!.after.length);
    assert.equal(hex(step.state.root), hex(rootOf(steps[i]!.after)), `the root after ${steps[i]!.instruction.name}`);
    assert.equal(Buffer.compare(step.output, steps[i]!.output), 0, 'the output');
    if (!steps[i]!.changes) assert.equal(step.proof!.length, 0);
  }
  const evidence = { initial, instructions, payloads, steps: result.steps };
  assert.deepEqual(
    verify(evidence),
    result.steps.map(({ state }) => state),
  );
  return evidence;
}

interface Evidence {
  initial: State;
  instructions: Instruction[];
  payloads: (Uint8Array | undefined)[];
  steps: Step[];
}

const verify = ({ initial, instructions, payloads, steps }: Evidence): State[] =>
  verifyBatch(
    initial,
    instructions,
    payloads,
    steps.map((s) => s.output),
    steps.map((s) => s.proof),
  );

/** Flips one bit, adds a byte or takes one away. */
function tampered(bytes: Uint8Array, where: number, how: number): Uint8Array {
  if (how === 0) return Buffer.concat([bytes, Uint8Array.of(0)]);
  if (how === 1) return bytes.slice(0, -1);
  const copy = bytes.slice();
  copy[where % bytes.length]! ^= 1 << (how % 8);
  return copy;
}

/** Tampers `times` times with the proof, the output and the payload of each instruction; how often that was. */
function checkTampering(evidence: Evidence, where: number, how: number, times: number): number {
  let count = 0;
  let before = evidence.initial;
  for (const [i, { state, proof, output }] of evidence.steps.entries()) {
    const instruction = evidence.instructions[i]!;
    const payload = evidence.payloads[i] ?? new Uint8Array(0);
    const start = before;
    before = state;
    for (let time = 0; time < times; time++, count++) {
      const [place, way] = [where + time * 7919, (how + time) % 10];
      const change = (bytes: Uint8Array): Uint8Array | undefined =>
        bytes.length === 0 && way !== 0 ? undefined : tampered(bytes, place, way);
      for (const [part, wrong] of [
        ['proof', change(proof!)],
        ['output', change(output)],
      ] as const) {
        if (wrong === undefined) continue;
        const given = part === 'proof' ? ([output, wrong] as const) : ([wrong, proof] as const);
        assert.throws(
          () => verifyInstruction(start, instruction, payload, ...given),
          (error) => isPgError(error),
          `${part} of ${i}`,
        );
      }
      if (payload.length === 0 || way < 2) continue;
      const other = verifyInstruction(start, instruction, tampered(payload, place, way), output, proof);
      assert.notEqual(hex(other.root), hex(state.root), 'another payload, the same root');
    }
  }
  return count;
}

const runs = (fast: number, share: number): { numRuns: number } => ({
  numRuns: Math.max(fast, Math.floor(CASES * share)),
});

describe('the machine, on random programs', function () {
  this.timeout(CASES > 0 ? 0 : 60_000);

  it('small files: state, bytes, outputs, cost and proofs are those of the plain model and the slow twin', () => {
    const did = new Map<string, number>();
    fc.assert(
      fc.property(smallPrograms, (program) => {
        runAndCheck(program, program.size < 1000 ? twinRoot : bufferRoot);
        for (const { instruction, changes } of build(program).steps) {
          if (changes) did.set(instruction.name, (did.get(instruction.name) ?? 0) + 1);
        }
      }),
      runs(400, 1),
    );
    const names = ['Read', 'Write', 'WriteRoot', 'Copy', 'Swap', 'Truncate'];
    for (const name of names) assert.ok((did.get(name) ?? 0) >= 40, `the programs hardly try ${name}`);
  });

  it('files of several sectors', () => {
    fc.assert(
      fc.property(largePrograms, (program) => void runAndCheck(program, bufferRoot)),
      runs(12, 0.004),
    );
  });

  it('no tampered proof, output or payload is accepted', () => {
    const how = fc.integer({ min: 0, max: 9 });
    let count = 0;
    fc.assert(
      fc.property(smallPrograms, fc.nat(), how, (program, where, way) => {
        count += checkTampering(runAndCheck(program, bufferRoot), where, way, CASES > 0 ? 30 : 3);
      }),
      runs(250, 1),
    );
    fc.assert(
      fc.property(largePrograms, fc.nat(), how, (program, where, way) => {
        count += checkTampering(runAndCheck(program, bufferRoot), where, way, 1);
      }),
      runs(5, 0.002),
    );
    assert.ok(count > 1000, `${count} times`);
  });

  it('batches one after another on one file are as one batch', () => {
    fc.assert(
      fc.property(smallPrograms, (program) => {
        const { before, steps, after } = build(program);
        const file = new MemoryHost().createFile(before);
        for (const { instruction, payload } of steps) {
          const result = executeBatch(file, { initial: file.state, instructions: [instruction] }, [payload]);
          assert.equal(result.outcome, 'committed');
        }
        assert.equal(hex(file.state.root), hex(bufferRoot(after)));
      }),
      runs(200, 0.5),
    );
  });

  it('an interrupt at any slice leaves the file as it was, one after the commit changes nothing, and each is answered alike for ever', () => {
    fc.assert(
      fc.property(
        fc.oneof({ arbitrary: smallPrograms, weight: 100 }, { arbitrary: largePrograms, weight: 1 }),
        fc.nat({ max: 20 }),
        (program, slice) => {
          const { before, steps, after } = build(program);
          const file = new MemoryHost().createFile(before);
          const initial = file.state;
          const instructions = steps.map(({ instruction }) => instruction);
          const run = new BatchRun(file, { initial, instructions });
          let slices = 0;
          let answer: string | undefined;
          const tick = (): void => {
            if (slices++ === slice) answer = run.interrupt();
          };
          tick();
          for (let i = 0; run.next !== undefined; i++) for (const _ of run.step(steps[i]!.payload)) tick();
          const result = run.finish();
          assert.deepEqual(result.cost, costOf(instructions, initial.size).cost);
          answer ??= run.interrupt();
          assert.equal(answer, result.outcome === 'committed' ? 'rejected' : 'accepted');
          assert.equal(run.interrupt(), answer);
          const expected = result.outcome === 'committed' ? after : before;
          assert.equal(hex(file.state.root), hex(bufferRoot(expected)));
          const bytes = new Uint8Array(expected.length);
          file.readAt(bytes, 0);
          assert.equal(Buffer.compare(bytes, expected), 0);
        },
      ),
      runs(200, 0.5),
    );
  });

  it('an append batch on an accumulator is the same batch on a file', () => {
    const pieces = fc.array(fc.integer({ min: 0, max: 9000 }), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(pieces, fc.nat(), fc.integer({ min: 1, max: 5000 }), (lengths, seed, cut) => {
        const file = new MemoryHost().createFile();
        const accumulator = new Accumulator();
        for (const [i, length] of lengths.entries()) {
          const payload = pattern(length, seed + i);
          const batch = appendBatch(accumulator.size, length);
          const split = Array.from({ length: Math.ceil(length / cut) }, (_, k) =>
            payload.subarray(k * cut, (k + 1) * cut),
          );
          const state = executeAppend(accumulator, batch, split);
          const payloads = batch.map(({ name }) => (name === 'Write' ? payload : undefined));
          const result = executeBatch(file, { initial: file.state, instructions: batch }, payloads);
          assert.equal(result.outcome, 'committed');
          assert.deepEqual(result.final, state);
        }
      }),
      runs(100, 0.2),
    );
  });
});
