import { writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { openTree } from '../../../layers/tree.ts';
import { openStore } from '../../../store/store.ts';
import { openLog } from '../../../fs/log/log.ts';
import { openView } from '../../../fs/view/open-view.ts';
import { IMAGE, modelOfImage, operation, Pair } from '../view/programs.ts';
import { randomOf } from './disk.ts';
import { mark } from './trace.ts';

/**
 * The program under the power: random operations on a view, with commits, syncs, checkpoints and remounts between them, in the log directory argv[2]; the image is that of the
 * store argv[3], its tree argv[4]. argv[5] is the seed, argv[6] how many operations. Marks what is durable, and writes to argv[7] what the files were at each commit.
 */
export interface Outcome {
  /** By the log's size at a commit: what the model says is there. */
  states: Record<number, string[]>;
}

async function main(): Promise<void> {
  const [logDir, data, treeRoot, seedText, count, outcomePath] = process.argv.slice(2) as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  const seed = Number(seedText);
  const random = randomOf(seed);
  const store = openStore({ data, run: `${data}/run`, config: `${data}/etc` });
  const base = Buffer.from(treeRoot, 'hex');
  const open = () => openView(openTree(store, base), store, openLog(logDir, { create: true, base }));
  const pair = new Pair(open(), modelOfImage(IMAGE));
  const states: Outcome['states'] = { 192: pair.model.dump() };
  mark('durable 192');
  const note = (size: number): void => void (states[size] = pair.model.dump());
  for (const op of fc.sample(operation, { seed, numRuns: Number(count) })) {
    pair.run(op);
    const chance = random();
    if (chance < 0.3 || op.op === 'flush') note(pair.view.flush());
    else if (chance < 0.45) {
      const { size } = pair.view.position();
      note(size);
      mark(`durable ${size}`);
    } else if (chance < 0.48) {
      // A commit, which is durable, and another, which names the checkpoint and need not be.
      const size = pair.view.flush();
      note(size);
      pair.view.checkpoint();
      note(pair.view.stats().logBytes);
      mark(`durable ${size}`);
    } else if (chance < 0.5) {
      note(pair.view.flush());
      pair.view.close();
      pair.view = open();
      const size = pair.view.stats().logBytes;
      note(size);
      mark(`durable ${size}`);
    }
  }
  note(pair.view.flush());
  pair.view.close();
  await store.close();
  writeFileSync(outcomePath, JSON.stringify({ states } satisfies Outcome));
}

await main();
