import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { CreateOptions } from '../../runtime/create.ts';
import { writeBusyboxArchive } from '../runtime/busybox.ts';

const DRIVE = join(import.meta.dirname, 'drive.ts');
export const PORT = 7411;

/** Why moves cannot be tried on this machine; undefined when they can. */
function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'root is needed for network namespaces and mounts';
  if (!existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  if (!existsSync('/bin/busybox')) return 'busybox-static is not installed';
  if (spawnSync('runc', ['--version']).status !== 0) return 'runc is not installed';
  if (spawnSync('ip', ['netns', 'list']).status !== 0) return 'network namespaces cannot be made (iproute2)';
  return undefined;
}

export interface ContainerRow {
  name: string;
  id: string;
  status: string;
  initPid: number;
  role: string;
  epoch: number;
  settled: boolean;
  moving: object | null;
}

export interface Migrated {
  epoch: number;
  size: number;
  root: string;
  wireBytes: number;
  logBytes: number;
  sectors: number;
  rounds: number;
  downtimeMs: number | null;
  running: boolean;
  startError: { code: string; message: string } | null;
  notes: string[];
  said: string[];
}

/** An error that a deed on a node ended with. */
export class DeedError extends Error {
  readonly code: string;
  constructor(data: { code: string; message: string; hint?: string }) {
    super(`${data.code}: ${data.message}`);
    this.code = data.code;
  }
}

/** The deed's process was ended by a signal, as a test wanted it. */
export class Killed extends Error {}

interface DeedAnswer {
  ok?: unknown;
  error?: { code: string; message: string; hint?: string };
}

/** A process of `drive.ts`: deeds go in and answers come out as lines of JSON, each with its number. */
class Driver {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (answer: DeedAnswer) => void; reject: (error: Error) => void }>();
  readonly #ended: Promise<void>;
  #deeds = 0;

  constructor(name: string, child: ChildProcess) {
    this.#child = child;
    child.stdin!.on('error', () => undefined);
    createInterface(child.stdout!).on('line', (line) => {
      const { deed, ...answer } = JSON.parse(line) as DeedAnswer & { deed: number };
      this.#waiting.get(deed)?.resolve(answer);
      this.#waiting.delete(deed);
    });
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => this.#fail(error, resolve));
      child.once('close', (code, signal) => {
        const how = `a deed on ${name} was ended by ${signal ?? `exit code ${code}`}`;
        this.#fail(signal === null ? new Error(how) : new Killed(how), resolve);
      });
    });
  }

  do(verb: string, args: unknown[]): Promise<DeedAnswer> {
    const deed = this.#deeds++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(deed, { resolve, reject });
      this.#child.stdin!.write(`${JSON.stringify({ deed, verb, args })}\n`);
    });
  }

  async end(): Promise<void> {
    this.#child.stdin!.end();
    await this.#ended;
  }

  #fail(error: Error, then: () => void): void {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    then();
  }
}

/** A node: a network namespace, an address, a data directory. Everything is done by processes of its own, inside its namespace. */
export class TestNode {
  readonly name: string;
  readonly netns: string;
  readonly address: string;
  readonly root: string;
  readonly #caches: string;
  /** Does deed after deed: to start a process for each would take most of these tests' time. */
  #driver: Driver | undefined;

  constructor(name: string, netns: string, address: string, root: string, caches: string) {
    this.name = name;
    this.netns = netns;
    this.address = address;
    this.root = root;
    this.#caches = caches;
  }

