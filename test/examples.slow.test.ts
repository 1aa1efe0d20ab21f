import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { imageArchive } from '../examples/images/build.ts';
import { removeUnusedBridge } from '../runtime/network/bridge.ts';
import { resolveRoots } from '../store/paths.ts';

const EXAMPLES = join(dirname(fileURLToPath(import.meta.url)), '../examples');
const able = process.getuid?.() === 0;

/** Runs an example with a data directory of its own and returns what it printed; nothing may be left mounted or running. */
async function runExample(script: string, image: string): Promise<string> {
  const root = mkdtempSync('/var/tmp/pg-test-example-');
  try {
    const result = spawnSync(join(EXAMPLES, script), {
      encoding: 'utf8',
      env: { ...process.env, PG_ROOT: root, IMAGE: imageArchive(image) },
      timeout: 240_000,
    });
    assert.equal(
      result.status,
      0,
      `${script} exited ${result.status ?? result.signal}\n${result.stdout}\n${result.stderr}`,
    );
    assert.ok(!readFileSync('/proc/mounts', 'utf8').includes(root), `${script} left a mount below ${root}`);
    const left = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && cmdline(pid).includes(root));
    assert.deepEqual(left, [], `${script} left processes`);
    return result.stdout;
  } finally {
    await removeUnusedBridge(resolveRoots(root, {}, 0));
    rmSync(root, { recursive: true, force: true });
  }
}

function cmdline(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

describe('the examples', function () {
  this.timeout(300_000);
  before(function () {
    if (!able) {
      console.error('SKIPPED: the examples need root');
      this.skip();
    }
  });

  it('nginx.sh keeps what a visitor wrote over a restart', async () => {
    const out = await runExample('nginx.sh', 'nginx');
    assert.match(out, /nginx on PromiseGrid/);
    assert.match(out, /^hello, grid$/m);
    assert.match(out, /^A \/srv\/notes\/hello.txt$/m);
  });

  it('redis-counter.sh loses no increment that was answered', async () => {
    assert.match(await runExample('redis-counter.sh', 'redis'), /^10\s*$/m);
  });

  it('postgres.sh shows the same table after stop and start', async () => {
    const sums = (await runExample('postgres.sh', 'postgres')).match(/^100000\|[0-9a-f]{32}$/gm);
    assert.equal(sums?.length, 2);
    assert.equal(sums![0], sums![1]);
  });

  it('two-nodes.sh moves nginx to the other node and back, twice in a row', async () => {
    for (let i = 0; i < 2; i++) assert.match(await runExample('two-nodes.sh', 'nginx'), /^shown: .*equal roots$/m);
  });
});
