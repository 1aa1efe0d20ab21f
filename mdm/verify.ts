import { type Instruction, machineError, type State } from './instruction.ts';
import { NO_BYTES } from './instructions/operation.ts';
import { decodeInstruction } from './instructions/table.ts';
import { Opening } from './opening.ts';

/**
 * Computes the state after a batch from the state before it, holding neither the file nor any of its data: only what
 * went into the machine and what came out. Every instruction that does something must have a proof. Returns the state
 * after each instruction; the last is the batch's. Throws `MDM_PROOF_MISSING`, `MDM_PROOF_LENGTH`, `MDM_PROOF_REFUTED`
 * or `MDM_OUTPUT_REFUTED` when something was not as it should be, and whatever makes a batch refused.
 */
export function verifyBatch(
  initial: State,
  instructions: readonly Instruction[],
  payloads: readonly (Uint8Array | undefined)[],
  outputs: readonly (Uint8Array | undefined)[],
  proofs: readonly (Uint8Array | undefined)[],
): State[] {
  for (const list of [payloads, outputs, proofs]) {
    if (list.length === instructions.length) continue;
    throw machineError(
      'MDM_PROOF_MISSING',
      `there are ${instructions.length} instructions, but ${list.length} payloads, outputs or proofs`,
    );
  }
  let state = initial;
  return instructions.map((instruction, i) => {
    state = verifyInstruction(state, instruction, payloads[i] ?? NO_BYTES, outputs[i] ?? NO_BYTES, proofs[i]);
    return state;
  });
}

/** `verifyBatch` of one instruction. */
export function verifyInstruction(
  before: State,
  instruction: Instruction,
  payload: Uint8Array,
  output: Uint8Array,
  proof: Uint8Array | undefined,
): State {
  const operation = decodeInstruction(instruction, before.size);
  const { action, sizeAfter } = operation;
  if (payload.length !== operation.payloadLength) {
    throw machineError(
      'MDM_PAYLOAD_LENGTH',
      `the payload has ${payload.length} bytes; the inputs say ${operation.payloadLength}`,
    );
  }
  if (output.length !== operation.outputLength) {
    throw machineError('MDM_OUTPUT_REFUTED', `the output has ${output.length} bytes, not ${operation.outputLength}`);
  }
  if (action === undefined) {
    if ((proof?.length ?? 0) > 0)
      throw machineError('MDM_PROOF_LENGTH', `${instruction.name} does nothing here: its proof is empty`);
    return before;
  }
  if (proof === undefined) throw machineError('MDM_PROOF_MISSING', `there is no proof of ${instruction.name}`);
  const opening = new Opening(action.plan(), proof, output);
  if (Buffer.compare(opening.rootBefore(), operation.readsSector ?? before.root) !== 0) {
    throw machineError(
      'MDM_PROOF_REFUTED',
      `the proof of ${instruction.name} is of another tree than the one it starts from`,
    );
  }
  const root = action.verify(opening, payload, output);
  return operation.readsSector === undefined ? { root, size: sizeAfter } : before;
}
