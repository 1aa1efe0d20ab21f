import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isPgError, PgError } from '../mdm/error.ts';
import { type Index, openIndex } from './index-db.ts';
import { indexDir, type Roots } from './paths.ts';
import { startTicksOf } from './lease.ts';
import { syncDirectory } from './sector.ts';
import { siblingModule } from './threads.ts';

/** What the probe (index-probe.ts) answers. */
export interface ProbeReport {
  entries: number;
  problems: string[];
}

/** LMDB's meta page, as lmdb-js has it: a page head of 24 bytes, then the magic number ... and, last, the transaction's number. */
const META = { magicAt: 24, magic: 0xbeefc0de, transactionAt: 152, pageBytes: 4096 };

const copyDir = (roots: Roots): string => join(indexDir(roots), 'copy');

/**
 * Whether the pages of the index in `directory` hang together: undefined, or what is wrong with them. They are read in a process of their own, for LMDB
 * may end the process that reads a damaged page. Values are not compared with their checksums. Safe while others use the index.
 */
export async function indexDamage(roots: Roots, directory = indexDir(roots)): Promise<string | undefined> {
  if (!existsSync(join(directory, 'data.mdb'))) return undefined;
  const probe = spawn(process.execPath, probeWords(roots, directory), { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/' });
  const [stdout, stderr] = await Promise.all([text(probe.stdout), text(probe.stderr), ended(probe)]);
  return judge({ signal: probe.signalCode, status: probe.exitCode, stdout, stderr }, directory);
}

/**
 * For a command that is about to trust the index: when one that used it before has died (a signal, a crash of the machine), it is looked at as `indexDamage` does, which takes 0.3 s.
 * A file in `index/using`, named by process number and start, says that a command has begun; its end takes it away. CORRUPT_INDEX: then the word of the dead one stays, so that
 * every command says so until the index is made anew.
 */
export function trustIndex(roots: Roots): void {
  const directory = indexDir(roots);
  if (!existsSync(join(directory, 'data.mdb'))) return;
  const using = join(directory, 'using');
  try {
    mkdirSync(using, { recursive: true, mode: 0o700 });
    const dead = readdirSync(using).filter((name) => !isAlive(name));
    if (dead.length > 0) {
      const words = probeWords(roots, directory);
      const damage = judge(spawnSync(process.execPath, words, { encoding: 'utf8', cwd: '/' }), directory);
      if (damage !== undefined) throw corruptIndex(damage);
    }
    for (const name of dead) rmSync(join(using, name), { force: true });
    const own = join(using, `${process.pid}.${startTicksOf(process.pid) ?? ''}`);
    closeSync(openSync(own, 'w', 0o600));
    process.once('exit', () => rmSync(own, { force: true }));
  } catch (error) {
    // A disk that is full or read-only, a user who may not write there: what is to be said of that, the store says.
    if (isPgError(error)) throw error;
  }
}

/** PgError('CORRUPT_INDEX'). */
export function corruptIndex(damage: string): PgError {
  return new PgError('CORRUPT_INDEX', `the index is damaged: ${damage}`, {
    hint: 'stop everything that uses the store, then: pg verify --rebuild',
  });
}

function isAlive(name: string): boolean {
  const [pid, ticks] = name.split('.');
  return startTicksOf(Number(pid)) === ticks;
}

const probeWords = (roots: Roots, directory: string): string[] => [
  '--no-warnings',
  fileURLToPath(siblingModule(import.meta.url, './index-probe')),
  JSON.stringify(roots),
  directory,
];

/** How a probe ended. */
interface Probed {
  signal: NodeJS.Signals | null;
  status: number | null;
  stdout: string;
  stderr: string;
}

function judge({ signal, status, stdout, stderr }: Probed, directory: string): string | undefined {
  if (signal !== null) return `reading it ends in ${signal}`;
  if (status !== 0)
    return /\w*Error: (.*)/.exec(stderr)?.[1] ?? (stderr.trim().split('\n').at(-1) || 'it cannot be read');
  const { problems } = JSON.parse(stdout) as ProbeReport;
  return problems.length > 0 ? problems.join('; ') : metaDamage(join(directory, 'data.mdb'));
}

/**
 * LMDB writes its two meta pages in turn, and takes the one with the larger transaction number: a damaged one could be passed over in silence, and the
 * last transaction with it. Read again if somebody is just writing.
 */
function metaDamage(path: string): string | undefined {
  let damage: string | undefined;
  for (let attempt = 0; attempt < 3; attempt++) {
    const fd = openSync(path, 'r');
    const bytes = Buffer.alloc(2 * META.pageBytes);
    try {
      readSync(fd, bytes, 0, bytes.length, 0);
    } finally {
      closeSync(fd);
    }
    const numbers = [0, 1].map((page) => bytes.readBigUInt64LE(page * META.pageBytes + META.transactionAt));
    const magic = [0, 1].every((page) => bytes.readUInt32LE(page * META.pageBytes + META.magicAt) === META.magic);
    const apart = numbers[0]! - numbers[1]!;
    // A new index, and a compact copy, have one head that was never written.
    const fresh = numbers.includes(0n);
    if (magic && (fresh || apart === 1n || apart === -1n)) return undefined;
    damage = magic ? `its heads are of transactions ${numbers.join(' and ')}` : 'one of its heads is not one';
  }
  return damage;
}

async function text(stream: NodeJS.ReadableStream): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of stream) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}

function ended(child: ReturnType<typeof spawn>): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', () => resolve());
  });
}

/** Keeps a copy of the index, which was found whole, in place of an older copy. DISK_FULL, DISK_ERROR: then the older one stands. */
export async function keepIndexCopy(roots: Roots, index: Index): Promise<void> {
  const dir = copyDir(roots);
  const made = `${dir}.${process.pid}`;
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  rmSync(made, { recursive: true, force: true });
  mkdirSync(made, { mode: 0o700 });
  try {
    await index.copy(made);
    renameSync(join(made, 'data.mdb'), join(dir, 'data.mdb'));
    syncDirectory(dir);
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}

/** Runs `action` with the copy of the index open for reading, if there is one and it is whole. Whether it was. */
export async function withIndexCopy(roots: Roots, action: (copy: Index) => void): Promise<boolean> {
  const dir = copyDir(roots);
  if (!existsSync(join(dir, 'data.mdb')) || (await indexDamage(roots, dir)) !== undefined) return false;
  const copy = openIndex(roots, true, dir);
  try {
    action(copy);
  } finally {
    await copy.close();
  }
  return true;
}
