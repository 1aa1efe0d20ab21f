import { PgError } from './error.ts';
import { ROOT_BYTES } from './kernel/kernel.ts';
import { MAX_SIZE } from './merkle.ts';

/**
 * What a batch is made of (SIP1, "Instruction Format"; the decisions that close its gaps are in docs/formats/mdm.md).
 * A machine's state is the root and the size of its file, always together.
 */
export interface State {
  /** 32 bytes. */
  root: Uint8Array;
  /** Bytes, at most 2^48. */
  size: number;
}

/**
 * One instruction without its payload: enough to know its cost, the file's size after it, and the layout of its proof.
 */
export interface Instruction {
  name: string;
  /** At most 4,096 bytes: u64 little-endian and 32-byte hashes, in the order of SIP1's signature, payload left out. */
  inputs: Uint8Array;
  proofRequired: boolean;
}

/** Inputs of one instruction are at most this long; anything larger is payload. */
export const MAX_INPUT_BYTES = 4096;
/** A name on the wire: ASCII, padded with zeros. */
export const NAME_BYTES = 16;

/**
 * The codes of everything that can be wrong with a batch. All but the last group are found before anything is executed.
 */
export type MachineErrorCode =
  | 'MDM_UNKNOWN_INSTRUCTION'
  | 'MDM_INPUT_TOO_LARGE'
  | 'MDM_BAD_INPUT'
  | 'MDM_OUT_OF_BOUNDS'
  | 'MDM_SIZE_TOO_LARGE'
  | 'MDM_OVERLAPPING_SWAP'
  | 'MDM_PAYLOAD_LENGTH'
  | 'MDM_WRONG_STATE'
  | 'MDM_OVER_BUDGET'
  | 'MDM_BAD_ENCODING'
  // While executing:
  | 'MDM_SECTOR_NOT_FOUND'
  | 'MDM_SECTOR_CHANGED'
  | 'MDM_PROOF_TOO_LARGE'
  // While verifying:
  | 'MDM_PROOF_MISSING'
  | 'MDM_PROOF_LENGTH'
  | 'MDM_PROOF_REFUTED'
  | 'MDM_OUTPUT_REFUTED';

/** A PgError with one of the machine's codes. */
export function machineError(code: MachineErrorCode, message: string): PgError {
  return new PgError(code, message);
}

/** Reads an instruction's inputs field by field; `MDM_BAD_INPUT` when they are not exactly as long as the fields. */
export class InputReader {
  #at = 0;
  readonly #inputs: Uint8Array;
  readonly #name: string;

  constructor(instruction: Instruction, length: number) {
    this.#inputs = instruction.inputs;
    this.#name = instruction.name;
    if (this.#inputs.length !== length) {
      throw machineError('MDM_BAD_INPUT', `${this.#name} takes ${length} bytes of inputs, not ${this.#inputs.length}`);
    }
  }

  /** A u64. Beyond 2^53 it is rounded, which is still beyond every bound a size or an offset has. */
  u64(): number {
    const { buffer, byteOffset } = this.#inputs;
    const value = new DataView(buffer, byteOffset).getBigUint64(this.#at, true);
    this.#at += 8;
    return Number(value);
  }

  root(): Uint8Array {
    this.#at += ROOT_BYTES;
    return this.#inputs.slice(this.#at - ROOT_BYTES, this.#at);
  }
}

/**
 * The instruction `name` whose inputs are `fields` one after another: a number or bigint as u64 little-endian, bytes as
 * they are.
 */
export function makeInstruction(
  name: string,
  fields: readonly (number | bigint | Uint8Array)[],
  proofRequired = false,
): Instruction {
  const lengthOf = (field: number | bigint | Uint8Array): number => (field instanceof Uint8Array ? field.length : 8);
  const inputs = new Uint8Array(fields.reduce<number>((n, field) => n + lengthOf(field), 0));
  let at = 0;
  for (const field of fields) {
    if (field instanceof Uint8Array) inputs.set(field, at);
    else new DataView(inputs.buffer).setBigUint64(at, BigInt(field), true);
    at += lengthOf(field);
  }
  return { name, inputs, proofRequired };
}

/** `MDM_OUT_OF_BOUNDS` unless [offset, offset + length) lies within [0, bound); safe for any u64. */
export function checkRange(what: string, offset: number, length: number, bound: number): void {
  if (length > bound || offset > bound - length) {
    throw machineError(
      'MDM_OUT_OF_BOUNDS',
      `${what} of ${length} bytes at ${offset} does not lie within ${bound} bytes`,
    );
  }
}

/** `MDM_SIZE_TOO_LARGE` unless `size` is a size a file may have. */
export function checkSize(size: number): void {
  if (size > MAX_SIZE) throw machineError('MDM_SIZE_TOO_LARGE', `a file has at most 2^48 bytes, not ${size}`);
}
