/** A process that does one thing after another to a store until it is killed: argv is the store's directory and a seed. */
import { join } from 'node:path';
import { openStore } from '../../store/store.ts';
import { Actor, type Deed, NAMES, POOL } from './actors.ts';

const [dir, seed] = [process.argv[2]!, Number(process.argv[3])];
let state = Math.imul(seed + 1, 2654435761) | 1;
const below = (limit: number): number => {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % limit;
};

function next(): Deed {
  const [name, content] = [below(NAMES), below(POOL.length)];
  switch (below(8)) {
    case 0:
    case 1:
    case 2:
      return { kind: 'import', name, contents: [content, below(POOL.length)], finish: true };
    case 3:
      return { kind: 'adopt', name, content };
    case 4:
      return { kind: 'remove', name };
    case 5:
      return { kind: 'collect' };
    case 6:
      return { kind: 'repack' };
    default:
      return { kind: 'pack' };
  }
}

const store = openStore({ data: dir, run: join(dir, 'run'), config: join(dir, 'etc') });
const actor = new Actor(store, async () => undefined);
process.stdout.write('ready\n');
for (;;) await actor.do(next());
