import { BLOCK_BYTES, bufferRoot, ROOT_BYTES, SECTOR_BYTES } from '../mdm/merkle.ts';
import { isPgError } from '../mdm/error.ts';
import {
  CONTENT_KEY_BYTES,
  contentKey,
  contentOfKey,
  type ContentRef,
  decodeExtents,
  describeContent,
  type Extent,
  isZeroSector,
} from './content.ts';
import { checkScattered, RootCheck } from './content-check.ts';
import { sectorKey } from './content-reader.ts';
import { TABLES } from './host/records.ts';
import type { Index } from './index-db.ts';
import { SectorPool } from './sector-pool.ts';

export interface VerifyProgress {
  /** Sectors read so far and in all. */
  sectors: number;
  totalSectors: number;
}

/** Something in the store that is not as it was written. */
export type Problem = { message: string } & (
  | {
      kind: 'sector';
      root: Uint8Array;
      /** Its 4 KiB blocks that do not have their checksums; undefined: nothing of it can be relied on. */
      bad?: readonly number[];
    }
  | { kind: 'content'; ref: ContentRef }
  | { kind: 'node'; hash: Uint8Array }
  | { kind: 'entry'; table: string; key: Uint8Array }
  /** A sector of the host's files (docs/formats/host.md). */
  | { kind: 'host'; root: Uint8Array }
);

export interface VerifyReport {
  sectors: number;
  bytes: number;
  contents: number;
  nodes: number;
  problems: Problem[];
}

/** Contents whose pieces are kept in memory at one time (some 300 bytes each); with more of them, the table is gone through more than once. */
const CONTENTS_AT_ONCE = 200_000;
/** Tables whose entries are looked at for what they mean, and those of other rooms, whose checksums at least are. */
const OWN_TABLES: ReadonlySet<string> = new Set(['contents', 'sectors', 'nodes', ...Object.values(TABLES)]);

/** Only these contents, with the sectors they lie in, and nodes are looked at: keys as latin1. */
export interface VerifyScope {
  contents: ReadonlySet<string>;
  nodes: ReadonlySet<string>;
}

/** See `Store.verify`. */
export async function verifyStore(
  index: Index,
  pathOf: (root: Uint8Array) => string,
  onProgress: ((progress: VerifyProgress) => void) | undefined,
  scope?: VerifyScope,
): Promise<VerifyReport> {
  const report: VerifyReport = { sectors: 0, bytes: 0, contents: 0, nodes: 0, problems: [] };
  const all = readSectors(index, report);
  const known = new Set(all.map(sectorKey));
  const inScope = scope === undefined ? known : sectorsOf(index, scope);
  const sectors = all.filter((root) => inScope.has(sectorKey(root)));
  const slices = Math.min(256, Math.ceil(index.table('contents').entryCount() / CONTENTS_AT_ONCE) || 1);
  const pool = new SectorPool();
  try {
    for (let slice = 0; slice < slices; slice++) {
      const isOurs = (root: Uint8Array): boolean => Math.floor((root[0]! * slices) / 256) === slice;
      const check = gatherContents(index, known, { isOurs, isFirst: slice === 0, scope }, report);
      await Promise.all(
        sectors.filter(isOurs).map(async (root) => {
          const problem = await verifySector(pool, check, root, pathOf(root));
          if (problem) report.problems.push(problem);
          report.sectors++;
          report.bytes += SECTOR_BYTES;
          onProgress?.({ sectors: report.sectors, totalSectors: sectors.length });
        }),
      );
      // What is wrong with their sectors has been said.
      await Promise.all(check.scattered.map((piece) => checkScattered(piece, pool, pathOf).catch(() => undefined)));
    }
  } finally {
    await pool.close();
  }
  dropConsequences(index, report);
  verifyNodes(index, scope, report);
  if (scope === undefined) verifyOthers(index, report);
  return report;
}

