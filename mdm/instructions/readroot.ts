import { checkRange, InputReader, type Instruction, machineError } from '../instruction.ts';
import { SECTOR_BYTES } from '../merkle.ts';
import type { Operation } from './operation.ts';
import { readAction, readCost } from './read.ts';

/**
 * ReadRoot(root, offset, length): the output is the bytes [offset, offset + length) of the full sector with this root,
 * which may be any committed sector of the host and any the batch has gained so far, also if it has lost it again. The
 * proof opens the sector's own tree.
 */
export function decodeReadRoot(instruction: Instruction, size: number): Operation {
  const inputs = new InputReader(instruction, 48);
  const root = inputs.root();
  const [offset, length] = [inputs.u64(), inputs.u64()];
  checkRange('ReadRoot', offset, length, SECTOR_BYTES);
  const action = readAction(offset, length, SECTOR_BYTES, (file) => {
    const sector = file.sector(root);
    if (sector !== undefined) return sector;
    throw machineError(
      'MDM_SECTOR_NOT_FOUND',
      `no sector on this host has the root ${Buffer.from(root).toString('hex')}`,
    );
  });
  return {
    sizeAfter: size,
    payloadLength: 0,
    outputLength: length,
    cost: readCost(length, SECTOR_BYTES),
    action: length === 0 ? undefined : action,
    readsSector: root,
  };
}
