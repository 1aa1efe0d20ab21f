import assert from 'node:assert/strict';
import { BatchRun, costOf, executeBatch } from '../../mdm/batch.ts';
import { executeBatchArriving } from '../../mdm/batch-arriving.ts';
import { INIT_COST } from '../../mdm/cost.ts';
import { isPgError, PgError } from '../../mdm/error.ts';
import type { Change } from '../../mdm/file.ts';
import { type Instruction, makeInstruction } from '../../mdm/instruction.ts';
import { decodeInstruction } from '../../mdm/instructions/table.ts';
import { type MemoryFile, MemoryHost } from '../../mdm/memory-file.ts';
import { bufferRoot, SECTOR_BYTES as S } from '../../mdm/merkle.ts';
import { proofLength } from '../../mdm/opening.ts';
import { verifyBatch } from '../../mdm/verify.ts';
import { pattern } from './programs.ts';
import { hex } from './vectors.ts';

const ROOT = new Uint8Array(32).fill(7);
const HUGE = 2 ** 64 - 2048; // the largest double below 2^64
const I = makeInstruction;

const execute = (file: MemoryFile, instructions: Instruction[], payloads?: (Uint8Array | undefined)[]) =>
  executeBatch(file, { initial: file.state, instructions }, payloads ?? instructions.map(() => undefined));

/** Runs one batch that must be refused or fail with this code, cost so much, and leave the file as it was. */
function assertRejected(
  instructions: Instruction[],
  code: string,
  { size = 1000, payloads, outcome = 'refused' }: { size?: number; payloads?: Uint8Array[]; outcome?: string } = {},
): void {
  const file = new MemoryHost().createFile(pattern(size, 1));
  const before = hex(file.state.root);
  const result = execute(file, instructions, payloads);
  assert.ok('error' in result, `${code}: ${result.outcome}`);
  assert.equal(result.error.code, code);
  assert.equal(result.outcome, outcome);
  assert.deepEqual(result.cost, outcome === 'refused' ? INIT_COST : costOf(instructions, size).cost);
  assert.equal(hex(file.state.root), before);
  assert.equal(file.state.size, size);
}

function refuses(code: string, ...given: Parameters<typeof verifyBatch>): void {
  assert.throws(
    () => verifyBatch(...given),
    (error) => isPgError(error, code),
  );
}

