import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import * as fs from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Mount } from '../../../fs/mount.ts';
import { Bench, needFuse } from './harness.ts';
import { manifest } from './survivor.ts';

const KILLS = Number(process.env['PG_TEST_SERVER_KILLS'] ?? 30);
const PROGRAM = fileURLToPath(new URL('survivor.ts', import.meta.url));
const DYING = { node: process.execPath, script: fileURLToPath(new URL('dying-server.ts', import.meta.url)) };
const ONCE = fileURLToPath(new URL('once.ts', import.meta.url));

/**
 * Runs a program to its end, and fails unless that is a good one. This process holds the mount: it must not wait for it, nor have files of it open when it starts the next
 * server (a new process closes its copies of them, and the kernel writes a file back when it is closed).
 */
function run(command: string, ...words: string[]): Promise<void> {
  const child = spawn(command, words, { stdio: ['ignore', 'inherit', 'inherit'] });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`${command}: exit code ${code}`))));
  });
}

describe('a mount whose server dies in the middle of a request', function () {
  this.timeout(120_000);
  let bench: Bench;
  before(function () {
    needFuse(this);
  });
  beforeEach(() => {
    bench = new Bench();
  });
  afterEach(async () => {
    delete process.env['DYING'];
    await bench.clean();
  });

  it('does each request once: killed when it was done, and before it was answered', async () => {
    const reports: string[] = [];
    let mount = await bench.mount({ report: (message) => reports.push(message) });
    process.env['DYING'] = 'killed';
    await mount.replaceServer(DYING);
    await run(process.execPath, '--no-warnings', ONCE, 'do', bench.at);
    const { restarts } = await mount.stats();
    assert.ok(restarts >= 18, `${restarts} servers`);
    assert.equal(reports.filter((message) => message.includes('another takes over')).length, restarts - 1);
    await mount.unmount();
    mount = await bench.mount();
    await run(process.execPath, '--no-warnings', ONCE, 'check', bench.at);
  });

  it('says so and ends when one server after the other dies of the same request', async () => {
    const reports: string[] = [];
    const mount = await bench.mount({ report: (message) => reports.push(message) });
    await fs.writeFile(bench.path('kept'), 'here');
    process.env['DYING'] = 'crashes';
    await mount.replaceServer(DYING);
    await assert.rejects(run('mkdir', bench.path('d')));
    await assert.rejects(mount.closed, { code: 'MOUNT_FAILED', message: /SIGABRT/ });
    assert.match(reports.at(-1)!, /its server ended \d+ times in a row/);
    await assert.rejects(mount.stats(), { code: 'NOT_MOUNTED' });
    delete process.env['DYING'];
    await bench.mount();
    assert.deepEqual(await fs.readdir(bench.at), ['kept']);
    assert.equal(await fs.readFile(bench.path('kept'), 'utf8'), 'here');
  });

  it('goes on with the server it has when another program is none', async () => {
    const mount = await bench.mount();
    const { serverPid } = mount;
    await assert.rejects(mount.replaceServer({ node: '/bin/false', script: 'x' }), { code: 'MOUNT_BUSY' });
    await assert.rejects(mount.replaceServer({ node: '/no/such/node', script: 'x' }), { code: 'MOUNT_BUSY' });
    await fs.writeFile(bench.path('f'), 'x');
    assert.equal(mount.serverPid, serverPid);
    await mount.replaceServer();
    assert.notEqual(mount.serverPid, serverPid);
    assert.equal(await fs.readFile(bench.path('f'), 'utf8'), 'x');
  });
});

describe('a mount whose server is killed while programs use it', function () {
  this.timeout(3_600_000);
  let bench: Bench;
  before(function () {
    needFuse(this);
    bench = new Bench();
  });
  after(() => bench?.clean());

  /** kill -9 of whoever serves, at any moment of its life: mostly while it serves, now and then before it does. */
  async function killServers(mount: Mount): Promise<void> {
    for (let kills = 0; kills < KILLS; kills++) {
      await sleep(Math.random() * 300);
      const { serverPid, restarts } = await mount.stats();
      process.kill(serverPid, 'SIGKILL');
      if (kills % 5 !== 4) continue;
      // The next one, in the middle of taking over.
      const pid = (): number => mount.serverPid;
      while (pid() === serverPid) await sleep(1);
      await sleep(Math.random() * 400);
      process.kill(pid(), 'SIGKILL');
      kills++;
      assert.ok((await mount.stats()).restarts > restarts);
    }
  }

  it(`no system call fails, and everything is there, after ${KILLS} kills`, async () => {
    let reports = 0;
    const mount = await bench.mount({ report: () => reports++ });
    const program = spawn(process.execPath, ['--no-warnings', PROGRAM, bench.at], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let said = '';
    const begun = new Promise((resolve) => program.stdout.once('data', resolve));
    program.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    const ended = new Promise<number | null>((resolve) => program.once('close', resolve));
    await Promise.race([begun, ended]);
    await Promise.race([killServers(mount), ended]);
    program.stdin.end();
    assert.equal(await ended, 0);
    const lines = said.trimEnd().split('\n').slice(1);
    const steps = Number(/^done (\d+)$/.exec(lines.pop()!)?.[1]);
    assert.ok(steps > KILLS, `${steps} steps`);
    const { restarts, orphans } = await mount.stats();
    assert.ok(restarts >= KILLS, `${restarts} of ${KILLS}`);
    assert.ok(reports >= KILLS);
    console.log(`      ${steps} steps, ${restarts} servers, ${orphans} unlinked files`);
    await mount.unmount();
    await bench.mount();
    assert.deepEqual(manifest(bench.at), lines.toSorted());
  });
});
