import { linkSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { nullable, number, oneOf, shaped } from '../../store/shape.ts';
import { replaceFile, unlessFull } from './disk.ts';
import { CHECKPOINT_MAGIC, readMarkHeader } from './sidecar.ts';

/** How much of a log's history is kept behind its end, besides what must be (docs/history.md): so many bytes, or so long; whichever is more. null: none for its sake. */
export interface Retain {
  bytes: number | null;
  /** Milliseconds. */
  ms: number | null;
}

/** Everything, from the checkpoint on that the log has when this is set. */
export const RETAIN_ALL: Retain = { bytes: Number.MAX_SAFE_INTEGER, ms: null };

/** States where replay of what is retained starts: former checkpoints, among the states that are kept by name. */
const PREFIX = '.retain-';
const POLICY = shaped({ version: oneOf(1), bytes: nullable(number), ms: nullable(number) });
const policyPath = (dir: string): string => join(dir, 'retain');

/** Sets it, durably; what is over the limit goes with the next checkpoint. */
export function writeRetain(dir: string, retain: Retain): void {
  if (retain.bytes === null && retain.ms === null) rmSync(policyPath(dir), { force: true });
  else replaceFile(policyPath(dir), [Buffer.from(`${JSON.stringify({ version: 1, ...retain })}\n`)]);
}

/** What is set; one that cannot be read keeps nothing for its sake. */
export function readRetain(dir: string): Retain {
  try {
    const policy = JSON.parse(readFileSync(policyPath(dir), 'utf8')) as Retain & { version: number };
    return POLICY(policy) === undefined ? { bytes: policy.bytes, ms: policy.ms } : { bytes: null, ms: null };
  } catch {
    return { bytes: null, ms: null };
  }
}

/** Whether a file among the states that are kept by name is one of these. */
export const isRetainedState = (name: string): boolean => name.startsWith(PREFIX);

/** The sizes of the states where replay of what is retained starts, in order. */
export function retainedSizes(dir: string, keptDir: string): number[] {
  let names: string[];
  try {
    names = readdirSync(join(dir, keptDir));
  } catch {
    return [];
  }
  return names
    .filter(isRetainedState)
    .map((name) => Number(name.slice(PREFIX.length)))
    .filter((size) => Number.isSafeInteger(size))
    .toSorted((a, b) => a - b);
}

/**
 * A checkpoint was installed: the one before it is kept, too, if history is to be, and former ones go that lie behind all that is. On a full disk nothing changes.
 */
export function retainHistory(dir: string, keptDir: string, salt: number, newest: string, older: string): void {
  const { bytes, ms } = readRetain(dir);
  const mark = readMarkHeader(join(dir, older), CHECKPOINT_MAGIC, salt);
  const pathOf = (size: number): string => join(dir, keptDir, `${PREFIX}${size}`);
  if ((bytes !== null || ms !== null) && mark !== undefined) {
    unlessFull(() => {
      mkdirSync(join(dir, keptDir), { recursive: true, mode: 0o700 });
      linkUnlessThere(join(dir, older), pathOf(mark.size));
    });
  }
  const sizes = retainedSizes(dir, keptDir);
  const end = readMarkHeader(join(dir, newest), CHECKPOINT_MAGIC, salt)?.size ?? 0;
  const isBehind = (size: number): boolean =>
    (bytes === null || size <= end - bytes) && (ms === null || statSync(pathOf(size)).mtimeMs <= Date.now() - ms);
  const needed = bytes === null && ms === null ? sizes.length : Math.max(0, sizes.findLastIndex(isBehind));
  for (const size of sizes.slice(0, needed)) rmSync(pathOf(size), { force: true });
}

function linkUnlessThere(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}
