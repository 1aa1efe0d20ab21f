import { accesses, blocksTouched, type Cost, NOOP_COST, treeHeight } from '../cost.ts';
import { checkRange, InputReader, type Instruction } from '../instruction.ts';
import { BLOCK_BYTES } from '../merkle.ts';
import { coverage, makePlan } from '../opening.ts';
import type { Operation } from './operation.ts';

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
      payloadAt: offset,
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
