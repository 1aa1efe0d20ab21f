import type { CommittedFile } from '../../mdm/file.ts';
import { PgError } from '../../mdm/error.ts';
import { machineError, type State } from '../../mdm/instruction.ts';
import { LEAF_BYTES, ROOT_BYTES } from '../../mdm/merkle.ts';
import { buildRangeProof, type LeafRange, proofSubtrees, verifyRangeProof } from '../../mdm/range-proof.ts';
import { StagedFile } from '../../mdm/staged-file.ts';
import { Fold, leafCount, subtreesOf } from '../../mdm/subtrees.ts';
import { readState, stateToJson } from './program.ts';
import { badJson, JsonObject, readJson, toHex } from './read-json.ts';

/** Proofs that segments are in a file, as JSON (docs/formats/mdm-json.md). */
export const RANGE_FORMAT = 'pg-mdm-range-1';

const MOST_BYTES = 64 * 2 ** 20;

/** `START:END`, in segments of 64 bytes, END not included. `MDM_BAD_RANGE`. */
export function parseRange(text: string): LeafRange {
  const match = /^([0-9]{1,15}):([0-9]{1,15})$/.exec(text);
  const range = { from: Number(match?.[1]), to: Number(match?.[2]) };
  if (range.from < range.to) return range;
  throw new PgError('MDM_BAD_RANGE', `'${text.slice(0, 60)}' is no range of segments`, {
    hint: 'a range is START:END, in segments of 64 bytes, END after START and not included',
  });
}

/** The proof that the segments of `range` are in the file; `MDM_OUT_OF_BOUNDS`, `MDM_RESULT_TOO_LARGE`. */
export function proveRange(file: CommittedFile, range: LeafRange): object {
  const { size } = file.state;
  const leaves = leafCount(size);
  if (range.to > leaves) {
    throw machineError('MDM_OUT_OF_BOUNDS', `the file has ${leaves} segments; ${range.from}:${range.to} is not in it`);
  }
  const length = Math.min(range.to * LEAF_BYTES, size) - range.from * LEAF_BYTES;
  if (length > MOST_BYTES) throw new PgError('MDM_RESULT_TOO_LARGE', `a proof has at most ${MOST_BYTES} bytes of data`);
  const tree = new StagedFile(file);
  const data = new Uint8Array(length);
  tree.readAt(data, range.from * LEAF_BYTES);
  const proof = buildRangeProof(leaves, range, ({ from, to }) => {
    // The last subtree may be ragged: it is folded from perfect ones.
    const fold = new Fold();
    for (const { leaf, height } of subtreesOf(0, to - from)) {
      fold.subtree(height, tree.subtreeRoot({ leaf: from + leaf, height }));
    }
    return fold.root();
  });
  return {
    format: RANGE_FORMAT,
    ...stateToJson(file.state),
    start: range.from,
    end: range.to,
    data: toHex(data),
    proof: toHex(proof),
  };
}

/** What a proof shows, checked with nothing else at hand; throws what is wrong with it. */
export async function verifyRange(path: string): Promise<State & { start: number; end: number; bytes: number }> {
  const document = new JsonObject(await readJson(path), 'the proof');
  if (document.get('format') !== RANGE_FORMAT) throw badJson(`${path} is no proof of a range ("${RANGE_FORMAT}")`);
  const state = readState(document);
  const range = { from: Number(document.u64('start')), to: Number(document.u64('end')) };
  const [data, proof] = [document.hex('data'), document.hex('proof')];
  const leaves = leafCount(state.size);
  if (!(range.from < range.to && range.to <= leaves) || state.size > 2 ** 48) {
    throw machineError('MDM_OUT_OF_BOUNDS', `a file of ${state.size} bytes has no segments ${range.from}:${range.to}`);
  }
  const length = Math.min(range.to * LEAF_BYTES, state.size) - range.from * LEAF_BYTES;
  if (data.length !== length) {
    throw machineError('MDM_OUTPUT_REFUTED', `the segments have ${length} bytes, the data ${data.length}`);
  }
  const hashes = [...proofSubtrees(leaves, [range])].length;
  if (proof.length !== hashes * ROOT_BYTES) {
    throw machineError('MDM_PROOF_LENGTH', `the proof has ${proof.length} bytes, not ${hashes * ROOT_BYTES}`);
  }
  if (!verifyRangeProof(state.root, leaves, range, data, proof)) {
    throw machineError('MDM_PROOF_REFUTED', 'the data and the proof do not lead to the root');
  }
  return { ...state, start: range.from, end: range.to, bytes: length };
}
