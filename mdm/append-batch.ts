import type { Accumulator } from './accumulator.ts';
import { checkSize, InputReader, type Instruction, machineError, makeInstruction, type State } from './instruction.ts';

/**
 * A commit of an append-only file (the container's log) as the batch it is: Truncate to the new size, then Write the
 * new bytes. On an Accumulator it costs only those, and gives the same state as `executeBatch` gives on any file.
 */

/**
 * The batch that appends `payloadLength` bytes to a file of `oldSize` bytes; its payloads are nothing and those bytes.
 * Empty for no bytes.
 */
export function appendBatch(oldSize: number, payloadLength: number): Instruction[] {
  checkSize(oldSize + payloadLength);
  if (payloadLength === 0) return [];
  return [makeInstruction('Truncate', [oldSize + payloadLength]), makeInstruction('Write', [oldSize, payloadLength])];
}

/**
 * Executes what `appendBatch` made on the file that `accumulator` holds the tree of, taking the payload in as many
 * pieces as it comes in, and returns the state after. `MDM_WRONG_STATE` when the batch is not the append to exactly
 * this size, `MDM_PAYLOAD_LENGTH` when the payload is longer or shorter than it says; the accumulator is unchanged
 * then.
 */
export function executeAppend(
  accumulator: Accumulator,
  batch: readonly Instruction[],
  payload: Uint8Array | readonly Uint8Array[],
): State {
  const pieces = payload instanceof Uint8Array ? [payload] : payload;
  const length = appendedLength(accumulator.size, batch);
  const given = pieces.reduce((n, piece) => n + piece.length, 0);
  if (given !== length) {
    throw machineError('MDM_PAYLOAD_LENGTH', `the batch appends ${length} bytes, its payload has ${given}`);
  }
  for (const piece of pieces) accumulator.append(piece);
  return { root: accumulator.root(), size: accumulator.size };
}

/** How many bytes `batch` appends to a file of `size` bytes. */
function appendedLength(size: number, batch: readonly Instruction[]): number {
  if (batch.length === 0) return 0;
  const [truncate, write] = batch;
  if (batch.length === 2 && truncate?.name === 'Truncate' && write?.name === 'Write') {
    const newSize = new InputReader(truncate, 8).u64();
    const range = new InputReader(write, 16);
    const [offset, length] = [range.u64(), range.u64()];
    checkSize(newSize);
    if (offset === size && length === newSize - size && length > 0) return length;
  }
  throw machineError('MDM_WRONG_STATE', `the batch is not an append to a file of ${size} bytes`);
}
