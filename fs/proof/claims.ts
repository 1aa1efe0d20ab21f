import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { openTree } from '../../layers/tree.ts';
import type { Store } from '../../store/store.ts';
import { closeLog, openToRead } from '../log/bases.ts';
import { type NamespaceClaim, readClaim } from '../log/claim.ts';
import { type Entry, FIRST_USER_TYPE, TYPE_COMMIT, TYPE_NAMESPACE } from '../log/entry.ts';
import { readHeader } from '../log/header.ts';
import { entriesBetween } from '../log/scanner.ts';
import { Checkpoints } from '../log/checkpoints.ts';
import { oldestMark, placeOf } from '../log/oldest.ts';
import { RootsFile } from '../log/roots.ts';
import type { Mark } from '../log/sidecar.ts';
import { apply } from '../view/apply.ts';
import { restoreState } from '../view/checkpoint.ts';
import { FieldReader } from '../view/entries.ts';
import { PastStates } from '../view/past.ts';
import { State } from '../view/state.ts';
import { buildNamespace } from './namespace.ts';

/** A NAMESPACE entry, and whether replay says the same of the files. */
export interface CheckedClaim extends NamespaceClaim {
  /** Where the entry is. */
  at: number;
  holds: boolean;
}

/** Whose claims a log must have. */
export interface Expected {
  label: string;
  epoch: number;
  /** Whose an entry at this place of the log must be, when it is a parent's; undefined from where the log is the clone's own. */
  labelBefore?: (at: number) => string | undefined;
}

/**
 * Replays the log in `dir` from its first entry (of a cleaned log: from its older checkpoint) to `limit`, a commit's end, and compares every claim in it with what the files were. Of a log that
 * is not this program's own, this is how to know that its claims are true. `label` is whose claims they must be, `epoch` the newest that may be; of a clone,
 * `labelBefore` says whose they are before the place where its own history begins. LOG_CORRUPT.
 */
export function checkClaims(
  store: Store,
  treeRoot: Uint8Array | null,
  dir: string,
  limit: number,
  { label, epoch, labelBefore = () => undefined }: Expected,
): CheckedClaim[] {
  const path = join(dir, 'log');
  const fd = openToRead(dir);
  try {
    const { salt } = readHeader(fd, path);
    const roots = new RootsFile(dir, salt);
    const mark = oldestMark(dir, fd, salt, roots.all());
    roots.close();
    const entries = (): Generator<Entry> => entriesBetween(fd, salt, placeOf(mark), limit, path);
    const claims = claimsOf(entries()).filter((claim) => claim.size >= (mark?.size ?? 0));
    const bySize = Map.groupBy(claims, (claim) => claim.size);
    const state = new State(openTree(store, treeRoot));
    if (mark !== undefined) restoreAt(state, new Checkpoints(dir, fd, salt).trusted(mark.size), mark.size, path);
    compare(bySize.get(mark?.size ?? 0), state);
    const fields = new FieldReader();
    const past = new PastStates(state.tree, dir, limit);
    state.past = (size) => past.at(size);
    for (const entry of entries()) {
      if (entry.type >= FIRST_USER_TYPE) replay(state, entry, fields, path);
      if (entry.type !== TYPE_COMMIT) continue;
      compare(bySize.get(entry.at + entry.length), state);
    }
    let before = 0;
    let of: string | undefined;
    for (const claim of claims) {
      const parent = labelBefore(claim.at);
      // Every container counts its own epochs.
      if (of !== (parent ?? label)) before = 0;
      of = parent ?? label;
      const isInTime = claim.epoch >= before && (parent !== undefined || claim.epoch <= epoch);
      claim.holds &&= claim.size <= claim.at && claim.label === of && isInTime;
      before = Math.max(before, claim.epoch);
    }
    return claims;
  } finally {
    closeLog(fd);
  }
}

/** The state that a cleaned log's entries are replayed on. */
function restoreAt(state: State, checkpoint: Mark | undefined, size: number, path: string): void {
  if (checkpoint?.size !== size)
    throw new PgError('LOG_CORRUPT', `${path} was cleaned, and its checkpoint at byte ${size} is damaged`);
  restoreState(state, checkpoint.payload);
}

function compare(claims: readonly CheckedClaim[] | undefined, state: State): void {
  if (claims === undefined) return;
  const { root } = buildNamespace(state);
  for (const claim of claims) claim.holds = Buffer.compare(claim.root, root) === 0;
}

function replay(state: State, entry: Entry, fields: FieldReader, path: string): void {
  try {
    apply(state, entry, fields);
  } catch (cause) {
    throw new PgError('LOG_CORRUPT', `the entry at byte ${entry.at} of ${path} does not fit what is before it`, {
      cause,
    });
  }
}

function claimsOf(entries: Iterable<Entry>): CheckedClaim[] {
  const claims: CheckedClaim[] = [];
  for (const { type, bytes, view, fieldsStart, fieldsEnd, at } of entries) {
    if (type !== TYPE_NAMESPACE) continue;
    const claim = readClaim(bytes, view, fieldsStart, fieldsEnd);
    if (claim !== undefined) claims.push({ ...claim, at, holds: false });
  }
  return claims;
}
