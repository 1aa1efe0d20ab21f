import { accesses, blocksTouched, NOOP_COST, treeHeight } from '../cost.ts';
import { checkRange, InputReader, type Instruction } from '../instruction.ts';
import { BLOCK_BYTES, LEAF_BYTES } from '../merkle.ts';
import { coverage, makePlan, type Opening, type Plan } from '../opening.ts';
import type { StagedFile } from '../staged-file.ts';
import { congruent, movedRanges } from './moved.ts';
import { NO_BYTES, type Operation, SLICE_BYTES } from './operation.ts';

/**
 * Copy(length, destination, source): the file's bytes [destination, destination + length) become what [source, source +
 * length) was before, also where the two overlap.
 */
export function decodeCopy(instruction: Instruction, size: number): Operation {
  const inputs = new InputReader(instruction, 24);
  const [length, destination, source] = [inputs.u64(), inputs.u64(), inputs.u64()];
  checkRange('Copy', destination, length, size);
  checkRange('Copy', source, length, size);
  const operation = { sizeAfter: size, payloadLength: 0, outputLength: 0 };
  if (length === 0 || destination === source) return { ...operation, cost: NOOP_COST, action: undefined };
  const written = blocksTouched(destination, length);
  return {
    ...operation,
    cost: {
      accesses: 3 * accesses(length),
      read: BLOCK_BYTES * (blocksTouched(source, length) + Math.min(2, written)),
      written: BLOCK_BYTES * written,
      compute: 128 * written + 4 * treeHeight(size),
    },
    action: {
      plan: () => copyPlan(length, destination, source, size),
      open: (file) => file,
      execute: (file) => copySliced(file, length, destination, source),
      verify: (opening) => rootAfterCopy(opening, length, destination, source),
    },
  };
}

function copyPlan(length: number, destination: number, source: number, size: number): Plan {
  if (congruent(destination, source)) {
    const to = movedRanges(destination, length);
    const from = movedRanges(source, length);
    return makePlan(size, { bytes: [...to.edges, ...from.edges], capped: [to.inner, from.inner], cap: to.cap(from) });
  }
  // Shifted leaves have unrelated hashes: the source is shown whole.
  const { whole, edges } = coverage(destination, length, size);
  return makePlan(size, { bytes: [...edges, coverage(source, length, size).touched], cuts: [whole] });
}

function rootAfterCopy(opening: Opening, length: number, destination: number, source: number): Uint8Array {
  if (!congruent(destination, source)) {
    return opening.rootAfter([{ offset: destination, bytes: opening.bytesAt(source, length) }]);
  }
  const { inner, edgeBytes } = movedRanges(destination, length);
  const distance = source - destination;
  const edits = edgeBytes.map(({ offset, length }) => ({ offset, bytes: opening.bytesAt(offset + distance, length) }));
  return opening.rootAfter(edits, [{ source: inner.from + distance / LEAF_BYTES, range: inner }]);
}

/** memmove: from the end when the destination lies behind the source. */
function* copySliced(
  file: StagedFile,
  length: number,
  destination: number,
  source: number,
): Generator<void, Uint8Array> {
  const slices = Math.ceil(length / SLICE_BYTES);
  for (let i = 0; i < slices; i++) {
    const at = (destination < source ? i : slices - 1 - i) * SLICE_BYTES;
    const bytes = new Uint8Array(Math.min(SLICE_BYTES, length - at));
    file.readAt(bytes, source + at);
    file.write(destination + at, bytes);
    yield;
  }
  return NO_BYTES;
}
