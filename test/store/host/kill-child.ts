// Executes batch after batch on the file 'f' of the host in DIR, and says the number of each once it is committed.
import { writeSync } from 'node:fs';
import { join } from 'node:path';
import { Host } from '../../../store/host/host.ts';
import { openStore } from '../../../store/store.ts';
import { draftsOf } from './kill-program.ts';
import { bytesOf, placeAll, runBatch } from './model.ts';

const [dir, first] = process.argv.slice(2);
const store = openStore({ data: dir!, run: join(dir!, 'run'), config: join(dir!, 'etc') });
const file = new Host(store).open('f');
let bytes = bytesOf(file);
for (let i = Number(first); ; i++) {
  const { steps, after } = placeAll(draftsOf(i), bytes);
  runBatch(file, steps);
  bytes = after;
  writeSync(1, `${i}\n`);
}