describe('the machine', () => {
  it('refuses what inputs, sizes and payload lengths show to be wrong, at the cost of init alone', () => {
    assertRejected([I('Append', [1])], 'MDM_UNKNOWN_INSTRUCTION');
    assertRejected([I('Read', [new Uint8Array(4097)])], 'MDM_INPUT_TOO_LARGE');
    assertRejected([I('Read', [new Uint8Array(4096)])], 'MDM_BAD_INPUT');
    assertRejected([I('Truncate', [])], 'MDM_BAD_INPUT');
    for (const [offset, length] of [
      [0, 1001],
      [1000, 1],
      [1001, 0],
      [HUGE, 1],
      [1, HUGE],
      [HUGE, HUGE],
    ] as const) {
      assertRejected([I('Read', [offset, length])], 'MDM_OUT_OF_BOUNDS');
      assertRejected([I('Write', [offset, length])], 'MDM_OUT_OF_BOUNDS');
      assertRejected([I('Copy', [length, offset, 0])], 'MDM_OUT_OF_BOUNDS');
      assertRejected([I('Copy', [length, 0, offset])], 'MDM_OUT_OF_BOUNDS');
      assertRejected([I('Swap', [length, offset, 0])], 'MDM_OUT_OF_BOUNDS');
      assertRejected([I('Swap', [length, 0, offset])], 'MDM_OUT_OF_BOUNDS');
      assertRejected([I('WriteRoot', [ROOT, 0, offset, length])], 'MDM_OUT_OF_BOUNDS');
    }
    assertRejected([I('WriteRoot', [ROOT, 1, 0, 1])], 'MDM_OUT_OF_BOUNDS');
    assertRejected([I('WriteRoot', [ROOT, HUGE, 0, 1])], 'MDM_OUT_OF_BOUNDS');
    assertRejected([I('ReadRoot', [ROOT, S, 1])], 'MDM_OUT_OF_BOUNDS');
    assertRejected([I('ReadRoot', [ROOT, 1, S])], 'MDM_OUT_OF_BOUNDS');
    assertRejected([I('Truncate', [2 ** 48 + 1])], 'MDM_SIZE_TOO_LARGE');
    assertRejected([I('Truncate', [HUGE])], 'MDM_SIZE_TOO_LARGE');
    assertRejected([I('Swap', [10, 0, 9])], 'MDM_OVERLAPPING_SWAP');
    assertRejected([I('Write', [0, 2])], 'MDM_PAYLOAD_LENGTH', { payloads: [Uint8Array.of(1)] });
    assertRejected([I('Write', [0, 2])], 'MDM_PAYLOAD_LENGTH', { payloads: [new Uint8Array(3)] });
    assertRejected([I('Read', [0, 2])], 'MDM_PAYLOAD_LENGTH', { payloads: [Uint8Array.of(1)] });
    assertRejected([I('Read', [0, 2])], 'MDM_PAYLOAD_LENGTH', { payloads: [] });
  });

  it('checks bounds against the size a batch will have come to', () => {
    assertRejected([I('Truncate', [100]), I('Read', [100, 1])], 'MDM_OUT_OF_BOUNDS');
    const file = new MemoryHost().createFile();
    const result = execute(file, [I('Truncate', [100]), I('Read', [99, 1])]);
    assert.equal(result.outcome, 'committed');
  });

  it('refuses a batch that starts from another state', () => {
    const file = new MemoryHost().createFile(pattern(1000, 1));
    const others = [
      { ...file.state, size: 999 },
      { ...file.state, root: ROOT },
    ];
    for (const initial of others) {
      const result = executeBatch(file, { initial, instructions: [I('Truncate', [0])] }, [undefined]);
      assert.ok('error' in result && result.error.code === 'MDM_WRONG_STATE');
      assert.deepEqual(result.cost, INIT_COST);
    }
    assert.equal(file.state.size, 1000);
  });

  it('reverts everything, at full cost, when an instruction fails as it runs', () => {
    const write = I('Write', [0, 3]);
    const data = Uint8Array.of(1, 2, 3);
    for (const [wrong, code] of [
      [I('ReadRoot', [ROOT, 0, 1]), 'MDM_SECTOR_NOT_FOUND'],
      [I('WriteRoot', [ROOT, 0, 0, 0x40]), 'MDM_SECTOR_CHANGED'],
    ] as const) {
      const payload = wrong.name === 'WriteRoot' ? new Uint8Array(64) : new Uint8Array(0);
      assertRejected([write, wrong], code, { payloads: [data, payload], outcome: 'failed' });
    }
  });

  it('is nothing for an empty batch and for instructions that do nothing', () => {
    const file = new MemoryHost().createFile(pattern(1000, 1));
    const nothing = [
      I('Write', [1000, 0], true),
      I('WriteRoot', [ROOT, 0, 5, 0], true),
      I('ReadRoot', [ROOT, 5, 0], true),
      I('Read', [1000, 0], true),
      I('Copy', [0, 1, 2], true),
      I('Copy', [9, 2, 2], true),
      I('Swap', [0, 1, 2], true),
      I('Swap', [9, 2, 2], true),
      I('Truncate', [1000], true),
    ];
    const result = execute(file, nothing);
    assert.ok(result.outcome === 'committed');
    for (const { state, output, proof } of result.steps) {
      assert.deepEqual([state, output.length, proof?.length], [file.state, 0, 0]);
    }
    // Seven no-ops, init, and two reads of nothing: an access each, and twice the height (16 leaves: 4; a sector: 16).
    assert.deepEqual(result.cost, { accesses: 2, read: 0, written: 0, compute: 7 + 1 + 8 + 32 });
    const empty = execute(file, []);
    assert.ok(empty.outcome === 'committed');
    assert.deepEqual([empty.cost, empty.final], [INIT_COST, file.state]);
  });

  it('costs what the table says', () => {
    const N = 64 * S + 12_345; // 4,194,497 leaves: a height of 23
    const cost = (name: string, fields: (number | Uint8Array)[]): number[] => {
      const { accesses, read, written, compute } = decodeInstruction(I(name, fields), N).cost;
      return [accesses, read, written, compute];
    };
    assert.deepEqual(cost('Read', [5, 100]), [1, 100, 0, 46]);
    assert.deepEqual(cost('Read', [0, S]), [2, S, 0, 46]);
    assert.deepEqual(cost('ReadRoot', [ROOT, 5, 100]), [1, 100, 0, 32]);
    assert.deepEqual(cost('Write', [4095, 2]), [2, 8192, 8192, 256 + 46]);
    assert.deepEqual(cost('Write', [4096, 4096]), [2, 4096, 4096, 128 + 46]);
    assert.deepEqual(cost('Write', [1, 2 * S]), [6, 8192, 4096 * 2049, 128 * 2049 + 46]);
    assert.deepEqual(cost('WriteRoot', [ROOT, 3, 4095, 2]), [2, 8192, 8192, 256 + 46]);
    assert.deepEqual(cost('Copy', [100, 4090, 0]), [3, 4096 * 3, 8192, 256 + 92]);
    assert.deepEqual(cost('Swap', [100, 4090, 0]), [4, 4096 * 3, 4096 * 3, 384 + 92]);
    assert.deepEqual(cost('Truncate', [N + 1]), [2, 4096, 4096, 128 + 46 + 46]);
    assert.deepEqual(cost('Truncate', [64]), [2, 4096, 4096, 128 + 46 + 0]);
    const asked = costOf([I('Write', [0, 9], true)], N);
    assert.deepEqual(asked, costOf([I('Write', [0, 9], false)], N), 'a proof is free');
  });

  it('gives proofs as long as the specification says', () => {
    const size = 64 * S + 12_345;
    const length = (name: string, fields: number[]): number =>
      proofLength(decodeInstruction(I(name, fields), size).action!.plan());
    assert.equal(length('Read', [0, 4096]), 608);
    assert.equal(length('Write', [0, 4096]), 640);
    assert.equal(length('Write', [50, 100]), 928);
    assert.equal(length('Copy', [S, 0, 4 * S]), 384);
    assert.equal(length('Truncate', [65 * S]), 153);
    assert.equal(length('Truncate', [12_345]), 864);
  });

  it('reads sectors of other files, those the batch gained, and those it lost', () => {
    const host = new MemoryHost();
    const other = pattern(S, 5);
    host.createFile(other);
    const file = host.createFile(pattern(2 * S + 5, 6));
    const gained = pattern(S, 7);
    const old = pattern(2 * S + 5, 6).subarray(0, S);
    const zeros = new Uint8Array(S);
    const read = (sector: Uint8Array): Instruction => I('ReadRoot', [bufferRoot(sector), 1000, 64], true);
    const instructions = [
      I('Write', [0, S], true),
      read(gained),
      read(old),
      I('Write', [3, 1], true),
      read(gained),
      I('Truncate', [0], true),
      read(gained),
      read(old),
      read(other),
      I('Truncate', [S], true),
      read(zeros),
    ];
    const payloads = instructions.map(({ name }, i) =>
      name === 'Write' ? (i === 0 ? gained : Uint8Array.of(9)) : undefined,
    );
    const { state: initial } = file;
    const result = execute(file, instructions, payloads);
    assert.ok(result.outcome === 'committed', 'error' in result ? result.error.message : '');
    const outputs = result.steps.map(({ output }) => hex(output));
    assert.deepEqual(
      outputs.filter((o) => o !== ''),
      [gained, old, gained, gained, old, other, zeros].map((sector) => hex(sector.subarray(1000, 1064))),
    );
    const proofs = result.steps.map(({ proof }) => proof);
    const states = verifyBatch(
      initial,
      instructions,
      payloads,
      result.steps.map((s) => s.output),
      proofs,
    );
    assert.deepEqual(states.at(-1), file.state);
    const gone = execute(file, [read(old)]);
    assert.ok('error' in gone && gone.error.code === 'MDM_SECTOR_NOT_FOUND', 'committed away');
  });

  it('takes files of 2^48 bytes that are nearly all zeros', () => {
    const file = new MemoryHost().createFile(Uint8Array.of(1));
    const instructions = [
      I('Truncate', [2 ** 48 - 1], true),
      I('Write', [2 ** 47 + 12, 3], true),
      I('Swap', [100, 2 ** 48 - 101, 0], true),
      I('Copy', [4096, 2 ** 40, 2 ** 47], true),
      I('Read', [2 ** 48 - 101, 100], true),
      I('Truncate', [2 ** 40 + 15], true),
    ];
    const payloads = [undefined, Uint8Array.of(1, 2, 3), undefined, undefined, undefined, undefined];
    const { state: initial } = file;
    const result = execute(file, instructions, payloads);
    assert.ok(result.outcome === 'committed', 'error' in result ? result.error.message : '');
    const [outputs, proofs] = [result.steps.map((s) => s.output), result.steps.map((s) => s.proof)];
    assert.deepEqual(verifyBatch(initial, instructions, payloads, outputs, proofs).at(-1), file.state);
    assert.equal(result.steps[4]!.output[0], 1);
    const bytes = new Uint8Array(15);
    file.readAt(bytes, 2 ** 40);
    assert.deepEqual([...bytes], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
  });

  it('fails at once when a proof would be beyond all measure, and knows one that is too short at once', () => {
    const file = new MemoryHost().createFile();
    // Shifted by one leaf, every leaf's hash is moved on its own: 2^41 of them.
    const copy = I('Copy', [2 ** 47, 64, 0], true);
    const result = execute(file, [I('Truncate', [2 ** 48]), copy]);
    assert.ok(result.outcome === 'failed' && result.error.code === 'MDM_PROOF_TOO_LARGE');
    const state = { root: ROOT, size: 2 ** 48 };
    refuses('MDM_PROOF_LENGTH', state, [copy], [undefined], [undefined], [new Uint8Array(3200)]);
  });

  it('refuses a batch over its budget before it runs', () => {
    const file = new MemoryHost().createFile(pattern(9000, 1));
    const batch = { initial: file.state, instructions: [I('Write', [0, 5])] };
    const { cost } = costOf(batch.instructions, 9000);
    for (const resource of ['accesses', 'read', 'written', 'compute'] as const) {
      const result = executeBatch(file, batch, [new Uint8Array(5)], {
        budget: { ...cost, [resource]: cost[resource] - 1 },
      });
      assert.ok(result.outcome === 'refused' && result.error.code === 'MDM_OVER_BUDGET');
      assert.deepEqual(result.cost, INIT_COST);
    }
    assert.equal(executeBatch(file, batch, [new Uint8Array(5)], { budget: cost }).outcome, 'committed');
  });

  it('is interrupted by a signal: before, while payloads arrive, and not after', async () => {
    const data = pattern(8 * S, 2);
    const file = new MemoryHost().createFile(data);
    const batch = { initial: file.state, instructions: [I('Write', [0, 8 * S]), I('Truncate', [1])] };
    const full = costOf(batch.instructions, 8 * S).cost;
    const before = executeBatch(file, batch, [data, undefined], { signal: AbortSignal.abort() });
    assert.deepEqual([before.outcome, before.cost], ['interrupted', full]);

    const controller = new AbortController();
    const arriving = executeBatchArriving(file, batch, [pattern(8 * S, 3), undefined], { signal: controller.signal });
    setImmediate(() => controller.abort());
    const during = await arriving;
    assert.deepEqual([during.outcome, during.cost, during.final], ['interrupted', full, batch.initial]);

    const late = new AbortController();
    const after = await executeBatchArriving(file, batch, [data, undefined], { signal: late.signal });
    late.abort();
    assert.equal(after.outcome, 'committed');
    assert.equal(file.state.size, 1);
  });

  it('takes a payload in pieces as they arrive, before the rest is there', async () => {
    const data = pattern(3 * S + 5000, 4);
    const file = new MemoryHost().createFile(new Uint8Array(data.length));
    const instructions = [
      I('Write', [0, data.length], true),
      I('Read', [5, 3]),
      I('WriteRoot', [bufferRoot(data.subarray(0, S)), 0, 9, 2], true),
    ];
    const events: string[] = [];
    const pieces = async function* () {
      for (let at = 0; at < data.length; at += 700_001) {
        events.push(`piece ${at}`);
        yield data.subarray(at, at + 700_001);
      }
    };
    const payloads = function* () {
      yield pieces();
      events.push('second');
      yield undefined;
      yield pieceOf(Uint8Array.of(1), Uint8Array.of(), Uint8Array.of(2));
    };
    const { state: initial } = file;
    const result = await executeBatchArriving(file, { initial, instructions }, payloads());
    assert.ok(result.outcome === 'committed', 'error' in result ? result.error.message : '');
    assert.deepEqual([events.at(0), events.at(-1)], ['piece 0', 'second'], 'each in its turn');
    const expected = data.slice();
    expected.set([1, 2], 9);
    assert.equal(hex(file.state.root), hex(bufferRoot(expected)));
    const given = [data, undefined, Uint8Array.of(1, 2)];
    const whole = executeBatch(
      new MemoryHost().createFile(new Uint8Array(data.length)),
      { initial, instructions },
      given,
    );
    assert.deepEqual(result, whole, 'as if it had come at once');
  });

  it('reads no payload of a batch that is refused, and no more than shows that one is too long', async () => {
    const file = new MemoryHost().createFile(pattern(9000, 2));
    const { state: initial } = file;
    let taken = 0;
    const endless = async function* () {
      for (;;) {
        taken++;
        yield new Uint8Array(1000);
      }
    };
    const wrong: [Instruction[], object, string, number][] = [
      [[I('Write', [0, 9001])], {}, 'MDM_OUT_OF_BOUNDS', 0],
      [[I('Write', [0, 5000])], { budget: { ...INIT_COST, compute: 10 } }, 'MDM_OVER_BUDGET', 0],
      [[I('Write', [0, 5000])], { payloadLengths: [4999] }, 'MDM_PAYLOAD_LENGTH', 0],
      [[I('Write', [0, 5000])], { payloadLengths: [] }, 'MDM_PAYLOAD_LENGTH', 0],
      [[I('Truncate', [2 ** 47]), I('Copy', [2 ** 46, 2 ** 46, 0])], { memory: 2 ** 30 }, 'MDM_OUT_OF_MEMORY', 0],
      [[I('Write', [0, 5000])], { payloadLengths: [undefined] }, 'MDM_PAYLOAD_LENGTH', 6],
    ];
    for (const [instructions, options, code, most] of wrong) {
      taken = 0;
      const result = await executeBatchArriving(file, { initial, instructions }, [endless()], options);
      assert.ok('error' in result && result.error.code === code, code);
      assert.deepEqual([result.outcome, taken], most === 0 ? ['refused', 0] : ['failed', most]);
      assert.deepEqual(result.cost, most === 0 ? INIT_COST : costOf(instructions, 9000).cost);
      assert.deepEqual(file.state, initial);
    }
  });

  it('fails, at full cost, when a payload is too short or breaks off', async () => {
    const file = new MemoryHost().createFile(pattern(9000, 2));
    const { state: initial } = file;
    const instructions = [I('Write', [0, 3])];
    const breaking = async function* () {
      yield Uint8Array.of(1);
      throw new Error('the line is dead');
    };
    for (const [payload, code] of [
      [pieceOf(Uint8Array.of(1), Uint8Array.of(2)), 'MDM_PAYLOAD_LENGTH'],
      [breaking(), 'MDM_PAYLOAD_BROKEN'],
    ] as const) {
      const result = await executeBatchArriving(file, { initial, instructions }, [payload]);
      assert.ok(result.outcome === 'failed' && result.error.code === code, code);
      assert.deepEqual([result.cost, file.state], [costOf(instructions, 9000).cost, initial]);
    }
  });

  it('hears an interrupt while a payload does not arrive', async () => {
    const file = new MemoryHost().createFile(pattern(9000, 2));
    const controller = new AbortController();
    const never = async function* () {
      yield Uint8Array.of(1);
      controller.abort();
      await new Promise(() => {});
      yield Uint8Array.of(2);
    };
    const batch = { initial: file.state, instructions: [I('Write', [0, 2])] };
    const result = await executeBatchArriving(file, batch, [never()], { signal: controller.signal });
    assert.deepEqual(
      [result.outcome, result.cost, file.state],
      ['interrupted', costOf(batch.instructions, 9000).cost, batch.initial],
    );
  });

  it('fails, and reverts, when payloads stop coming or the host cannot commit', async () => {
    const file = new MemoryHost().createFile(pattern(100, 2));
    const batch = { initial: file.state, instructions: [I('Write', [0, 1]), I('Write', [1, 1])] };
    const short = await executeBatchArriving(file, batch, [Uint8Array.of(1)]);
    assert.ok(short.outcome === 'failed' && short.error.code === 'MDM_PAYLOAD_LENGTH');

    class FullDisk {
      file = file;
      get state() {
        return this.file.state;
      }
      readAt = file.readAt.bind(file);
      hashes = file.hashes.bind(file);
      sector = file.sector.bind(file);
      answers: string[] = [];
      commit(_change: Change): void {
        this.answers.push(run.interrupt());
        throw new PgError('NO_SPACE', 'the disk is full');
      }
    }
    const host = new FullDisk();
    const run = new BatchRun(host, batch);
    for (const byte of [1, 2]) for (const _ of run.step(Uint8Array.of(byte))) continue;
    const result = run.finish();
    assert.ok(result.outcome === 'failed' && result.error.code === 'NO_SPACE');
    assert.deepEqual([...host.answers, run.interrupt()], ['rejected', 'rejected'], 'once committing, never accepted');
    assert.equal(hex(file.state.root), hex(batch.initial.root));
  });

  it('verifies nothing without its proof, its output or its payload', () => {
    const file = new MemoryHost().createFile(pattern(5000, 2));
    const initial = file.state;
    const instructions = [I('Read', [10, 100], true), I('Write', [70, 200], true)];
    const payloads = [undefined, pattern(200, 3)];
    const result = execute(file, instructions, payloads);
    assert.ok(result.outcome === 'committed');
    const outputs = result.steps.map((s) => s.output);
    const proofs = result.steps.map((s) => s.proof);
    assert.deepEqual(verifyBatch(initial, instructions, payloads, outputs, proofs).at(-1), result.final);
    refuses('MDM_PROOF_MISSING', initial, instructions, payloads, outputs, [proofs[0], undefined]);
    refuses('MDM_PROOF_MISSING', initial, instructions, payloads, outputs, [proofs[0]]);
    refuses('MDM_OUTPUT_REFUTED', initial, instructions, payloads, [undefined, undefined], proofs);
    refuses('MDM_OUTPUT_REFUTED', initial, instructions, payloads, [outputs[0], Uint8Array.of(1)], proofs);
    refuses('MDM_PAYLOAD_LENGTH', initial, instructions, [undefined, undefined], outputs, proofs);
    refuses('MDM_PROOF_LENGTH', initial, instructions, payloads, outputs, [proofs[0]!.subarray(1), proofs[1]]);
    refuses('MDM_PROOF_REFUTED', { ...initial, root: ROOT }, instructions, payloads, outputs, proofs);
    refuses('MDM_OUTPUT_REFUTED', initial, instructions, payloads, [pattern(100, 9), outputs[1]], proofs);
  });
});

async function* pieceOf(...pieces: Uint8Array[]): AsyncGenerator<Uint8Array> {
  yield* pieces;
}
