import { enableCompileCache } from 'node:module';
import { codeCacheDir, makeCodeCache } from '../store/code-cache.ts';
import { exitWithoutTeardown } from '../store/end-process.ts';
import { EXIT_ENGINE } from './exit-codes.ts';
import { separateCommand, takeGlobals } from './argv.ts';

// Compiled code is kept between calls: it halves the time to the first line of a command.
enableCompileCache(makeCodeCache(codeCacheDir(process.env, process.getuid?.() ?? 0)));
exitWithoutTeardown();
// Before oclif's own, which throws. A reader that has gone is each command's business.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') return;
  process.stderr.write(`pg: cannot write to standard output: ${error.message}\n    give it a place that can take it\n`);
  process.exit(EXIT_ENGINE);
});
process.stderr.on('error', () => {});
const words = takeGlobals(process.argv.slice(2), process.env);
if (words[0] === 'run') {
  const { startEarly } = await import('./early-shim.ts');
  startEarly(words);
}
const { execute } = await import('@oclif/core/execute');
await execute({ dir: import.meta.url, args: separateCommand(words) });
// What is written to a socket may still be on its way.
for (const stream of [process.stdout, process.stderr]) await new Promise((resolve) => stream.write('', resolve));
process.exit();
