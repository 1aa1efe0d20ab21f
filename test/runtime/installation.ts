import { spawn, type ChildProcess } from 'node:child_process';
import {
  accessSync,
  constants,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { importImage } from '../../layers/import.ts';
import { removeUnusedBridge } from '../../runtime/network/bridge.ts';
import type { Roots } from '../../store/paths.ts';
import { openStore } from '../../store/store.ts';
import { writeBusyboxArchive } from './busybox.ts';

const HOME = join(dirname(fileURLToPath(import.meta.url)), '../..');
export const PG = process.env['PG_TEST_BIN'] ?? join(HOME, 'bin/pg');

export const IMAGE = 'pgtest/busybox';

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

/** Why containers cannot run here, or undefined. */
export function whyNot(): string | undefined {
  if (process.getuid?.() !== 0) return 'not root';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return 'no /dev/fuse';
  }
  if (!existsSync('/usr/sbin/runc') && !existsSync('/usr/bin/runc')) return 'no runc';
  if (!existsSync('/bin/busybox')) return 'no /bin/busybox (apt install busybox-static)';
  return existsSync(PG) ? undefined : `no ${PG}`;
}

/** Skips the suite aloud when containers cannot run here. */
export function needContainers(context: Mocha.Context): void {
  const reason = whyNot();
  if (reason === undefined) return;
  console.error(`      skipped: ${reason}`);
  context.skip();
}

/** A pg installation of its own below a temporary directory, with a busybox image in it; `close` checks that nothing of it is left. */
export class Installation {
  readonly dir: string;
  readonly roots: Roots;
  private readonly children = new Set<ChildProcess>();

  private constructor() {
    this.dir = mkdtempSync('/var/tmp/pg-test-');
    const data = join(this.dir, 'pg');
    this.roots = { data, run: join(data, 'run'), config: join(data, 'etc') };
  }

  static async open(imageConfig: object = {}): Promise<Installation> {
    const installation = new Installation();
    const store = openStore(installation.roots);
    try {
      await importImage(store, `docker-archive:${writeBusyboxArchive(installation.dir, imageConfig)}`);
    } finally {
      await store.close();
    }
    return installation;
  }

  /** Starts `pg` with these words; its process, for tests that interfere with it. */
  start(...words: string[]): ChildProcess {
    const child = spawn(PG, words, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, PG_ROOT: this.roots.data, PG_HOUSEKEEPING: 'off' },
    });
    this.children.add(child);
    child.on('close', () => this.children.delete(child));
    return child;
  }

  /** Runs `pg` with these words to its end. */
  pg(...words: string[]): Promise<Outcome> {
    return this.pgWith('', ...words);
  }

  /** The same with something on its stdin. */
  pgWith(input: string | Buffer, ...words: string[]): Promise<Outcome> {
    const child = this.start(...words);
    child.stdin!.on('error', () => {});
    child.stdin!.end(input);
    return outcomeOf(child);
  }

  /** Runs `pg` and insists that it succeeds; its stdout without the last line end. */
  async ok(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.pg(...words);
    if (code !== 0) throw new Error(`pg ${words.join(' ')}: exit code ${code}\n${stderr}${stdout}`);
    return stdout.replace(/\n$/, '');
  }

  /** Ends everything and removes it; throws when something of it is left on the machine. */
  async close(): Promise<void> {
    for (const child of this.children) child.kill('SIGKILL');
    const ids = (await this.ok('ps', '-aq', '--no-trunc')).split('\n').filter(Boolean);
    if (ids.length > 0) await this.ok('rm', '-f', '-v', ...ids);
    const left = this.remains();
    await removeUnusedBridge(this.roots);
    rmSync(this.dir, { recursive: true });
    if (left.length > 0) throw new Error(`left behind:\n${left.join('\n')}`);
  }

  /** Mounts, processes and network namespaces of this installation. Shims get a moment to end after their last answer. */
  private remains(): string[] {
    const mounts = readFileSync('/proc/self/mounts', 'utf8')
      .split('\n')
      .filter((line) => line.includes(this.dir));
    return [...mounts, ...this.containerDirs()];
  }

  private containerDirs(): string[] {
    const dir = join(this.roots.data, 'containers');
    return existsSync(dir) ? readdirSync(dir) : [];
  }
}

export function outcomeOf(child: ChildProcess): Promise<Outcome> {
  let stdout = '';
  let stderr = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code: code ?? (signal === 'SIGKILL' ? 137 : 128), stdout, stderr }));
  });
}

/** The host's end of a container's network. Other installations on this machine have theirs: only that of this container counts. */
export const hasLink = (id: string): boolean =>
  readFileSync('/proc/net/dev', 'latin1').includes(`pgv${id.slice(0, 11)}:`);

/** Waits until `condition` holds, looking again and again; fails after half a minute. */
export async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export const processLives = (pid: number): boolean => existsSync(`/proc/${pid}`) && !isZombie(pid);

function isZombie(pid: number): boolean {
  try {
    return / Z /.test(readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/\(.*\)/, ''));
  } catch {
    return true;
  }
}

export const networkNamespace = (pid: number): string => readlinkSync(`/proc/${pid}/ns/net`);
