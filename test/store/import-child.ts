/**
 * A process that imports for test/store/crash.test.ts: `import-child.ts DATA SEED COUNT` stores COUNT contents per
 * import, import after import, and says on a line of stdout the number of each that has finished.
 */
import { openStore } from '../../store/store.ts';
import { crashContent } from './crash-content.ts';

const [data, seed, count] = [process.argv[2]!, Number(process.argv[3]), Number(process.argv[4])];
const store = openStore({ data, run: `${data}/run`, config: `${data}/etc` });
for (let round = 0; ; round++) {
  const writer = store.writer(`round ${round}`);
  for (let i = 0; i < count; i++) {
    const bytes = crashContent(seed, round, i);
    await writer.put(bytes.length, [bytes]);
  }
  await writer.finish(() => store.table('images').put(`${seed}/${round}`, Buffer.from(String(count))));
  process.stdout.write(`${round}\n`);
}
