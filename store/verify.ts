import { bufferRoot, SECTOR_BYTES } from '../mdm/merkle.ts';
import { isPgError } from '../mdm/error.ts';
import { contentOfKey, type ContentRef, decodeExtents, describeContent, isZeroSector } from './content.ts';
import { checkScattered, RootCheck } from './content-check.ts';
import { sectorKey } from './content-reader.ts';
import type { Index } from './index-db.ts';
import { SectorPool } from './sector-pool.ts';

export interface VerifyProgress {
  /** Sectors read so far and in all. */
  sectors: number;
  totalSectors: number;
}

/** Something in the store that is not as it was written. */
export type Problem = { message: string } & (
  { kind: 'sector'; root: Uint8Array } | { kind: 'content'; ref: ContentRef } | { kind: 'node'; hash: Uint8Array }
);

export interface VerifyReport {
  sectors: number;
  bytes: number;
  contents: number;
  nodes: number;
  problems: Problem[];
}

/** See `Store.verify`. */
export async function verifyStore(
  index: Index,
  pathOf: (root: Uint8Array) => string,
  onProgress: ((progress: VerifyProgress) => void) | undefined,
): Promise<VerifyReport> {
  const report: VerifyReport = { sectors: 0, bytes: 0, contents: 0, nodes: 0, problems: [] };
  const sectors = [...index.table('sectors').keys()];
  const known = new Set(sectors.map(sectorKey));
  const check = gatherContents(index, known, report);
  const pool = new SectorPool();
  try {
    await Promise.all(
      sectors.map(async (root) => {
        const problem = await verifySector(pool, check, root, pathOf(root));
        if (problem) report.problems.push({ kind: 'sector', root, message: problem });
        report.sectors++;
        report.bytes += SECTOR_BYTES;
        onProgress?.({ sectors: report.sectors, totalSectors: sectors.length });
      }),
    );
    // What is wrong with their sectors has been said.
    for (const piece of check.scattered) await checkScattered(piece, pool, pathOf).catch(() => undefined);
  } finally {
    await pool.close();
  }
  verifyNodes(index, report);
  return report;
}

/** Reads one sector; the words for what is wrong with it, if something is. */
async function verifySector(
  pool: SectorPool,
  check: RootCheck,
  root: Uint8Array,
  path: string,
): Promise<string | undefined> {
  const name = `sector ${Buffer.from(root).toString('hex')}`;
  try {
    const result = await pool.run({ kind: 'check', path, spans: check.spansIn(root) });
    if (result.bad?.[0] === -1) return `${name}: the file has the wrong size (${path})`;
    check.foundIn(root, result.contentRoots);
    if (result.bad?.length) return `${name}: block ${result.bad.join(', ')} does not have its checksum (${path})`;
    if (Buffer.compare(result.root, root) !== 0) return `${name}: the bytes have another root (${path})`;
    return undefined;
  } catch (error) {
    return `${name}: ${isPgError(error) ? error.message : String(error)} (${path})`;
  }
}

function gatherContents(index: Index, known: ReadonlySet<string>, report: VerifyReport): RootCheck {
  const check = new RootCheck();
  const onDamaged = (key: Buffer): void => {
    const ref = contentOfKey(key);
    report.problems.push({
      kind: 'content',
      ref,
      message: `${describeContent(ref)}: its entry in the index is damaged`,
    });
  };
  for (const { key, value } of index.table('contents').range({ onDamaged })) {
    report.contents++;
    const ref = contentOfKey(key);
    const problem = (message: string): void =>
      void report.problems.push({ kind: 'content', ref, message: `${describeContent(ref)}: ${message}` });
    try {
      const extents = decodeExtents(value);
      const missing = extents.find(({ sector }) => !isZeroSector(sector) && !known.has(sectorKey(sector)));
      if (missing) problem(`sector ${Buffer.from(missing.sector).toString('hex')} is not in the store`);
      else {
        check.add({ ref, extents }, (root) => {
          if (Buffer.compare(root, ref.root) !== 0) problem('the bytes have another root');
        });
      }
    } catch (error) {
      problem((error as Error).message);
    }
  }
  return check;
}

/** A node's key is the Merkle root of its bytes. */
function verifyNodes(index: Index, report: VerifyReport): void {
  const damaged = (hash: Buffer, what: string): void =>
    void report.problems.push({ kind: 'node', hash, message: `node ${hash.toString('hex')}: ${what}` });
  const onDamaged = (key: Buffer): void => damaged(key, 'its entry in the index is damaged');
  for (const { key, value } of index.table('nodes').range({ onDamaged })) {
    report.nodes++;
    if (Buffer.compare(bufferRoot(value), key) === 0) continue;
    damaged(key, 'the bytes have another root');
  }
}
