import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DeedError, Killed, processesWith, type Migrated, type TwoNodes, useTwoNodes } from './nodes.ts';

const FAULT = join(import.meta.dirname, 'fault.ts');
const MESSAGES =
  'hello image-known lacking prepare sector contents settle nodes image log sync seal hand-over start'.split(' ');
/** Where a crash tells more than that the move can be tried again: always every kind of fault. */
const CRITICAL = new Set(['seal', 'hand-over', 'start']);

/**
 * At every message of a first move, one side dies (SIGKILL) or the connection breaks, before the message goes out or when it has come in.
 * Whatever happens: never do two run; before the release it runs on at the source; in the end one more `pg migrate` has it on the target, with
 * every byte. PG_TEST_ALL=1 tries all 112 combinations.
 */
describe('a move, broken at every message', () => {
  const twoNodes = useTwoNodes('a');
  let nodes: TwoNodes;
  let token: string;
  let watcher: Watcher;

  before(() => {
    nodes = twoNodes();
  });
  beforeEach(async () => {
    token = `pgtest-${randomBytes(6).toString('hex')}`;
    const script = 'trap "exit 0" TERM; echo start >> /starts; while true; do sleep 0.05; done';
    await nodes.a.run({ name: 'web', command: ['sh', '-c', script, token], network: 'none' });
    watcher = new Watcher(token);
  });
  afterEach(async () => {
    await watcher.end();
    for (const node of [nodes.a, nodes.b]) {
      for (const { id } of await node.do<{ id: string }[]>('ps')) await node.do('rm', [id]);
    }
    await nodes.b.stopDaemon();
    // The image is to be shipped again; the identity stays.
    for (const entry of readdirSync(nodes.b.root)) {
      if (entry !== 'node') rmSync(join(nodes.b.root, entry), { recursive: true, force: true });
    }
  });

  for (const message of MESSAGES) {
    for (const [side, how, where] of faultsOf(message)) {
      it(`${message}: the ${side} is ${how === 'kill' ? 'killed' : 'cut off'} ${where === 'send' ? 'before it goes out' : 'as it comes in'}`, async () => {
        const { a, b } = nodes;
        const env = { NODE_OPTIONS: `--no-warnings --import=${FAULT}`, PG_TEST_FAULT: `${how} ${where} ${message}` };
        const sum = (
          await a.exec('web', 'dd if=/dev/urandom of=/blob bs=64k count=30 2>/dev/null; sha256sum /blob')
        ).trim();
        await b.startDaemon(side === 'target' ? env : undefined);
        const first = await outcome(a.migrate('web', b, side === 'source' ? env : undefined));
        assert.ok(!(first instanceof Killed) || (side === 'source' && how === 'kill'));
        if ((await b.daemonPid()) === undefined) await b.startDaemon();

        const here = (await a.ps('web'))!;
        if (here.role === 'owner') {
          await until('it runs on the source again', async () => (await a.ps('web'))!.status === 'running');
          assert.equal((await a.exec('web', 'sha256sum /blob')).trim(), sum);
        }
        const second = await outcome(a.migrate('web', b));
        // It may have settled already: in the first call, or by the source's daemon.
        if (second instanceof Error)
          assert.ok(second instanceof DeedError && second.code === 'CONTAINER_MOVED', String(second));
        await until('it runs on the target', async () => (await b.ps('web'))?.status === 'running');
        assert.equal((await b.exec('web', 'sha256sum /blob')).trim(), sum);
        assert.deepEqual([(await b.ps('web'))!.role, (await b.ps('web'))!.epoch], ['owner', 1]);
        await until('the source knows', async () => (await a.ps('web'))!.settled);
        await assert.rejects(a.do('start', ['web']), { code: 'CONTAINER_MOVED' });
        assert.equal(watcher.most, 1);
      }).timeout(90_000);
    }
  }
});

type Fault = readonly ['source' | 'target', 'kill' | 'cut', 'send' | 'recv'];

function faultsOf(message: string): Fault[] {
  const all: Fault[] = [];
  for (const side of ['source', 'target'] as const) {
    for (const how of ['kill', 'cut'] as const)
      for (const where of ['send', 'recv'] as const) all.push([side, how, where]);
  }
  if (CRITICAL.has(message) || process.env['PG_TEST_ALL'] === '1') return all;
  // One of each side, and one of each kind.
  return [all[0]!, all[7]!];
}

async function outcome(move: Promise<Migrated>): Promise<Migrated | Error> {
  try {
    return await move;
  } catch (error) {
    assert.ok(error instanceof DeedError || error instanceof Killed, String(error));
    assert.notEqual((error as DeedError).code, 'INTERNAL', String(error));
    return error;
  }
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `${what}: not within 30 s`);
    await sleep(100);
  }
}

/** Counts the container's processes on this machine, both nodes together, all the time. */
class Watcher {
  most = 0;
  #ending = false;
  readonly #done: Promise<void>;

  constructor(token: string) {
    this.#done = (async () => {
      while (!this.#ending) {
        this.most = Math.max(this.most, processesWith(token).length);
        await sleep(20);
      }
    })();
  }

  async end(): Promise<void> {
    this.#ending = true;
    await this.#done;
  }
}
