import { createHash } from 'node:crypto';
import { findImage, type ImageRecord, listImages } from '../layers/images.ts';
import type { ProgressSink } from '../layers/progress.ts';
import { TreeCheck, type TreeDamage } from '../layers/tree-check.ts';
import { PgError } from '../mdm/error.ts';
import { SECTOR_BYTES } from '../mdm/merkle.ts';
import { contentKey } from '../store/content.ts';
import { corruptIndex, indexDamage } from '../store/index-check.ts';
import type { Roots } from '../store/paths.ts';
import { SectorPool } from '../store/sector-pool.ts';
import { openStore, type Store } from '../store/store.ts';
import type { DamagedContent, Problem, VerifyScope } from '../store/verify.ts';
import { type Finding, listWritables, scrubLog, type Writable } from './scrub.ts';

/** What reading everything has come to. */
export interface Scrub {
  sectors: number;
  contents: number;
  nodes: number;
  logs: number;
  /** Bytes of sectors and logs. */
  bytes: number;
  /** Of the store, with what mending them needs. */
  problems: Problem[];
  damaged: DamagedContent[];
  findings: Finding[];
}

/** What is looked at: all, or these images and containers with what they reach. */
interface Targets {
  images: ImageRecord[];
  writables: Writable[];
  scope: VerifyScope | undefined;
}

/** Opens the store for `action`, once it is known that reading its index ends no process. CORRUPT_INDEX. */
export async function withCheckedStore<T>(roots: Roots, action: (store: Store) => Promise<T>): Promise<T> {
  const damage = await indexDamage(roots);
  if (damage !== undefined) throw corruptIndex(damage);
  const store = openStore(roots);
  try {
    return await action(store);
  } finally {
    await store.close();
  }
}

/**
 * Reads everything, or what the images and containers of these names reach: sectors, contents, directories, records, and the logs of containers and
 * named mounts. What is wrong is in the result, not thrown. IMAGE_NOT_FOUND for a name that is none.
 */
export async function scrub(
  roots: Roots,
  store: Store,
  names: readonly string[],
  progress: ProgressSink,
): Promise<Scrub> {
  const findings: Finding[] = [];
  const say = (message: string, affects: string[] = []): void => void findings.push({ message, affects });
  const targets = await findTargets(roots, store, names, ({ message }) => say(message));
  const { images, writables, scope } = targets;
  let begun = false;
  const { problems, ...counts } = await store.verify(({ totalSectors }) => {
    if (!begun) progress.start('sectors', 'sectors', totalSectors * SECTOR_BYTES);
    begun = true;
    progress.advance('sectors', SECTOR_BYTES);
  }, scope);
  if (begun) progress.done('sectors', problems.length === 0 ? undefined : 'damaged');
  for (const { message } of problems) say(message);
  const damaged = store.damagedContents(problems);
  for (const line of affected(store, targets, whyOf(problems, damaged))) say(line);
  for (const image of images) for (const line of checkRecord(image)) say(line);
  let logBytes = 0;
  const pool = new SectorPool();
  try {
    for (const writable of writables) {
      const log = await scrubLog(roots, store, writable, pool, progress);
      logBytes += log.bytes;
      findings.push(...log.findings);
    }
  } finally {
    await pool.close();
  }
  return { ...counts, bytes: counts.bytes + logBytes, logs: writables.length, problems, damaged, findings };
}

async function findTargets(
  roots: Roots,
  store: Store,
  names: readonly string[],
  damagedRecord: (error: PgError) => void,
): Promise<Targets> {
  const writables = await listWritables(roots, damagedRecord);
  if (names.length === 0) return { images: listImages(store, () => {}), writables, scope: undefined };
  const images: ImageRecord[] = [];
  const chosen: Writable[] = [];
  for (const name of names) {
    const image = findImage(store, name);
    const found = writables.filter((one) => one.name === name || (one.id?.startsWith(name) ?? false));
    if (image !== undefined) images.push(image);
    chosen.push(...found);
    if (image === undefined && found.length === 0)
      throw new PgError('IMAGE_NOT_FOUND', `there is no image, container or named mount ${name}`, {
        hint: 'pg images, pg ps -a',
      });
  }
  const contents = new Set<string>();
  const check = new TreeCheck(store, () => undefined, contents);
  for (const { treeRoot, layers } of images) {
    check.tree(treeRoot);
    for (const { diffId } of layers) check.layer(diffId);
  }
  for (const { treeRoot } of chosen) if (treeRoot !== null) check.tree(treeRoot);
  return { images, writables: chosen, scope: { contents, nodes: check.nodes } };
}

/** For the key (latin1) of a content that cannot be read: why. */
function whyOf(problems: readonly Problem[], damaged: readonly DamagedContent[]): ReadonlyMap<string, string> {
  const bad = new Set(
    problems.flatMap((problem) => (problem.kind === 'sector' ? [Buffer.from(problem.root).toString('hex')] : [])),
  );
  const why = new Map<string, string>();
  for (const { ref, extents } of damaged) {
    const sectors = extents.map(({ sector }) => Buffer.from(sector).toString('hex')).filter((name) => bad.has(name));
    const words = sectors.length === 0 ? 'its entry in the index' : `sector ${[...new Set(sectors)].join(', ')}`;
    why.set(contentKey(ref).toString('latin1'), words);
  }
  return why;
}

/** What of images and containers cannot be read, a line each. */
function* affected(store: Store, { images, writables }: Targets, why: ReadonlyMap<string, string>): Generator<string> {
  const check = new TreeCheck(store, (key) => why.get(key));
  for (const image of images) {
    const name = image.names[0] ?? image.id.slice(7, 19);
    yield* linesOf(`image ${name}`, check.tree(image.treeRoot));
    for (const { diffId } of image.layers) {
      const problem = check.layer(diffId);
      if (problem !== undefined) yield `image ${name}: layer ${diffId.slice(7, 19)} cannot be exported: ${problem}`;
    }
  }
  for (const { what, treeRoot } of writables)
    if (treeRoot !== null) yield* linesOf(`${what} (files of its image)`, check.tree(treeRoot));
}

function* linesOf(what: string, { count, paths }: TreeDamage): Generator<string> {
  for (const { path, why } of paths) yield `${what}: ${Buffer.from(path, 'latin1').toString()} cannot be read: ${why}`;
  if (count > paths.length) yield `${what}: and ${count - paths.length} more`;
}

/** An image's id is the digest of its config, and its manifest has one too. */
function* checkRecord({ id, names, configBytes, manifest }: ImageRecord): Generator<string> {
  const what = `image ${names[0] ?? id.slice(7, 19)}`;
  const digest = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
  if (digest(configBytes) !== id) yield `${what}: its configuration has another digest`;
  if (manifest !== undefined && manifest.digest.startsWith('sha256:') && digest(manifest.bytes) !== manifest.digest)
    yield `${what}: its manifest has another digest`;
}
