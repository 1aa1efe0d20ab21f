import { join } from 'node:path';
import { PgError } from '../../mdm/error.ts';
import { openTree } from '../../layers/tree.ts';
import type { Store } from '../../store/store.ts';
import { closeLog, openToRead } from '../log/bases.ts';
import { type NamespaceClaim, readClaim } from '../log/claim.ts';
import { type Entry, FIRST_USER_TYPE, TYPE_COMMIT, TYPE_NAMESPACE } from '../log/entry.ts';
import { readHeader } from '../log/header.ts';
import { SCAN_START, entriesBetween } from '../log/scanner.ts';
import { apply } from '../view/apply.ts';
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
 * Replays the log in `dir` from its first entry to `limit`, a commit's end, and compares every claim in it with what the files were. Of a log that
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
    const entries = (): Generator<Entry> => entriesBetween(fd, salt, SCAN_START, limit, path);
    const claims = claimsOf(entries());
    const bySize = Map.groupBy(claims, (claim) => claim.size);
    const state = new State(openTree(store, treeRoot));
    const fields = new FieldReader();
    const past = new PastStates(state.tree, dir, limit);
    state.past = (size) => past.at(size);
    for (const entry of entries()) {
      if (entry.type >= FIRST_USER_TYPE) replay(state, entry, fields, path);
      if (entry.type !== TYPE_COMMIT) continue;
      const here = bySize.get(entry.at + entry.length);
      if (here === undefined) continue;
      const { root } = buildNamespace(state);
      for (const claim of here) claim.holds = Buffer.compare(claim.root, root) === 0;
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
