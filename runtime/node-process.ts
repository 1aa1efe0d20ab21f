import { parseAddress } from '../grid/peers.ts';
import { toErrorData } from '../mdm/error.ts';
import { exitWithoutTeardown } from '../store/end-process.ts';
import type { Roots } from '../store/paths.ts';
import { runNode } from './node.ts';

// The daemon as a process of its own (`pg node start --detach`): argv is the roots as JSON and the address; its output goes to a file.
exitWithoutTeardown();
const roots = JSON.parse(process.argv[2]!) as Roots;
// That file's disk may be full: no reason to end.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.once(signal, () => stop.abort());
const log = (line: string): void => void process.stdout.write(`${new Date().toISOString()} ${line}\n`);
try {
  await runNode(roots, parseAddress(process.argv[3]!), log, stop.signal);
} catch (error) {
  // The last line is what the command that started us shows.
  process.stderr.write(`${JSON.stringify(toErrorData(error))}\n`);
  process.exitCode = 125;
}
process.exit();
