import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { settle } from './actors.ts';
import { Place } from './fixture.ts';

const CHILD = fileURLToPath(new URL('./actor-child.ts', import.meta.url));
/** How many processes are killed; two are at work at any time. */
const KILLS = Number(process.env['PG_TEST_KILLS'] ?? 14);

describe('store: processes that are killed at any moment', () => {
  it('lose nothing that is named, and leave nothing that stays', async function () {
    this.timeout(300_000);
    const place = new Place();
    const said: string[] = [];
    let seed = Math.floor(Math.random() * 1e6);
    const start = async (): Promise<ChildProcess> => {
      const child = spawn(process.execPath, [CHILD, place.dir, String(seed++)], { stdio: ['ignore', 'pipe', 'pipe'] });
      child.stderr.on('data', (text: Buffer) => said.push(text.toString()));
      await once(child.stdout, 'data');
      return child;
    };
    try {
      const children = [await start(), await start()];
      for (let kill = 0; kill < KILLS; kill++) {
        await new Promise((resolve) => setTimeout(resolve, 30 + Math.random() * 500));
        const child = children.shift()!;
        assert.equal(child.exitCode, null, `seed ${seed}: ${said.join('')}`);
        child.kill('SIGKILL');
        await once(child, 'exit');
        children.push(await start());
      }
      for (const child of children) {
        child.kill('SIGKILL');
        await once(child, 'exit');
      }
      assert.equal(said.join(''), '', `seed ${seed}`);
      await settle(place.open());
    } finally {
      await place.remove();
    }
  });
});