  /** Does it in a process inside the node's network namespace; with `env`, for faults, in one of its own. Throws DeedError or Killed. */
  async do<T>(verb: string, args: unknown[] = [], env?: Record<string, string>): Promise<T> {
    const driver = env === undefined ? (this.#driver ??= this.#drive()) : this.#drive(env);
    try {
      const answer = await driver.do(verb, args);
      if (answer.error !== undefined) throw new DeedError(answer.error);
      return answer.ok as T;
    } catch (error) {
      if (driver === this.#driver && !(error instanceof DeedError)) this.#driver = undefined;
      // Where in the test it was asked for, not where the answer came in.
      throw Object.assign(error as Error, {
        stack: `${String(error)} (${verb} on ${this.name})\n${new Error().stack}`,
      });
    } finally {
      if (driver !== this.#driver) await driver.end();
    }
  }

  #drive(env: Record<string, string> = {}): Driver {
    const command = [`--net=/run/netns/${this.netns}`, process.execPath, '--no-warnings', DRIVE];
    const child = spawn('nsenter', command, {
      env: { ...process.env, PG_ROOT: this.root, PG_HOUSEKEEPING: 'off', NODE_COMPILE_CACHE: this.#caches, ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    return new Driver(this.name, child);
  }

  /** The processes that are there for deeds have ended. */
  async end(): Promise<void> {
    await this.#driver?.end();
    this.#driver = undefined;
  }

  run = (options: CreateOptions, image = 'pgtest/busybox:latest'): Promise<string> => this.do('run', [image, options]);
  exec = (name: string, command: string): Promise<string> => this.do('exec', [name, command]);
  migrate = (name: string, to: TestNode, env?: Record<string, string>): Promise<Migrated> =>
    this.do('migrate', [name, to.name, 1], env);
  async ps(name: string): Promise<ContainerRow | undefined> {
    return (await this.do<ContainerRow[]>('ps')).find((row) => row.name === name);
  }

  /** Starts the daemon; resolves when it listens. */
  async startDaemon(env?: Record<string, string>): Promise<number> {
    return (await this.do<{ pid: number }>('node', [this.address, PORT], env)).pid;
  }

  async stopDaemon(): Promise<void> {
    await this.do('node-stop');
  }

  async daemonPid(): Promise<number | undefined> {
    return (await this.do<{ pid: number } | null>('node-status'))?.pid;
  }

  daemonLog(): string {
    const path = join(this.root, 'node/node.log');
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  }
}

/** Two nodes, `a` and `b`, joined by a cable (veth), that know each other; the image is on `a`; no daemon runs. */
export interface TwoNodes {
  dir: string;
  a: TestNode;
  b: TestNode;
  /** Pulls the cable, or plugs it in again. */
  cable(state: 'up' | 'down'): void;
  end(): Promise<void>;
}

const ip = (...args: string[]): void => void execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });

async function startTwoNodes(): Promise<TwoNodes> {
  const dir = mkdtempSync('/var/tmp/pg-test-');
  const tag = randomBytes(3).toString('hex');
  const caches = join(dir, 'compiled');
  const a = new TestNode('a', `pgt-${tag}-a`, '10.99.0.1', join(dir, 'a'), caches);
  const b = new TestNode('b', `pgt-${tag}-b`, '10.99.0.2', join(dir, 'b'), caches);
  ip('netns', 'add', a.netns);
  ip('netns', 'add', b.netns);
  ip('link', 'add', `pgt${tag}a`, 'netns', a.netns, 'type', 'veth', 'peer', 'name', `pgt${tag}b`, 'netns', b.netns);
  for (const [node, end] of [
    [a, `pgt${tag}a`],
    [b, `pgt${tag}b`],
  ] as const) {
    ip('-n', node.netns, 'addr', 'add', `${node.address}/24`, 'dev', end);
    ip('-n', node.netns, 'link', 'set', 'lo', 'up');
    ip('-n', node.netns, 'link', 'set', end, 'up');
  }
  await know(a, b);
  await a.do('import', [`docker-archive:${writeBusyboxArchive(dir)}`]);
  return {
    dir,
    a,
    b,
    cable: (state) => ip('-n', a.netns, 'link', 'set', `pgt${tag}a`, state),
    end: async () => {
      for (const node of [a, b]) {
        for (const { id } of await node.do<ContainerRow[]>('ps').catch(() => []))
          await node.do('rm', [id]).catch(() => undefined);
        await node.do('node-stop').catch(() => undefined);
        await node.end();
      }
      for (const node of [a, b]) ip('netns', 'del', node.netns);
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** For a `describe`: two nodes for all of its tests, those named with a running daemon. Skips them aloud where there can be none. */
export function useTwoNodes(...daemons: readonly ('a' | 'b')[]): () => TwoNodes {
  let nodes: TwoNodes | undefined;
  before(async function () {
    const reason = whyNot();
    if (reason !== undefined) {
      console.error(`    skipped: ${reason}`);
      this.skip();
    }
    this.timeout(60_000);
    nodes = await startTwoNodes();
    await Promise.all(daemons.map((name) => nodes![name].startDaemon()));
  });
  after(async function () {
    this.timeout(60_000);
    await nodes?.end();
  });
  return () => nodes!;
}

/** Each is told of the other. */
export async function know(a: TestNode, b: TestNode): Promise<void> {
  const [idA, idB] = await Promise.all([a.do<string>('id'), b.do<string>('id')]);
  await a.do('peer', ['b', `${b.address}:${PORT}`, idB]);
  await b.do('peer', ['a', `${a.address}:${PORT}`, idA]);
}

/** Processes of this machine whose command line has this text, wherever they run; what they have forked not counted. */
export function processesWith(text: string): number[] {
  const found = readdirSync('/proc').filter((name) => {
    return /^\d+$/.test(name) && readProc(name, 'cmdline').split('\0').includes(text);
  });
  // One that has ended since is none.
  return found.filter((pid) => parentOf(pid) !== '' && !found.includes(parentOf(pid))).map(Number);
}

/** Field 4 of stat, the second after the parenthesised name (proc(5)); empty when there is no such process. */
const parentOf = (pid: string): string => readProc(pid, 'stat').split(') ').at(-1)!.split(' ')[1] ?? '';

function readProc(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'latin1');
  } catch {
    return '';
  }
}
