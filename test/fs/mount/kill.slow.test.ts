import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startDetachedMount, stopDetachedMount } from '../../../fs/detached.ts';
import type { Word } from './acknowledged-writer.ts';
import { Bench, needFuse } from './harness.ts';
import { Knowledge } from './knowledge.ts';

const ROUNDS = Number(process.env['PG_TEST_KILL_ROUNDS'] ?? 25);
const WRITER = fileURLToPath(new URL('acknowledged-writer.ts', import.meta.url));

describe('a mount whose server is killed under load', function () {
  this.timeout(600_000);
  let bench: Bench;

  before(function () {
    needFuse(this);
    bench = new Bench();
  });
  after(async () => {
    await stopDetachedMount(bench.roots, bench.at).catch(() => undefined);
    await bench?.clean();
  });

  const serverPid = (): number => {
    const dir = join(bench.roots.run, 'mounts');
    const name = readdirSync(dir).find((entry) => entry.endsWith('.json'))!;
    return (JSON.parse(readFileSync(join(dir, name), 'utf8')) as { pid: number }).pid;
  };

  const mount = (): Promise<void> =>
    startDetachedMount({
      roots: bench.roots,
      treeRoot: null,
      logDir: bench.logDir,
      mountPoint: bench.at,
      label: 'load',
    });

  it('is replaced though it dies in the middle of being asked whether it is there', async () => {
    await mount();
    const holder = serverPid();
    const server = Number(readFileSync(`/proc/${holder}/task/${holder}/children`, 'utf8').trim());
    // It hears the question, and never answers.
    process.kill(server, 'SIGSTOP');
    const killed = new Promise<void>((resolve) =>
      setTimeout(() => {
        process.kill(holder, 'SIGKILL');
        process.kill(server, 'SIGKILL');
        resolve();
      }, 1500),
    );
    await Promise.all([mount(), killed]);
    assert.deepEqual(readdirSync(bench.at), []);
    await stopDetachedMount(bench.roots, bench.at);
  });

  it(`has everything that fsync acknowledged, ${ROUNDS} times in a row`, async () => {
    const known = new Knowledge();
    mkdirSync(bench.logDir, { recursive: true });
    for (let round = 0; round < ROUNDS; round++) {
      await mount();
      known.check(bench.at);
      const writer = spawn(process.execPath, [WRITER, bench.at, String(known.last + 1)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = new Promise((resolve) => writer.once('close', resolve));
      let text = '';
      const begun = new Promise<void>((resolve) => {
        writer.stdout.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
          resolve();
        });
      });
      await Promise.race([begun, ended]);
      await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 400));
      process.kill(serverPid(), 'SIGKILL');
      await ended;
      for (const line of text.split('\n').filter(Boolean)) known.hear(JSON.parse(line) as Word);
    }
    await mount();
    known.check(bench.at);
    assert.ok(known.acknowledged > ROUNDS, `only ${known.acknowledged} writes were acknowledged`);
    console.log(`      ${known.acknowledged} acknowledged writes`);
  });
});
