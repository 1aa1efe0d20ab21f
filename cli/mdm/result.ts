import { type BatchResult, costOf } from '../../mdm/batch.ts';
import type { Cost } from '../../mdm/cost.ts';
import { isPgError, PgError } from '../../mdm/error.ts';
import { type Instruction, machineError, type State } from '../../mdm/instruction.ts';
import { decodeInstruction } from '../../mdm/instructions/table.ts';
import { proofLength } from '../../mdm/opening.ts';
import { verifyBatch } from '../../mdm/verify.ts';
import { readInstruction, readState, stateToJson } from './program.ts';
import { badJson, JsonObject, readJson, toHex } from './read-json.ts';

/** What a batch gave, as JSON (docs/formats/mdm-json.md): all that is needed to check it, and nothing else. */
export const RESULT_FORMAT = 'pg-mdm-result-1';

/** Bytes of payloads, outputs and proofs that a result may have; twice that is its hex. */
const MOST_BYTES = 64 * 2 ** 20;

/**
 * `MDM_RESULT_TOO_LARGE` when the payloads, outputs and proofs that belong into the result of these instructions would
 * be more than 64 MiB. What makes the batch refused is left to the machine.
 */
export function checkResultSize(instructions: readonly Instruction[], initialSize: number): void {
  let [size, bytes] = [initialSize, 0];
  for (const instruction of instructions) {
    let operation;
    try {
      operation = decodeInstruction(instruction, size);
    } catch (error) {
      if (isPgError(error)) return;
      throw error;
    }
    bytes += operation.outputLength;
    if (instruction.proofRequired) {
      bytes += operation.payloadLength;
      if (bytes <= MOST_BYTES && operation.action) bytes += proofLength(operation.action.plan(), MOST_BYTES);
    }
    size = operation.sizeAfter;
    if (bytes > MOST_BYTES) {
      throw new PgError('MDM_RESULT_TOO_LARGE', `the result would have more than ${MOST_BYTES} bytes`, {
        hint: 'make several batches of it; payloads of instructions without a proof are no part of a result',
      });
    }
  }
}

/**
 * The result of a batch. `payloads` has those of the instructions that wanted a proof: a verifier needs them, and has
 * no use for the others.
 */
export function resultToJson(
  initial: State,
  instructions: readonly Instruction[],
  payloads: readonly (Uint8Array | undefined)[],
  result: BatchResult,
): object {
  const head = { format: RESULT_FORMAT, outcome: result.outcome, initial: stateToJson(initial) };
  const foot = { final: stateToJson(result.final), cost: result.cost };
  if ('error' in result) return { ...head, ...foot, error: { code: result.error.code, message: result.error.message } };
  if (result.outcome !== 'committed') return { ...head, ...foot };
  let { size } = initial;
  const steps = result.steps.map(({ state, output, proof }, i) => {
    const { name, inputs, proofRequired } = instructions[i]!;
    const { cost, sizeAfter } = decodeInstruction(instructions[i]!, size);
    size = sizeAfter;
    return {
      name,
      inputs: toHex(inputs),
      proofWanted: proofRequired,
      payload: payloads[i] === undefined ? null : toHex(payloads[i]),
      output: toHex(output),
      proof: proof === undefined ? null : toHex(proof),
      state: stateToJson(state),
      cost,
    };
  });
  return { ...head, ...foot, instructions: steps };
}

export interface VerifiedBatch {
  initial: State;
  final: State;
  cost: Cost;
  instructions: number;
}

/**
 * Checks a result with nothing else at hand: every instruction's proof leads from one state to the next, and the states
 * and the cost are those that the result says. Throws what is wrong with it.
 */
export async function verifyResult(path: string): Promise<VerifiedBatch> {
  const document = new JsonObject(await readJson(path), 'the result');
  if (document.get('format') !== RESULT_FORMAT) throw badJson(`${path} is no result of a batch ("${RESULT_FORMAT}")`);
  if (document.string('outcome') !== 'committed') {
    throw new PgError('MDM_NOT_COMMITTED', 'the batch was not committed: there is nothing to verify');
  }
  const initial = readState(document.object('initial'));
  const claimed = readState(document.object('final'));
  const objects = document.array('instructions').map((item, i) => new JsonObject(item, `instructions[${i}]`));
  const instructions = objects.map(readInstruction);
  const bytes = (object: JsonObject, name: string): Uint8Array | undefined =>
    (object.get(name) ?? null) === null ? undefined : object.hex(name);
  const states = verifyBatch(
    initial,
    instructions,
    objects.map((object) => bytes(object, 'payload')),
    objects.map((object) => bytes(object, 'output')),
    objects.map((object) => bytes(object, 'proof')),
  );
  for (const [i, state] of states.entries()) checkState(`instructions[${i}].state`, state, objects[i]!.object('state'));
  checkState('final', states.at(-1) ?? initial, document.object('final'));
  const { cost } = costOf(instructions, initial.size);
  const said = document.object('cost');
  for (const resource of ['accesses', 'read', 'written', 'compute'] as const) {
    if (said.u64(resource) === BigInt(cost[resource])) continue;
    throw machineError('MDM_OUTPUT_REFUTED', `cost.${resource} is ${cost[resource]}, not what the result says`);
  }
  return { initial, final: claimed, cost, instructions: instructions.length };
}

function checkState(where: string, state: State, said: JsonObject): void {
  const { root, size } = readState(said);
  if (size === state.size && Buffer.compare(root, state.root) === 0) return;
  throw machineError(
    'MDM_PROOF_REFUTED',
    `${where} is ${toHex(state.root)} of ${state.size} bytes, not what the result says`,
  );
}
