import { PgError } from '../../mdm/error.ts';
import { CommitList } from '../log/commits.ts';
import { commitEndingAt, commitsBackFrom } from './commits-back.ts';
import { POSITION_HELP, type PositionWord } from './positions.ts';
import { isGoneAt, isRetained, notRetained } from './retained.ts';
import { readSnapshots } from './snapshots.ts';

const hexOf = (root: Uint8Array): string => Buffer.from(root).toString('hex');

/**
 * The size of the log in `dir` that a position means; `end` is where the log's commits end now. `name` is the container's, for messages. PgError
 * NO_SUCH_POSITION (unknown, or before the beginning), AMBIGUOUS_POSITION (several roots begin so), NOT_RETAINED (known, and cleaned since).
 */
export function resolvePosition(dir: string, end: number, word: PositionWord, name: string): number {
  const size = findPosition(dir, end, word, name);
  if (!isRetained(dir, size)) throw notRetained(size, name);
  return size;
}

function findPosition(dir: string, end: number, word: PositionWord, name: string): number {
  switch (word.kind) {
    case 'latest':
      return end;
    case 'size':
      return sizeOf(dir, end, word, name);
    case 'root':
      return sizeOfRoot(dir, end, word.prefix, name);
    case 'time':
      return sizeAtTime(dir, end, word, name);
    case 'name': {
      const found = readSnapshots(dir).find((snapshot) => snapshot.name === word.name);
      if (found === undefined) {
        throw new PgError('NO_SUCH_POSITION', `container ${name} has no snapshot "${word.name}"`, {
          hint: `pg snapshot ls ${name}, pg log ${name}; a position is ${POSITION_HELP}`,
        });
      }
      return found.size;
    }
  }
}

const unknown = (what: string, name: string): PgError =>
  new PgError('NO_SUCH_POSITION', what, { hint: `pg log --no-trunc ${name} lists the commits with sizes and roots` });

function sizeOf(dir: string, end: number, word: PositionWord & { kind: 'size' }, name: string): number {
  const { size, text } = word;
  const isSnapshot = readSnapshots(dir).some((snapshot) => snapshot.size === size);
  if (isSnapshot || (size <= end && commitEndingAt(dir, size) !== undefined)) return size;
  if (size <= end && isGoneAt(dir, size)) throw notRetained(size, name);
  if (text.length >= 8 && text.length <= 64) return sizeOfRoot(dir, end, text, name);
  const why = size > end ? `its log has ${end} bytes` : 'no commit ends there';
  throw unknown(`container ${name} has no position ${size}: ${why}`, name);
}

function sizeOfRoot(dir: string, end: number, prefix: string, name: string): number {
  const found = new Map<string, number>();
  for (const { root, size } of readSnapshots(dir)) if (root.startsWith(prefix)) found.set(root, size);
  if (!(found.size === 1 && prefix.length === 64)) {
    const list = new CommitList(dir, end, 'kept');
    try {
      for (const commit of list.oldestFirst()) {
        const root = hexOf(commit.root);
        if (root.startsWith(prefix)) found.set(root, commit.end);
      }
    } finally {
      list.close();
    }
  }
  if (found.size > 1) {
    throw new PgError('AMBIGUOUS_POSITION', `${found.size} roots of container ${name} begin with ${prefix}`, {
      hint: 'give more digits: pg log --no-trunc shows them all',
    });
  }
  const size = [...found.values()][0];
  if (size === undefined) throw unknown(`no commit of container ${name} has a root that begins with ${prefix}`, name);
  return size;
}

function sizeAtTime(dir: string, end: number, { ms, text }: PositionWord & { kind: 'time' }, name: string): number {
  let oldest = Infinity;
  for (const commit of commitsBackFrom(dir, end)) {
    if (commit.ms <= ms) return commit.end;
    oldest = commit.ms;
  }
  const kept = readSnapshots(dir).findLast((snapshot) => snapshot.ms <= ms);
  if (kept !== undefined) return kept.size;
  throw unknown(
    `container ${name} has no commit of ${text} (${new Date(ms).toISOString()}): its oldest is of ${new Date(oldest).toISOString()}`,
    name,
  );
}
