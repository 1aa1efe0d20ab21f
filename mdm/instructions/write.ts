import { accesses, blocksTouched, type Cost, NOOP_COST, treeHeight } from '../cost.ts';
import { checkRange, InputReader, type Instruction } from '../instruction.ts';
import { BLOCK_BYTES } from '../merkle.ts';
import { coverage, makePlan } from '../opening.ts';
import type { StagedFile } from '../staged-file.ts';
import { NO_BYTES, type Operation, SLICE_BYTES } from './operation.ts';

/** Write(offset, length; data): the file's bytes [offset, offset + length) become the payload. */
export function decodeWrite(instruction: Instruction, size: number): Operation {
  const inputs = new InputReader(instruction, 16);
  const [offset, length] = [inputs.u64(), inputs.u64()];
  checkRange('Write', offset, length, size);
  const operation = { sizeAfter: size, payloadLength: length, outputLength: 0 };
  if (length === 0) return { ...operation, cost: NOOP_COST, action: undefined };
  return {
    ...operation,
    cost: writeCost(offset, length, size),
    action: {
      plan() {
        const { whole, edges } = coverage(offset, length, size);
        return makePlan(size, { bytes: edges, cuts: [whole] });
      },
      open: (file) => file,
      execute: (file, _tree, payload) => writeSliced(file, offset, payload),
      verify: (opening, payload) => opening.rootAfter([{ offset, bytes: payload }]),
    },
  };
}

/** What writing `length` >= 1 bytes at `offset` of a file of `size` bytes costs: edge blocks are read first. */
export function writeCost(offset: number, length: number, size: number): Cost {
  const blocks = blocksTouched(offset, length);
  return {
    accesses: 2 * accesses(length),
    read: BLOCK_BYTES * Math.min(2, blocks),
    written: BLOCK_BYTES * blocks,
    compute: 128 * blocks + 2 * treeHeight(size),
  };
}

/** Writes `payload` at `offset` slice by slice. */
export function* writeSliced(file: StagedFile, offset: number, payload: Uint8Array): Generator<void, Uint8Array> {
  for (let at = 0; at < payload.length; at += SLICE_BYTES) {
    file.write(offset + at, payload.subarray(at, at + SLICE_BYTES));
    yield;
  }
  return NO_BYTES;
}
