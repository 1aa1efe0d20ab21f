import { constants } from 'node:os';
import { PgError } from '../mdm/error.ts';

const SIGRTMIN = 34;
const SIGRTMAX = 64;

/** The number of a signal as docker takes it: `TERM`, `SIGTERM`, `15`, `RTMIN+3`. PgError('BAD_SIGNAL') for another. */
export function signalNumber(word: string): number {
  const name = word.toUpperCase().replace(/^SIG/, '');
  const named = constants.signals[`SIG${name}` as NodeJS.Signals];
  if (named !== undefined) return named;
  const realTime = /^RT(MIN|MAX)(?:([+-])(\d+))?$/.exec(name);
  let number = Number(name);
  if (realTime !== null) {
    const offset = Number(realTime[3] ?? 0) * (realTime[2] === '-' ? -1 : 1);
    number = (realTime[1] === 'MIN' ? SIGRTMIN : SIGRTMAX) + offset;
  }
  if (Number.isInteger(number) && number > 0 && number <= SIGRTMAX && name !== '') return number;
  throw new PgError('BAD_SIGNAL', `Invalid signal: ${word}`, { hint: 'kill -l lists them' });
}
