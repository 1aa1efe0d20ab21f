/** Imports SOURCE into a store at ROOT and says how it ended and what memory it took: `{ code, message, id, peakBytes }` on stdout. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { importImage } from '../../layers/import.ts';
import { isPgError } from '../../mdm/error.ts';
import { openStore } from '../../store/store.ts';

const [root, source] = process.argv.slice(2) as [string, string];
const store = openStore({ data: root, run: join(root, 'run'), config: join(root, 'etc') });
let end: object;
try {
  const { image } = await importImage(store, source);
  end = { id: image.id };
} catch (error) {
  if (!isPgError(error)) throw error;
  end = { code: error.code, message: error.message };
}
await store.close();
// Not getrusage's ru_maxrss: that of the process which started this one is in it (execve keeps the larger).
const peak = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))![1]) * 1024;
process.stdout.write(JSON.stringify({ ...end, peakBytes: peak }));
