import { type Instruction, machineError, MAX_INPUT_BYTES } from '../instruction.ts';
import { decodeCopy } from './copy.ts';
import type { Decode, Operation } from './operation.ts';
import { decodeRead } from './read.ts';
import { decodeReadRoot } from './readroot.ts';
import { decodeSwap } from './swap.ts';
import { decodeTruncate } from './truncate.ts';
import { decodeWrite } from './write.ts';
import { decodeWriteRoot } from './writeroot.ts';

/** The seven instructions of SIP1. */
const INSTRUCTIONS: ReadonlyMap<string, Decode> = new Map([
  ['Read', decodeRead],
  ['ReadRoot', decodeReadRoot],
  ['Write', decodeWrite],
  ['WriteRoot', decodeWriteRoot],
  ['Copy', decodeCopy],
  ['Swap', decodeSwap],
  ['Truncate', decodeTruncate],
]);

/** Decodes any instruction for a file of `size` bytes, with every check that needs no more than that. */
export function decodeInstruction(instruction: Instruction, size: number): Operation {
  if (instruction.inputs.length > MAX_INPUT_BYTES) {
    throw machineError(
      'MDM_INPUT_TOO_LARGE',
      `inputs have at most ${MAX_INPUT_BYTES} bytes, not ${instruction.inputs.length}`,
    );
  }
  const decode = INSTRUCTIONS.get(instruction.name);
  if (decode === undefined)
    throw machineError('MDM_UNKNOWN_INSTRUCTION', `there is no instruction '${instruction.name}'`);
  return decode(instruction, size);
}
