// Programs of test/mdm/programs.ts on files of a host, and what those should hold then.
import assert from 'node:assert/strict';
import { executeBatch } from '../../../mdm/batch.ts';
import type { CommittedFile } from '../../../mdm/file.ts';
import { type Instruction, makeInstruction } from '../../../mdm/instruction.ts';
import { bufferRoot, SECTOR_BYTES } from '../../../mdm/merkle.ts';
import { verifyBatch } from '../../../mdm/verify.ts';
import { type Draft, place, type Placed } from '../../mdm/programs.ts';
import { hex } from '../../mdm/vectors.ts';

/** The steps of a program on a file with these bytes, and the bytes after each. */
export function placeAll(drafts: readonly Draft[], before: Uint8Array): { steps: Placed[]; after: Uint8Array } {
  let after = before;
  const steps = drafts.map((draft) => {
    const placed = place(draft, after);
    after = placed.after;
    return placed;
  });
  return { steps, after };
}

/** All bytes of a file. */
export function bytesOf(file: CommittedFile): Uint8Array {
  const bytes = new Uint8Array(file.state.size);
  file.readAt(bytes, 0);
  return bytes;
}

/** Gives an empty file these bytes, as one batch. */
export function fillFile(file: CommittedFile, data: Uint8Array): void {
  const instructions = [makeInstruction('Truncate', [data.length]), makeInstruction('Write', [0, data.length])];
  const result = executeBatch(file, { initial: file.state, instructions }, [undefined, data]);
  assert.equal(result.outcome, 'committed');
}

/** Runs the steps as one batch and checks what a verifier can. */
export function runBatch(file: CommittedFile, steps: readonly Placed[]): void {
  const initial = file.state;
  const instructions: Instruction[] = steps.map(({ instruction }) => instruction);
  const payloads = steps.map(({ payload }) => payload);
  const result = executeBatch(file, { initial, instructions }, payloads);
  if ('error' in result) throw result.error;
  assert.ok(result.outcome === 'committed');
  const [outputs, proofs] = [result.steps.map(({ output }) => output), result.steps.map(({ proof }) => proof)];
  const states = verifyBatch(initial, instructions, payloads, outputs, proofs);
  assert.deepEqual(states.at(-1) ?? initial, file.state);
}

/** Checks a file's bytes, state and all the hashes it keeps against what it should hold. */
export function checkFile(file: CommittedFile, expected: Uint8Array): void {
  assert.equal(file.state.size, expected.length);
  assert.equal(hex(file.state.root), hex(bufferRoot(expected)), 'the root');
  assert.equal(Buffer.compare(bytesOf(file), expected), 0, 'the bytes');
  for (let at = 0; at < expected.length; at += SECTOR_BYTES) {
    const sector = expected.subarray(at, at + SECTOR_BYTES);
    const root = file.hashes(16, 0)?.slice((at / SECTOR_BYTES) * 32, (at / SECTOR_BYTES) * 32 + 32);
    if (root === undefined) assert.ok(sector.every((byte) => byte === 0));
    else assert.equal(hex(root), hex(bufferRoot(sector)));
    const blocks = file.hashes(6, at / SECTOR_BYTES);
    for (let block = 0; block * 4096 < sector.length; block += 97) {
      const bytes = sector.subarray(block * 4096, (block + 1) * 4096);
      const kept = blocks?.slice(block * 32, block * 32 + 32);
      if (kept === undefined) assert.ok(bytes.every((byte) => byte === 0));
      else assert.equal(hex(kept), hex(bufferRoot(bytes)));
    }
  }
}
