import { writeFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { exitWithoutTeardown } from '../store/end-process.ts';
import type { Roots } from '../store/paths.ts';
import { keepHouse } from './housekeeper.ts';

// The housekeeper as a process of its own: argv is the roots as JSON. Nobody reads what it has to say: what it could not do, `pg gc` will tell.
exitWithoutTeardown();
const roots = JSON.parse(process.argv[2]!) as Roots;
for (const lower of [
  () => setPriority(constants.priority.PRIORITY_LOW),
  // sched(7), "The autogroup feature": in a session of its own, nice alone would mean nothing to others.
  () => writeFileSync('/proc/self/autogroup', String(constants.priority.PRIORITY_LOW)),
]) {
  try {
    lower();
  } catch {
    // then it runs as others do
  }
}
const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => stop.abort());
await keepHouse(roots, stop.signal).catch(() => undefined);
process.exit();
