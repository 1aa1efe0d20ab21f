import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { bufferRoot } from '../../../mdm/merkle.ts';
import { Host } from '../../../store/host/host.ts';
import { hex } from '../../mdm/vectors.ts';
import { Place } from '../fixture.ts';
import { draftsOf, START } from './kill-program.ts';
import { checkFile, fillFile, placeAll } from './model.ts';

const CHILD = new URL('./kill-child.ts', import.meta.url).pathname;
const KILLS = 25;

/** Runs batches from `first` on in a process, kills it after `ms` and one batch at least; the last it said, or -1. */
async function runAndKill(dir: string, first: number, ms: number): Promise<number> {
  const child = spawn(process.execPath, [CHILD, dir, String(first)], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (data) => (said += data));
  const closed = new Promise((resolve) => child.once('close', resolve));
  while (!said.includes('\n')) await new Promise((resolve) => child.stdout.once('data', resolve));
  await new Promise((resolve) => setTimeout(resolve, ms));
  child.kill('SIGKILL');
  await closed;
  return Number(said.trimEnd().split('\n').at(-1));
}

describe('store: kill -9 of a process in the middle of batches', function () {
  this.timeout(600_000);
  const here = new Place();
  after(() => here.remove());

  it('leaves what it said it had committed, or that and one batch more', async () => {
    const store = here.open();
    const host = new Host(store);
    fillFile(host.create('f'), START);
    let bytes: Uint8Array = START;
    let next = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const said = await runAndKill(here.dir, next, (kill * 37) % 190);
      for (; next <= said; next++) bytes = placeAll(draftsOf(next), bytes).after;
      const file = host.open('f');
      const { after } = placeAll(draftsOf(next), bytes);
      if (hex(file.state.root) !== hex(bufferRoot(bytes))) {
        bytes = after;
        next++;
      }
      checkFile(file, bytes);
      if (kill % 5 === 0) await store.collect(() => []);
    }
    assert.ok(next > KILLS, `${next} batches`);
    checkFile(host.open('f'), bytes);
    assert.deepEqual((await store.verify()).problems, []);
  });
});
