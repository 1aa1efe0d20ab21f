import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Word } from '../fs/mount/acknowledged-writer.ts';
import { Knowledge } from '../fs/mount/knowledge.ts';
import { type Kill, KilledMount } from './holder.ts';

/**
 * kill -9 of whoever holds a mount, with or without its server, and while it mounts, at random moments under load: what fsync acknowledged is there in the next
 * mount, and the log verifies. `npm run test:long -- kill [ROUNDS]`.
 */
const ROUNDS = Number(process.argv[2] ?? 1000);
const WRITER = fileURLToPath(new URL('../fs/mount/acknowledged-writer.ts', import.meta.url));
const STORM = fileURLToPath(new URL('storm.ts', import.meta.url));
/** The files are begun anew, and the log is read as a whole, after so many. */
const ROUNDS_OF_ONE = 50;
const KILLS: Kill[] = ['holder', 'server, holder', 'server, holder', 'holder, server', 'holder, server'];

/** Starts a program on the mount; resolves when it has said something. */
async function begin(program: string, args: string[], hear: (text: string) => void): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['--no-warnings', program, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout!.setEncoding('utf8').on('data', hear);
  await new Promise((resolve) => {
    child.stdout!.once('data', resolve);
    child.once('close', resolve);
  });
  return child;
}

const ended = (child: ChildProcess): Promise<unknown> =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve()
    : new Promise((resolve) => child.once('close', resolve));

const mount = new KilledMount();
let [kills, acknowledged, verified] = [0, 0, 0];
try {
  let known = new Knowledge();
  let base = join(mount.at, 'files0');
  for (let round = 1; round <= ROUNDS; round++) {
    if (round % 10 === 0) {
      await mount.mountAndKill(Math.random() * 600);
      kills++;
    }
    await mount.mount();
    known.check(base);
    if (round % ROUNDS_OF_ONE === 0) {
      await mount.verify();
      verified++;
      await mount.mount();
      rmSync(base, { recursive: true, force: true });
      acknowledged += known.acknowledged;
      known = new Knowledge();
      base = join(mount.at, `files${round}`);
      console.log(`${round} rounds, ${acknowledged} acknowledged writes; ${mount.mountTimes()}`);
    }
    let text = '';
    const writer = await begin(WRITER, [base, String(known.last + 1)], (chunk) => (text += chunk));
    const storm = await begin(STORM, [join(mount.at, 'storm')], () => {});
    await sleep(Math.random() ** 2 * 800);
    await mount.kill(KILLS[Math.floor(Math.random() * KILLS.length)]!);
    kills++;
    storm.kill('SIGKILL');
    await Promise.all([ended(writer), ended(storm)]);
    for (const line of text.split('\n').slice(0, -1)) known.hear(JSON.parse(line) as Word);
  }
  await mount.mount();
  known.check(base);
  await mount.verify();
  acknowledged += known.acknowledged;
  assert.ok(acknowledged > ROUNDS);
  console.log(
    `${kills} kills, ${acknowledged} acknowledged writes, ${verified + 1} times verified; ${mount.mountTimes()}`,
  );
} finally {
  await mount.remove();
}
