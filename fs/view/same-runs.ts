import type { Node } from './node.ts';

/** Whether two files of states of one log have their bytes in the very same places; false says nothing. */
export function sameRuns(a: Node | undefined, b: Node | undefined): boolean {
  if (a?.extents === undefined || b?.extents === undefined || a.extents.count !== b.extents.count) return false;
  const runs: number[] = [];
  a.extents.visit(0, Infinity, (...run) => void runs.push(...run));
  let at = 0;
  let same = true;
  b.extents.visit(0, Infinity, (...run) => {
    same = run.every((value) => value === runs[at++]);
    return same;
  });
  return same;
}
