import type { Cost } from '../cost.ts';
import type { Instruction } from '../instruction.ts';
import type { Opening, Plan, ProofSource } from '../opening.ts';
import type { StagedFile } from '../staged-file.ts';

/**
 * An instruction decoded, checked and bound to the size its file will have when its turn comes: all that its inputs
 * say.
 */
export interface Operation {
  /** The file's size after it. */
  sizeAfter: number;
  /** Bytes of payload it needs, exactly. */
  payloadLength: number;
  /** Bytes of output it gives, exactly. */
  outputLength: number;
  cost: Cost;
  /** What it does; undefined when it does nothing and its proof is empty. */
  action: Action | undefined;
  /** The root of the sector it reads instead of the file. */
  readsSector?: Uint8Array;
}

export interface Action {
  /** The opening plan of its proof. */
  plan(): Plan;
  /** The tree it works on and its proof opens; errors that only the file's state can show are thrown here. */
  open(file: StagedFile): ProofSource;
  /** Where in the file the payload goes; undefined when there is none. */
  payloadAt?: number;
  /** Does what is left to do once the payload is in its place; gives way now and then. Answers with the output. */
  execute?(file: StagedFile, tree: ProofSource): Generator<void, Uint8Array>;
  /**
   * The root after it, from an opening of the root before it. `MDM_OUTPUT_REFUTED` or `MDM_PROOF_REFUTED` when what the
   * opening shows disagrees with the output or the inputs.
   */
  verify(opening: Opening, payload: Uint8Array, output: Uint8Array): Uint8Array;
}

/**
 * Decodes an instruction for a file of `size` bytes; every error that inputs and size can show is thrown here, as a
 * PgError of the machine.
 */
export type Decode = (instruction: Instruction, size: number) => Operation;

export const NO_BYTES = new Uint8Array(0);
/** Bytes an instruction handles between two looks at the interrupt. */
export const SLICE_BYTES = 1 << 20;
