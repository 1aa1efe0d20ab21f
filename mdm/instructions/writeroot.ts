import { NOOP_COST } from '../cost.ts';
import { checkRange, InputReader, type Instruction, machineError } from '../instruction.ts';
import { LEAF_BYTES, SECTOR_BYTES } from '../merkle.ts';
import { coverage, makePlan } from '../opening.ts';
import { leafCount } from '../subtrees.ts';
import type { Operation } from './operation.ts';
import { writeCost } from './write.ts';

/**
 * WriteRoot(root, sectorIndex, offset, length; data): bytes [offset, offset + length) of the file's sector with this
 * index (the last may be a short one) become the payload, if the sector's root is `root`; else `MDM_SECTOR_CHANGED`.
 */
export function decodeWriteRoot(instruction: Instruction, size: number): Operation {
  const inputs = new InputReader(instruction, 56);
  const root = inputs.root();
  const [index, inSector, length] = [inputs.u64(), inputs.u64(), inputs.u64()];
  checkRange('WriteRoot', index * SECTOR_BYTES, 1, size);
  const start = index * SECTOR_BYTES;
  const end = Math.min(start + SECTOR_BYTES, size);
  checkRange('WriteRoot', inSector, length, end - start);
  const offset = start + inSector;
  const operation = { sizeAfter: size, payloadLength: length, outputLength: 0 };
  if (length === 0) return { ...operation, cost: NOOP_COST, action: undefined };
  const sector = { from: start / LEAF_BYTES, to: leafCount(end) };
  return {
    ...operation,
    cost: writeCost(offset, length, size),
    action: {
      plan() {
        const { whole, edges } = coverage(offset, length, size);
        return makePlan(size, { bytes: edges, cuts: [whole, sector] });
      },
      open(file) {
        if (Buffer.compare(file.sectorRoot(index), root) === 0) return file;
        throw machineError(
          'MDM_SECTOR_CHANGED',
          `sector ${index} does not have the root ${Buffer.from(root).toString('hex')}`,
        );
      },
      payloadAt: offset,
      verify(opening, payload) {
        if (Buffer.compare(opening.rootBefore(sector), root) !== 0) {
          throw machineError('MDM_PROOF_REFUTED', `the proof shows another root of sector ${index}`);
        }
        return opening.rootAfter([{ offset, bytes: payload }]);
      },
    },
  };
}
