import { accesses, blocksTouched, NOOP_COST, treeHeight } from '../cost.ts';
import { checkRange, InputReader, type Instruction, machineError } from '../instruction.ts';
import { BLOCK_BYTES } from '../merkle.ts';
import { coverage, makePlan, type Opening, type Plan } from '../opening.ts';
import type { StagedFile } from '../staged-file.ts';
import { congruent, movedRanges } from './moved.ts';
import { NO_BYTES, type Operation, SLICE_BYTES } from './operation.ts';

/** Swap(length, a, b): the file's bytes [a, a + length) and [b, b + length), which may not overlap, change places. */
export function decodeSwap(instruction: Instruction, size: number): Operation {
  const inputs = new InputReader(instruction, 24);
  const [length, a, b] = [inputs.u64(), inputs.u64(), inputs.u64()];
  checkRange('Swap', a, length, size);
  checkRange('Swap', b, length, size);
  const operation = { sizeAfter: size, payloadLength: 0, outputLength: 0 };
  if (length === 0 || a === b) return { ...operation, cost: NOOP_COST, action: undefined };
  if (Math.abs(a - b) < length) {
    throw machineError('MDM_OVERLAPPING_SWAP', `the ranges of ${length} bytes at ${a} and ${b} overlap`);
  }
  const blocks = blocksTouched(a, length) + blocksTouched(b, length);
  return {
    ...operation,
    cost: {
      accesses: 4 * accesses(length),
      read: BLOCK_BYTES * blocks,
      written: BLOCK_BYTES * blocks,
      compute: 128 * blocks + 4 * treeHeight(size),
    },
    action: {
      plan: () => swapPlan(length, a, b, size),
      open: (file) => file,
      execute: (file) => swapSliced(file, length, a, b),
      verify: (opening) => rootAfterSwap(opening, length, a, b),
    },
  };
}

function swapPlan(length: number, a: number, b: number, size: number): Plan {
  if (!congruent(a, b)) {
    return makePlan(size, { bytes: [coverage(a, length, size).touched, coverage(b, length, size).touched] });
  }
  const [one, other] = [movedRanges(a, length), movedRanges(b, length)];
  const bytes = [...one.edges, ...other.edges];
  return makePlan(size, { bytes, capped: [one.inner, other.inner], cap: one.cap(other) });
}

function rootAfterSwap(opening: Opening, length: number, a: number, b: number): Uint8Array {
  if (!congruent(a, b)) {
    const [bytesOfA, bytesOfB] = [opening.bytesAt(a, length), opening.bytesAt(b, length)];
    return opening.rootAfter([
      { offset: a, bytes: bytesOfB },
      { offset: b, bytes: bytesOfA },
    ]);
  }
  const halves = [
    { to: movedRanges(a, length), from: movedRanges(b, length) },
    { to: movedRanges(b, length), from: movedRanges(a, length) },
  ];
  const edits = halves.flatMap(({ to, from }) =>
    to.edgeBytes.map(({ offset, length }, i) => ({
      offset,
      bytes: opening.bytesAt(from.edgeBytes[i]!.offset, length),
    })),
  );
  const moves = halves.map(({ to, from }) => ({ source: from.inner.from, range: to.inner }));
  return opening.rootAfter(edits, moves);
}

function* swapSliced(file: StagedFile, length: number, a: number, b: number): Generator<void, Uint8Array> {
  for (let at = 0; at < length; at += SLICE_BYTES) {
    const bytesOfA = new Uint8Array(Math.min(SLICE_BYTES, length - at));
    const bytesOfB = new Uint8Array(bytesOfA.length);
    file.readAt(bytesOfA, a + at);
    file.readAt(bytesOfB, b + at);
    file.write(a + at, bytesOfB);
    file.write(b + at, bytesOfA);
    yield;
  }
  return NO_BYTES;
}
