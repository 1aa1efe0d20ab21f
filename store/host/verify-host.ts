import { isPgError } from '../../mdm/error.ts';
import { BLOCK_BYTES, bufferRoot, foldRoots, ROOT_BYTES } from '../../mdm/merkle.ts';
import type { Store } from '../store.ts';
import type { Problem } from '../verify.ts';
import { decodeFile, decodeSector, hashKey, TABLES } from './records.ts';
import { HostSectors } from './sectors.ts';

/**
 * Reads every sector that files of the host have and checks its bytes against its hashes, those against its root, and
 * the roots of files against those of their sectors.
 */
export function* verifyHost(store: Store): Generator<Problem> {
  const sectors = new HostSectors(store);
  const damaged: Buffer[] = [];
  const onDamaged = (key: Buffer): void => void damaged.push(key);
  for (const { key, value } of store.table(TABLES.sectors).range({ onDamaged })) {
    const what = problemOf(sectors, key, decodeSector(value).bytes);
    if (what !== undefined) yield sectorProblem(key, what);
  }
  for (const key of damaged) yield sectorProblem(key, 'its entry in the index is damaged');
  const lost: string[] = [];
  for (const { key, value } of store
    .table(TABLES.files)
    .range({ onDamaged: (key) => void lost.push(key.toString()) })) {
    const { id, state } = decodeFile(value);
    const top = store.table(TABLES.hashes).get(hashKey(id, 36, 0));
    if (state.size === 0 || (top !== undefined && Buffer.compare(foldRoots(top), state.root) === 0)) continue;
    if (store.table(TABLES.files).get(key)?.equals(value) !== true) continue; // committed to meanwhile
    yield {
      kind: 'host',
      root: state.root,
      message: `machine file '${key.toString()}': its hashes have another root`,
    };
  }
  for (const name of lost)
    yield {
      kind: 'entry',
      table: TABLES.files,
      key: Buffer.from(name),
      message: `machine file '${name}': its entry in the index is damaged`,
    };
}

function sectorProblem(root: Uint8Array, what: string): Problem {
  return { kind: 'host', root, message: `sector ${Buffer.from(root).toString('hex')} of a machine file: ${what}` };
}

function problemOf(sectors: HostSectors, root: Uint8Array, length: number): string | undefined {
  try {
    const bytes = new Uint8Array(length);
    sectors.readAt(root, bytes, 0);
    const hashes = sectors.blockRoots(root)!;
    for (let at = 0; at < length; at += BLOCK_BYTES) {
      const kept = hashes.subarray((at / BLOCK_BYTES) * ROOT_BYTES, (at / BLOCK_BYTES + 1) * ROOT_BYTES);
      const got = bufferRoot(bytes.subarray(at, at + BLOCK_BYTES));
      if (Buffer.compare(got, kept) !== 0) return `block ${at / BLOCK_BYTES} has another root`;
    }
    return Buffer.compare(foldRoots(hashes), root) === 0 ? undefined : 'its hashes have another root';
  } catch (error) {
    // A batch that was committed meanwhile may have taken it away.
    if (sectors.record(root) === undefined) return undefined;
    if (isPgError(error)) return error.message;
    throw error;
  }
}
