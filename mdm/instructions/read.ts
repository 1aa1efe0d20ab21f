import { accesses, type Cost, treeHeight } from '../cost.ts';
import { checkRange, InputReader, type Instruction, machineError } from '../instruction.ts';
import { LEAF_BYTES } from '../merkle.ts';
import { coverage, type Edit, type Opening, overlay, type Plan, makePlan } from '../opening.ts';
import { type Action, type Operation, SLICE_BYTES } from './operation.ts';

/** Read(offset, length): the output is the file's bytes [offset, offset + length). */
export function decodeRead(instruction: Instruction, size: number): Operation {
  const inputs = new InputReader(instruction, 16);
  const [offset, length] = [inputs.u64(), inputs.u64()];
  checkRange('Read', offset, length, size);
  const action = length === 0 ? undefined : readAction(offset, length, size, (file) => file);
  return { sizeAfter: size, payloadLength: 0, outputLength: length, cost: readCost(length, size), action };
}

/** What reading `length` bytes of a tree over `size` bytes costs. */
export function readCost(length: number, size: number): Cost {
  return { accesses: accesses(length), read: length, written: 0, compute: 2 * treeHeight(size) };
}

/** Reading `length` >= 1 bytes at `offset` of a tree over `size` bytes. */
export function readAction(offset: number, length: number, size: number, open: Action['open']): Action {
  return {
    plan: () => readPlan(offset, length, size),
    open,
    *execute(_file, tree) {
      const output = new Uint8Array(length);
      for (let at = 0; at < length; at += SLICE_BYTES) {
        tree.readAt(output.subarray(at, at + SLICE_BYTES), offset + at);
        yield;
      }
      return output;
    },
    verify(opening, _payload, output) {
      checkEdges(opening, { offset, bytes: output });
      return opening.rootBefore();
    },
  };
}

/** Leaves wholly read are opened by the output, those partly read by their bytes. */
function readPlan(offset: number, length: number, size: number): Plan {
  const { whole, edges } = coverage(offset, length, size);
  return makePlan(size, { bytes: edges, output: whole, outputOffset: offset });
}

/** The bytes of partly read leaves must be those of the output where they overlap. */
function checkEdges(opening: Opening, output: Edit): void {
  for (const range of coverage(output.offset, output.bytes.length, opening.plan.size).edges) {
    for (const tile of opening.tiles(range)) {
      if (!('bytes' in tile)) continue;
      const bytes = tile.bytes.slice();
      overlay({ offset: tile.leaf * LEAF_BYTES, bytes }, output);
      if (Buffer.compare(bytes, tile.bytes) !== 0) {
        throw machineError('MDM_OUTPUT_REFUTED', `the output is not what the proof shows of leaf ${tile.leaf}`);
      }
    }
  }
}