/** That a content in a damaged block has another root goes without saying. */
function dropConsequences(index: Index, report: VerifyReport): void {
  const sectors = report.problems.filter(({ kind }) => kind === 'sector');
  if (sectors.length === 0) return;
  const hit = new Set(damagedContents(index, sectors).map(({ ref }) => contentKey(ref).toString('latin1')));
  report.problems = report.problems.filter(
    (problem) => problem.kind !== 'content' || !hit.has(contentKey(problem.ref).toString('latin1')),
  );
}

function sectorsOf(index: Index, scope: VerifyScope): Set<string> {
  const sectors = new Set<string>();
  for (const { key, value } of index.table('contents').range({ onDamaged: () => {} })) {
    if (scope.contents.has(key.toString('latin1')))
      for (const { sector } of decodeExtents(value)) sectors.add(sectorKey(sector));
  }
  return sectors;
}

/** The sectors that the index has, those with a damaged entry included. */
function readSectors(index: Index, report: VerifyReport): Buffer[] {
  const roots: Buffer[] = [];
  const take = (key: Buffer): void => void roots.push(Buffer.from(key));
  const onDamaged = (key: Buffer): void => {
    // A key that cannot be one has lost its entry: whatever lies in that sector is told.
    if (key.length === ROOT_BYTES) take(key);
    report.problems.push(entryProblem('sectors', key));
  };
  for (const { key } of index.table('sectors').range({ onDamaged })) take(key);
  return roots;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

function entryProblem(table: string, key: Buffer): Problem {
  const text = key.toString('latin1');
  const name = /^[\x21-\x7e]+$/.test(text) ? text : hex(key);
  return {
    kind: 'entry',
    table,
    key: Buffer.from(key),
    message: `the index: table ${table}, ${name}: its entry is damaged`,
  };
}

/** Reads one sector; what is wrong with it, if something is. */
async function verifySector(
  pool: SectorPool,
  check: RootCheck,
  root: Uint8Array,
  path: string,
): Promise<Problem | undefined> {
  const problem = (what: string, bad?: readonly number[]): Problem => ({
    kind: 'sector',
    root,
    message: `sector ${hex(root)}: ${what} (${path})`,
    ...(bad === undefined ? {} : { bad }),
  });
  try {
    const result = await pool.run({ kind: 'check', path, spans: check.spansIn(root) });
    if (result.bad?.[0] === -1) return problem('the file has the wrong size, or no head');
    check.foundIn(root, result.contentRoots);
    const isWhole = Buffer.compare(result.root, root) === 0;
    if (result.bad?.length) {
      const blocks = result.bad.length === 1 ? 'block' : 'blocks';
      const words = `${blocks} ${ranges(result.bad)} ${result.bad.length === 1 ? 'does' : 'do'} not have ${result.bad.length === 1 ? 'its checksum' : 'their checksums'}`;
      return problem(isWhole ? `${words}, though the bytes are right` : words, result.bad);
    }
    return isWhole ? undefined : problem('the bytes have another root');
  } catch (error) {
    return problem(isPgError(error) ? error.message : String(error));
  }
}

/** `3-5, 9` */
function ranges(numbers: readonly number[]): string {
  const parts: string[] = [];
  for (let i = 0; i < numbers.length; i++) {
    const first = numbers[i]!;
    while (numbers[i + 1] === numbers[i]! + 1) i++;
    parts.push(first === numbers[i] ? `${first}` : `${first}-${numbers[i]}`);
  }
  return parts.join(', ');
}

/** The contents that end in one of our sectors. What of them lies in others, and is no whole one, is read for itself. */
function gatherContents(
  index: Index,
  known: ReadonlySet<string>,
  slice: { isOurs(sector: Uint8Array): boolean; isFirst: boolean; scope: VerifyScope | undefined },
  report: VerifyReport,
): RootCheck {
  const { isOurs, isFirst, scope } = slice;
  const inScope = (key: Buffer): boolean => scope === undefined || scope.contents.has(key.toString('latin1'));
  const check = new RootCheck();
  const problem = (ref: ContentRef, what: string): void =>
    void report.problems.push({ kind: 'content', ref, message: `${describeContent(ref)}: ${what}` });
  const onDamaged = (key: Buffer): void => {
    if (!isFirst || !inScope(key)) return;
    if (key.length === CONTENT_KEY_BYTES) problem(contentOfKey(key), 'its entry in the index is damaged');
    else report.problems.push(entryProblem('contents', key));
  };
  for (const { key, value } of index.table('contents').range({ onDamaged })) {
    if (!inScope(key)) continue;
    const ref = contentOfKey(key);
    try {
      const extents = decodeExtents(value);
      if (!isOurs(extents.at(-1)?.sector ?? ref.root)) continue;
      report.contents++;
      const missing = extents.find(({ sector }) => !isZeroSector(sector) && !known.has(sectorKey(sector)));
      if (missing) problem(ref, `sector ${hex(missing.sector)} is not in the store`);
      else {
        const done = (root: Uint8Array): void => {
          if (Buffer.compare(root, ref.root) !== 0) problem(ref, 'the bytes have another root');
        };
        check.add({ ref, extents }, done, isOurs);
      }
    } catch (error) {
      problem(ref, (error as Error).message);
    }
  }
  return check;
}

/** A node's key is the Merkle root of its bytes. */
function verifyNodes(index: Index, scope: VerifyScope | undefined, report: VerifyReport): void {
  const inScope = (key: Buffer): boolean => scope === undefined || scope.nodes.has(key.toString('latin1'));
  const damaged = (hash: Buffer, what: string): void =>
    void report.problems.push({ kind: 'node', hash: Buffer.from(hash), message: `node ${hex(hash)}: ${what}` });
  const onDamaged = (key: Buffer): void => {
    if (inScope(key)) damaged(key, 'its entry in the index is damaged');
  };
  for (const { key, value } of index.table('nodes').range({ onDamaged })) {
    if (!inScope(key)) continue;
    report.nodes++;
    if (Buffer.compare(bufferRoot(value), key) === 0) continue;
    damaged(key, 'the bytes have another root');
  }
}

/** Checksums of the entries of all other tables. */
function verifyOthers(index: Index, report: VerifyReport): void {
  for (const name of index.tableNames()) {
    if (OWN_TABLES.has(name)) continue;
    const onDamaged = (key: Buffer): void => void report.problems.push(entryProblem(name, key));
    for (const { key } of index.table(name).range({ onDamaged })) void key;
  }
}

/** A content that lies in what is damaged. */
export interface DamagedContent {
  ref: ContentRef;
  extents: readonly Extent[];
}

/** The contents that cannot be read for these problems: those that lie in damaged blocks of sectors, and those with problems of their own (no extents then). */
export function damagedContents(index: Index, problems: readonly Problem[]): DamagedContent[] {
  const found: DamagedContent[] = [];
  const sectors = new Map<string, readonly number[] | undefined>();
  for (const problem of problems) {
    if (problem.kind === 'sector') sectors.set(sectorKey(problem.root), problem.bad);
    if (problem.kind === 'content') found.push({ ref: problem.ref, extents: [] });
  }
  if (sectors.size === 0) return found;
  for (const { key, value } of index.table('contents').range({ onDamaged: () => {} })) {
    const extents = decodeExtents(value);
    if (extents.some((extent) => isHit(extent, sectors))) found.push({ ref: contentOfKey(key), extents });
  }
  return found;
}

function isHit(
  { sector, offset, length }: Extent,
  sectors: ReadonlyMap<string, readonly number[] | undefined>,
): boolean {
  const key = sectorKey(sector);
  if (!sectors.has(key)) return false;
  const bad = sectors.get(key);
  return (
    bad === undefined ||
    bad.some((block) => block * BLOCK_BYTES < offset + length && offset < (block + 1) * BLOCK_BYTES)
  );
}
