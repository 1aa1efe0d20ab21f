/** A phase and when it was over, in milliseconds since the epoch (with a fraction), so that two processes' can be put in one order. */
export interface Phase {
  name: string;
  atMs: number;
}

/** Phase times, for `PG_TRACE=1`. */
export class Trace {
  readonly phases: Phase[] = [];

  mark(name: string): void {
    this.phases.push({ name, atMs: performance.timeOrigin + performance.now() });
  }
}

/** The phases of the command and of the shim in order, with milliseconds since `startMs` and since the phase before. */
export function formatTrace(startMs: number, phases: readonly Phase[]): string {
  let before = startMs;
  return phases
    .toSorted((a, b) => a.atMs - b.atMs)
    .map(({ name, atMs }) => {
      const line = `${(atMs - startMs).toFixed(1).padStart(8)} ms  +${(atMs - before).toFixed(1).padStart(6)}  ${name}\n`;
      before = atMs;
      return line;
    })
    .join('');
}
