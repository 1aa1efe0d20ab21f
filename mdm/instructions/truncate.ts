import { type Cost, NOOP_COST, treeHeight } from '../cost.ts';
import { checkSize, InputReader, type Instruction } from '../instruction.ts';
import { BLOCK_BYTES, LEAF_BYTES } from '../merkle.ts';
import { addTile, makePlan, type Opening, type Plan } from '../opening.ts';
import { Fold, leafCount } from '../subtrees.ts';
import { NO_BYTES, type Operation } from './operation.ts';

/**
 * Truncate(newSize): the file is cut to `newSize` bytes, or filled up to it with zeros. The only instruction that
 * changes the size.
 */
export function decodeTruncate(instruction: Instruction, size: number): Operation {
  const newSize = new InputReader(instruction, 8).u64();
  checkSize(newSize);
  const operation = { sizeAfter: newSize, payloadLength: 0, outputLength: 0 };
  if (newSize === size) return { ...operation, cost: NOOP_COST, action: undefined };
  return {
    ...operation,
    cost: truncateCost(size, newSize),
    action: {
      plan: () => truncatePlan(size, newSize),
      open: (file) => file,
      // oxlint-disable-next-line require-yield -- nothing here takes long
      *execute(file) {
        file.truncate(newSize);
        return NO_BYTES;
      },
      verify: (opening) => rootAfterTruncate(opening, newSize),
    },
  };
}

/** What changing the size of a file from `size` to another `newSize` costs. */
export function truncateCost(size: number, newSize: number): Cost {
  return {
    accesses: 2,
    read: BLOCK_BYTES,
    written: BLOCK_BYTES,
    compute: 128 + 2 * treeHeight(size) + 2 * treeHeight(newSize),
  };
}

/**
 * The leaf that the smaller size ends in, if it ends within one, is shown by its bytes; the leaves before it are a
 * range of their own.
 */
function truncatePlan(size: number, newSize: number): Plan {
  const end = Math.min(size, newSize);
  const kept = Math.floor(end / LEAF_BYTES);
  return makePlan(size, { bytes: [{ from: kept, to: leafCount(end) }], cuts: [{ from: 0, to: kept }] });
}

function rootAfterTruncate(opening: Opening, newSize: number): Uint8Array {
  const end = Math.min(opening.plan.size, newSize);
  const kept = Math.floor(end / LEAF_BYTES);
  const fold = new Fold();
  for (const tile of opening.tiles({ from: 0, to: kept })) addTile(fold, tile);
  if (kept < leafCount(end)) {
    const leaf = new Uint8Array(Math.min(LEAF_BYTES, newSize - kept * LEAF_BYTES));
    leaf.set(opening.bytesAt(kept * LEAF_BYTES, end - kept * LEAF_BYTES));
    fold.bytes(leaf);
  }
  fold.zerosTo(Math.max(fold.leaves, Math.floor(newSize / LEAF_BYTES)));
  if (fold.leaves < leafCount(newSize)) fold.bytes(new Uint8Array(newSize % LEAF_BYTES));
  return fold.root();
}
